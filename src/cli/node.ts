/** `trilith node`: members of the cluster. */
import { Command } from "commander";
import type { CliContext } from "./context.ts";
import { deleteCommand } from "./delete.ts";
import { shutdownCommand } from "./shutdown.ts";

/** The `node` verb: `node remove` is `delete node` under the name that goes with `join`. */
export function nodeCommand(context: CliContext): Command {
  const remove = deleteCommand(context).commands.find((command) => command.name() === "node")!;
  return new Command("node")
    .description("Changes who is in the cluster.")
    .addCommand(
      remove
        .name("remove")
        .description(
          "Removes a node from the cluster for good. It has to be empty (`trilith drain node`,\n" +
            "`trilith delete pool`), unless it is purged. To bring it back, clear its data directory\n" +
            "and join it again.",
        ),
    )
    .addCommand(shutdownCommand(context));
}
