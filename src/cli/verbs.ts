/**
 * The verbs, each in a file of its own that is loaded only when it is called. Adding a verb is
 * adding a file that exports a function from a `CliContext` to a commander `Command`, and a line.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.ts";

export interface Verb {
  readonly name: string;
  /** One line of `trilith --help`. */
  readonly summary: string;
  /** Imports the verb's file and returns what builds its command. */
  readonly load: () => Promise<(context: CliContext) => Command>;
}

export const verbs: readonly Verb[] = [
  {
    name: "bench",
    summary: "put load on a block device and measure it",
    load: async () => (await import("./bench.ts")).benchCommand,
  },
  {
    name: "demo",
    summary: "show a mirrored volume that outlives its nodes",
    load: async () => (await import("./demo.ts")).demoCommand,
  },
  {
    name: "engine",
    summary: "run the storage engine alone",
    load: async () => (await import("./engine.ts")).engineCommand,
  },
  {
    name: "pool",
    summary: "look at pools on this machine's disks",
    load: async () => (await import("./pool.ts")).poolCommand,
  },
  {
    name: "server",
    summary: "run a node: the engine, started again when it ends, and the recorder",
    load: async () => (await import("./server.ts")).serverCommand,
  },
  {
    name: "system-files",
    summary: "list or write the units and settings of this build",
    load: async () => (await import("./system-files.ts")).systemFilesCommand,
  },
  {
    name: "version",
    summary: "say which build this is",
    load: async () => (await import("./version.ts")).versionCommand,
  },
];
