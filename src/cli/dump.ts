/** `trilith dump`: what whoever looks into a problem wants to see, in one file. Never secrets. */
import { statSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { type Bundle, collect, type Scope } from "./dump/collect.ts";
import { durationArgument, humanSize } from "./output/size.ts";
import { statusLine } from "./output/status-line.ts";
import { idArgument, printObjects, type Session, withSession } from "./session.ts";

interface DumpOptions {
  readonly since?: number;
  readonly outputDirectoryPath: string;
  readonly disableLogCollection?: boolean;
  readonly stdout?: boolean;
}

const SINCE_DEFAULT_MS = 24 * 3600 * 1000;

function withDumpOptions(command: Command): Command {
  return command
    .option("-s, --since <time>", "logs of the last while (default: 24h)", durationArgument)
    .option("-d, --output-directory-path <path>", "where to put the file", "./")
    .option("-l, --loki-endpoint <url>", "accepted for kubectl's sake: logs come from the journal")
    .option("-e, --etcd-endpoint <url>", "accepted for kubectl's sake: there is no etcd")
    .option("--disable-log-collection", "without logs");
}

/** `trilith-bundle-node1-2026-11-21T10-15-00Z.tar.gz` */
function fileName(session: Session): string {
  const at = new Date(session.now()).toISOString().replace(/\.\d+/, "").replaceAll(":", "-");
  return `trilith-bundle-${hostname()}-${at}.tar.gz`;
}

async function writeBundle(path: string, bundle: Bundle): Promise<void> {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) {
    throw new TrilithError("AlreadyExists", `${path} is there already`, "take another directory");
  }
  await Bun.Archive.write(path, { ...bundle.files }, { compress: "gzip" });
}

async function dump(session: Session, scope: Scope, options: DumpOptions): Promise<void> {
  const { context } = session;
  const directory = options.outputDirectoryPath;
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new TrilithError("NotFound", `${directory} is not a directory`, "create it first");
  }
  const line = statusLine(context, session.output === "none");
  const bundle = await collect(session, scope, {
    sinceMs: options.since ?? SINCE_DEFAULT_MS,
    logs: options.disableLogCollection !== true,
    progress: (what) => line.set(`collecting ${what}`),
  });
  line.clear();
  const path = join(directory, fileName(session));
  await writeBundle(path, bundle);
  const size = statSync(path).size;
  const result = {
    path,
    sizeBytes: size,
    files: Object.keys(bundle.files),
    missing: bundle.missing,
  };
  if (printObjects(session, result)) return;
  for (const { what, why } of bundle.missing) context.printError(`without ${what}: ${why}`);
  context.print(`${path}: ${result.files.length} files, ${humanSize(size)}`);
}

function scopeCommand(
  context: CliContext,
  name: string,
  description: string,
  kind: "volume" | "pool" | "node" | null,
  scopeOf: (id: string) => Scope,
): Command {
  const command = new Command(name).description(description);
  if (kind !== null) command.addArgument(idArgument(kind));
  return withDumpOptions(command).action(
    withSession<[string], DumpOptions>(context, (session, [id], options) =>
      dump(session, scopeOf(id), options),
    ),
  );
}

/** The `dump` verb. */
export function dumpCommand(context: CliContext): Command {
  const etcd = new Command("etcd")
    .description("Prints all that the cluster's store holds (there is no etcd).")
    .option("--stdout", "accepted for kubectl's sake: it is printed")
    .action(
      withSession<[], object>(context, async (session) => {
        const specs = await session.client.specs();
        if (!printObjects(session, specs)) context.print(JSON.stringify(specs, null, 2));
      }),
    );
  const all = (): Scope => ({ kind: "system" });
  return new Command("dump")
    .description(
      "Puts what is known of the cluster and of this machine in a file, without secrets.",
    )
    .addCommand(scopeCommand(context, "system", "Everything.", null, all))
    .addCommand(etcd)
    .addCommand(scopeCommand(context, "nodes", "All nodes.", null, () => ({ kind: "nodes" })))
    .addCommand(scopeCommand(context, "node", "One node.", "node", (id) => ({ kind: "nodes", id })))
    .addCommand(scopeCommand(context, "pools", "All pools.", null, () => ({ kind: "pools" })))
    .addCommand(scopeCommand(context, "pool", "One pool.", "pool", (id) => ({ kind: "pools", id })))
    .addCommand(scopeCommand(context, "volumes", "All volumes.", null, () => ({ kind: "volumes" })))
    .addCommand(
      scopeCommand(context, "volume", "One volume.", "volume", (id) => ({ kind: "volumes", id })),
    );
}
