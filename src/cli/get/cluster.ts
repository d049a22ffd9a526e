/** `trilith get events` and `trilith get upgrade-status`. */
import type { Command } from "commander";
import type { CliContext } from "../context.ts";
import { type EventFilter, eventOptions, printEvents } from "../event-listing.ts";
import { printObjects, withSession } from "../session.ts";
import { versionsOf } from "../upgrade-state.ts";

export function addEvents(get: Command, context: CliContext): void {
  eventOptions(get.command("events").description("Lists what has happened in the cluster.")).action(
    withSession<[], EventFilter>(context, (session, _args, options) =>
      printEvents(session, options),
    ),
  );
}

export function addUpgradeStatus(get: Command, context: CliContext): void {
  get
    .command("upgrade-status")
    .description("Says which versions the nodes run, and whether an upgrade is under way.")
    .action(
      withSession<[], object>(context, async (session) => {
        const versions = versionsOf(await session.client.nodes());
        if (printObjects(session, versions)) return;
        session.context.print(
          `Upgrade From: ${versions.from}\nUpgrade To: ${versions.to}\n` +
            `Upgrade Status: ${versions.status}`,
        );
      }),
    );
}
