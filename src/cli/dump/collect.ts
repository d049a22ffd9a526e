/**
 * Gathers a support bundle: the cluster by its API, this machine's journal, metrics and fitness.
 * What cannot be had is noted, and does not stop the rest.
 */
import { Glob } from "bun";
import type { ClusterEvent } from "../../client/types.ts";
import { DATA_DIR_DEFAULT } from "../../engine/settings.ts";
import { TrilithError } from "../../errors.ts";
import { versionLine } from "../../version.ts";
import { diagnose, nodePorts } from "../doctor/checks.ts";
import { gatherFacts } from "../doctor/gather.ts";
import type { Session } from "../session.ts";
import { redact } from "./redact.ts";

/** Events that are asked for at a time, and at most. */
const EVENTS_PER_PAGE = 1000;
const EVENT_PAGES_MAX = 100;
/** Largest log that is put into a bundle: its end is kept. */
const LOG_BYTES_MAX = 32 << 20;
const COMMAND_MS = 60_000;
const METRICS_URL = "http://127.0.0.1:9502/metrics";
const METRICS_MS = 5_000;

/** Parts of the API that are told as they are. */
const clusterParts = [
  "specs",
  "replicas",
  "nexuses",
  "status",
  "warnings",
  "plan",
  "cluster",
  "settings",
];

/** What is wanted: everything, or a kind of things, or one of them. */
export type Scope =
  | { readonly kind: "system" }
  | { readonly kind: "nodes" | "pools" | "volumes"; readonly id?: string };

export interface Bundle {
  /** Contents by path. */
  readonly files: Readonly<Record<string, string>>;
  readonly missing: readonly { readonly what: string; readonly why: string }[];
}

export interface CollectOptions {
  /** How far logs go back. */
  readonly sinceMs: number;
  readonly logs: boolean;
  readonly progress: (what: string) => void;
}

/** A name as part of a path. */
function fileSafe(name: string): string {
  return name.replace(/[^A-Za-z0-9._-]/g, "_");
}

async function allEvents(session: Session): Promise<ClusterEvent[]> {
  const events: ClusterEvent[] = [];
  let since = 0;
  for (let pages = 0; pages < EVENT_PAGES_MAX; pages++) {
    const page = await session.client.events(since, EVENTS_PER_PAGE);
    events.push(...page.events);
    if (page.events.length < EVENTS_PER_PAGE || page.next <= since) break;
    since = page.next;
  }
  return events;
}

/** What a command prints, its end when it is too long. */
async function outputOf(command: readonly string[]): Promise<string> {
  const program = Bun.which(command[0]!);
  if (program === null) throw new TrilithError("NotFound", `${command[0]} is not installed`);
  const child = Bun.spawn([program, ...command.slice(1)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: COMMAND_MS,
  });
  const [text, complaint] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) {
    throw new TrilithError("Unavailable", complaint.trim().split("\n")[0] ?? "it failed");
  }
  return text.length > LOG_BYTES_MAX ? text.slice(-LOG_BYTES_MAX) : text;
}

async function metrics(): Promise<string> {
  const response = await fetch(METRICS_URL, { signal: AbortSignal.timeout(METRICS_MS) });
  if (!response.ok) throw new TrilithError("Unavailable", `it answered ${response.status}`);
  return await response.text();
}

async function machine(data: string): Promise<Record<string, string>> {
  const ports = nodePorts.filter(({ fromOutside }) => fromOutside).map(({ port }) => port);
  const facts = await gatherFacts(data, ports);
  const plain = { ...facts, listeners: Object.fromEntries(facts.listeners) };
  return {
    "machine/facts.json": JSON.stringify(plain, null, 2),
    "machine/doctor.json": JSON.stringify(diagnose(facts, "both"), null, 2),
  };
}

/** Sizes of what lies in the data directory: names and lengths, no contents. */
async function dataFiles(folder: string): Promise<string> {
  const names = [...new Glob("**/*").scanSync({ cwd: folder, onlyFiles: true })].sort();
  return names.map((name) => `${Bun.file(`${folder}/${name}`).size}\t${name}`).join("\n");
}

