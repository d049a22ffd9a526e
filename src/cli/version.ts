/** `trilith version` */
import { Command } from "commander";
import { buildInfo, versionLine } from "../version.ts";
import { type CliContext, printResult } from "./context.ts";

export function versionCommand(context: CliContext): Command {
  return new Command("version")
    .description("Says which build this is: version, commit, and the Bun it stands on.")
    .option("--json", "print JSON")
    .action((options: { json?: boolean }) => {
      printResult(context, options, buildInfo, versionLine);
    });
}
