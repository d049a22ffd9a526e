/**
 * `trilith system-files`: writes the units and settings that belong to this executable.
 *
 * They travel inside it, so that what is installed always fits the executable, and the installer
 * needs nothing but that one file.
 */
import { mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Command } from "commander";
import preset from "../../systemd/80-trilith.preset" with { type: "text" };
import modulesLoad from "../../systemd/trilith.modules-load.conf" with { type: "text" };
import controlUnit from "../../systemd/trilith.service" with { type: "text" };
import sysusers from "../../systemd/trilith.sysusers.conf" with { type: "text" };
import tmpfiles from "../../systemd/trilith.tmpfiles.conf" with { type: "text" };
import csiUnit from "../../systemd/trilith-csi.service" with { type: "text" };
import engineUnit from "../../systemd/trilith-engine.service" with { type: "text" };
import hostUnit from "../../systemd/trilith-host.service" with { type: "text" };
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";

/** Path below the root directory, and contents. */
export const systemFiles: Readonly<Record<string, string>> = {
  "usr/lib/systemd/system/trilith.service": controlUnit,
  "usr/lib/systemd/system/trilith-engine.service": engineUnit,
  "usr/lib/systemd/system/trilith-host.service": hostUnit,
  "usr/lib/systemd/system/trilith-csi.service": csiUnit,
  "usr/lib/systemd/system-preset/80-trilith.preset": preset,
  "usr/lib/sysusers.d/trilith.conf": sysusers,
  "usr/lib/tmpfiles.d/trilith.conf": tmpfiles,
  "usr/lib/modules-load.d/trilith.conf": modulesLoad,
};

/** Writes one file so that there is, at any moment, the old one or the new one. */
function replaceFile(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const partial = `${path}.new`;
  writeFileSync(partial, text, { mode: 0o644 });
  renameSync(partial, path);
}

/** Writes all of them below `root`. Throws NotFound when it is no directory. */
export function writeSystemFiles(root: string): void {
  if (statSync(root, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new TrilithError("NotFound", `${root} is not a directory`, "create it first");
  }
  for (const [path, text] of Object.entries(systemFiles)) replaceFile(join(root, path), text);
}

export function systemFilesCommand(context: CliContext): Command {
  return new Command("system-files")
    .description(
      "Lists the units and settings that belong to this executable, or writes them below a\n" +
        "directory. install.sh does the latter.",
    )
    .option("--write <root>", "write them below this directory (`/` for this machine)")
    .action((options: { write?: string }) => {
      if (options.write !== undefined) writeSystemFiles(options.write);
      for (const path of Object.keys(systemFiles)) context.print(`/${path}`);
    });
}