/** Takes in parts of a bundle; one that fails is noted, and the others go on. */
function collector(progress: (what: string) => void) {
  const files: Record<string, string> = {};
  const missing: { what: string; why: string }[] = [];
  async function attempt(what: string, make: () => Promise<Record<string, string>>): Promise<void> {
    progress(what);
    try {
      Object.assign(files, await make());
    } catch (error) {
      missing.push({ what, why: error instanceof Error ? error.message : String(error) });
    }
  }
  return { files, missing, attempt };
}
type Collector = ReturnType<typeof collector>;

function json(path: string, value: unknown): Record<string, string> {
  return { [path]: JSON.stringify(redact(value), null, 2) };
}

/** Adds a file for each thing of a kind, or for the one that is wanted. */
async function addListing<T>(
  { attempt }: Collector,
  scope: Scope,
  kind: "nodes" | "pools" | "volumes" | "snapshots",
  all: () => Promise<readonly T[]>,
  idOf: (one: T) => string,
): Promise<void> {
  await attempt(kind, async () => {
    const wanted = scope.kind === kind ? (scope.id ?? null) : null;
    const things = (await all()).filter((one) => wanted === null || idOf(one) === wanted);
    if (wanted !== null && things.length === 0) {
      throw new TrilithError("NotFound", `there is no ${kind.slice(0, -1)} ${wanted}`);
    }
    const folder = `topology/${kind.slice(0, -1)}`;
    const files = things.map((one) => json(`${folder}/${fileSafe(idOf(one))}-topology.json`, one));
    return Object.assign({}, ...files) as Record<string, string>;
  });
}

/** What the API tells: the things of the scope, and what they stand on (volumes on pools on nodes). */
async function addCluster(to: Collector, session: Session, scope: Scope): Promise<void> {
  const { client } = session;
  const depth = { system: 4, volumes: 3, pools: 2, nodes: 1 }[scope.kind];
  await addListing(to, scope, "nodes", client.nodes, ({ id }) => id);
  if (depth >= 2)
    await addListing(
      to,
      scope,
      "pools",
      () => client.pools(),
      ({ id }) => id,
    );
  if (depth >= 3) await addListing(to, scope, "volumes", client.volumes, ({ spec }) => spec.uuid);
  if (depth === 4) {
    await addListing(
      to,
      scope,
      "snapshots",
      () => client.snapshots({}),
      ({ definition }) => definition.spec.uuid,
    );
    for (const what of clusterParts) {
      await to.attempt(what, async () =>
        json(`cluster/${what}.json`, await client.get(`/${what}`)),
      );
    }
    await to.attempt("hosts", async () => json("cluster/app-nodes.json", await client.appNodes()));
  }
  await to.attempt("events", async () => json("cluster/events.json", await allEvents(session)));
}

/** What this machine tells: metrics, fitness, its data directory. */
async function addMachine({ attempt }: Collector, session: Session): Promise<void> {
  const data = session.context.env?.TRILITH_DATA_DIR ?? DATA_DIR_DEFAULT;
  await attempt("metrics of this machine", async () => ({
    "machine/metrics.txt": await metrics(),
  }));
  await attempt("facts about this machine", () => machine(data));
  await attempt("the data directory's files", async () => ({
    "machine/data-files.txt": await dataFiles(data),
  }));
}

async function addLogs({ attempt }: Collector, sinceMs: number): Promise<void> {
  const since = `--since=@${Math.floor(sinceMs / 1000)}`;
  const journal = ["journalctl", "--no-pager", "-o", "short-iso-precise", since];
  const logs: [name: string, what: string, options: string[]][] = [
    ["trilith", "the log of trilith", ["-u", "trilith"]],
    ["trilith-engine", "the log of the engine", ["-u", "trilith-engine"]],
    ["kernel", "the kernel's log", ["-k"]],
  ];
  for (const [name, what, options] of logs) {
    await attempt(what, async () => ({
      [`logs/${name}.log`]: redact(await outputOf([...journal, ...options])) as string,
    }));
  }
}

/** Collects all that belongs to the scope. */
export async function collect(
  session: Session,
  scope: Scope,
  options: CollectOptions,
): Promise<Bundle> {
  const to = collector(options.progress);
  to.files["about.txt"] = `${versionLine()}\n${new Date(session.now()).toISOString()}\n`;
  await addCluster(to, session, scope);
  await addMachine(to, session);
  if (options.logs) await addLogs(to, session.now() - options.sinceMs);
  if (to.missing.length > 0) {
    to.files["missing.txt"] = to.missing.map(({ what, why }) => `${what}: ${why}\n`).join("");
  }
  return to;
}
