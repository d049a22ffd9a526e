/** `trilith get` of what the cluster as a whole has: events, warnings, settings, versions. */
import type { Command } from "commander";
import { settingName, settingText } from "../cluster-settings.ts";
import type { CliContext } from "../context.ts";
import { type EventFilter, eventOptions, printEvents } from "../event-listing.ts";
import { printObjects, printTable, withSession } from "../session.ts";
import { versionsOf } from "../upgrade-state.ts";

export function addEvents(get: Command, context: CliContext): void {
  eventOptions(get.command("events").description("Lists what has happened in the cluster.")).action(
    withSession<[], EventFilter>(context, (session, _args, options) =>
      printEvents(session, options),
    ),
  );
}

export function addWarnings(get: Command, context: CliContext): void {
  get
    .command("warnings")
    .description("Lists what needs attention, with the command that fixes it.")
    .action(
      withSession<[], object>(context, async (session) => {
        const warnings = await session.client.warnings();
        const headings = ["SEVERITY", "SUBJECT", "MESSAGE", "REMEDY"];
        printTable(session, warnings, headings, warnings, (one) => [
          [one.severity, one.subject, one.message, one.remedy],
        ]);
      }),
    );
}

export function addSettings(get: Command, context: CliContext): void {
  get
    .command("settings")
    .description("Lists the settings of the cluster (trilith set setting changes them).")
    .action(
      withSession<[], object>(context, async (session) => {
        const settings = await session.client.settings();
        const entries = Object.entries(settings);
        printTable(session, settings, ["NAME", "VALUE"], entries, ([key, value]) => [
          [settingName(key), settingText(key, value)],
        ]);
      }),
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
