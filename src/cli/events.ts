/** `trilith events`: what has happened, and with `--follow` what happens. */
import { Command } from "commander";
import type { CliContext } from "./context.ts";
import { type EventFilter, eventOptions, printEvents, streamEvents } from "./event-listing.ts";
import { withSession } from "./session.ts";

export function eventsCommand(context: CliContext): Command {
  const command = new Command("events").description(
    "Lists what has happened in the cluster; with --follow also what happens, as it does.\n" +
      "A broken connection is made again where it was: no event is missed, none comes twice.",
  );
  return eventOptions(command)
    .option("-f, --follow", "stay, and print events as they happen (Ctrl-C ends it)")
    .action(
      withSession<[], EventFilter>(context, (session, _args, options) =>
        options.follow === true ? streamEvents(session, options) : printEvents(session, options),
      ),
    );
}
