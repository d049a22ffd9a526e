/** `trilith pool`: what can be done to a pool without an engine. */
import { Command } from "commander";
import { runPoolCheck } from "../engine/pool/check.ts";
import type { CliContext } from "./context.ts";

export function poolCommand(context: CliContext): Command {
  const check = new Command("check")
    .summary("verify the pool on a disk, without changing anything")
    .description(
      "Verifies the pool on a disk or in a file: every structure, every reference. Writes nothing.\n" +
        "The engine that uses the disk must have let go of it. Contents of volumes carry no\n" +
        "checksums of their own and are not read.",
    )
    .argument("<device>", "disk or file, e.g. /dev/sdb")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      "\nExit status: 0 sound, 3 degraded (all data is there, the next import restores the\n" +
        "redundancy of metadata), 7 damaged, 4 there is no pool.",
    )
    .action((device: string, options: { json?: boolean }) => {
      const json = options.json === true;
      context.exitStatus = runPoolCheck(device, { json, print: context.print });
    });
  return new Command("pool")
    .description("Looks at pools on this machine's disks.")
    .addCommand(check);
}
