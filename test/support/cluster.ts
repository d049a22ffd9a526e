/**
 * Whole clusters of real processes for tests: `trilith server` per node, each on a loopback address of
 * its own with its own data directory and disks, made into a cluster by `trilith init` and `join`.
 * Nodes are killed the hard way and started again; everything goes away with the test.
 */
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { type RestClient, restClient } from "../../src/client/client.ts";
import type { Volume } from "../../src/client/types.ts";
import type { SettingsChange } from "../../src/control/control.ts";
import { type EngineClient, engineClient } from "../../src/engine/rpc/client.ts";
import { TrilithError } from "../../src/errors.ts";
import { takeAddress, trilithCommand } from "./engine-process.ts";

/** Longest time that a test waits for one thing: machines that run tests are slow at times. */
const PATIENCE_MS = 60_000;
const POLL_MS = 25;
/** Ports are the product's own; the addresses differ. */
const REST_PORT = 8081;
const METRICS_PORT = 9502;
/** The engine's RPC without TLS, for this machine alone; other nodes come to 10124. */
const OWN_RPC_PORT = 10134;
const REQUEST_TIMEOUT_MS = 30_000;

/** Asks until `isSo`, and returns the answer. What cannot be answered now is asked again. */
export async function waitUntil<T>(
  what: string,
  ask: () => Promise<T> | T,
  isSo: (answer: T) => boolean,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const untilMs = performance.now() + patienceMs;
  let last = "nothing";
  for (;;) {
    try {
      const answer = await ask();
      if (isSo(answer)) return answer;
      last = JSON.stringify(answer);
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      last = `${error.code}: ${error.message}`;
    }
    if (performance.now() > untilMs) {
      throw new Error(`${what}: not within ${patienceMs} ms; last: ${last.slice(0, 4000)}`);
    }
    await Bun.sleep(POLL_MS);
  }
}

/** Processes that a process has started, and theirs. */
function descendants(pid: number): number[] {
  let direct: number[];
  try {
    direct = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
        .split(" ")
        .filter((text) => text !== "")
        .map(Number),
    );
  } catch {
    // It has ended meanwhile.
    return [];
  }
  return direct.flatMap((child) => [child, ...descendants(child)]);
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

async function hasEnded(pid: number): Promise<void> {
  await waitUntil(
    `the end of process ${pid}`,
    () => processState(pid),
    (state) => state !== "runs",
  );
}

function processState(pid: number): "runs" | "over" {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return / [ZX] /.test(stat.slice(stat.lastIndexOf(")"))) ? "over" : "runs";
  } catch {
    return "over";
  }
}

function client(address: string): RestClient {
  const url = `http://${address}:${REST_PORT}`;
  const options = { timeoutMs: REQUEST_TIMEOUT_MS, timeoutGiven: true };
  return restClient({ endpoint: { url, name: url }, ...options });
}

/** Where a node runs: its address, and what is put before its commands. See net-lab.ts. */
export interface Place {
  readonly address: string;
  readonly within: readonly string[];
}

export class ClusterNode {
  readonly name: string;
  readonly address: string;
  readonly rest: RestClient;
  readonly restUrl: string;
  readonly metricsUrl: string;
  /** Its engine, past the control plane: for what only a test does. */
  readonly engine: EngineClient;
  /** This process cannot reach it at present, or what it says is of no use. */
  isCutOff = false;
  readonly #within: readonly string[];
  readonly folder: string;
  #process: Subprocess<"pipe", number, number> | null = null;
  #paused: number[] = [];
  readonly #options: readonly string[];

  constructor(name: string, folder: string, options: readonly string[], place?: Place) {
    this.name = name;
    this.#options = options;
    this.address = place?.address ?? takeAddress();
    this.#within = place?.within ?? [];
    this.rest = client(this.address);
    this.restUrl = `http://${this.address}:${REST_PORT}`;
    this.metricsUrl = `http://${this.address}:${METRICS_PORT}/metrics`;
    this.engine = engineClient(`http://${this.address}:${OWN_RPC_PORT}`);
    this.folder = join(folder, name);
    mkdirSync(this.folder);
  }

  get dataDir(): string {
    return join(this.folder, "data");
  }

  /** It answers, as far as its processes go. */
  get isRunning(): boolean {
    return this.#process !== null && this.#paused.length === 0 && !this.isCutOff;
  }

  get pid(): number {
    if (this.#process === null) throw new Error(`${this.name} does not run`);
    return this.#process.pid;
  }

  /** What its processes have written to standard error, the last of it. */
  log(lines = 60): string {
    try {
      const text = readFileSync(join(this.folder, "log"), "utf8").trimEnd();
      return text.split("\n").slice(-lines).join("\n");
    } catch {
      return "";
    }
  }

  /** Path of a sparse file that is a disk. */
  disk(name: string, bytes: number): string {
    const path = join(this.folder, `${name}.img`);
    closeSync(openSync(path, "a"));
    truncateSync(path, bytes);
    return path;
  }

  /** Runs a verb of the node's own to its end; returns what it printed. Throws when it fails. */
  async run(...args: readonly string[]): Promise<string> {
    const child = Bun.spawn([...this.#within, ...trilithCommand(), ...args], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [status, out, err] = await Promise.all([
      child.exited,
      child.stdout.text(),
      child.stderr.text(),
    ]);
    if (status !== 0) throw new Error(`trilith ${args[0]} ended with ${status}: ${err}${out}`);
    return out.trim();
  }

  #nodeOptions(): string[] {
    return ["--node-name", this.name, "--data-dir", this.dataDir, "--address", this.address];
  }

  async init(): Promise<void> {
    await this.run("init", ...this.#nodeOptions());
  }

  /** Joins the cluster of `contact` with a new token. */
  async join(contact: ClusterNode): Promise<void> {
    const token = await contact.run("token", "create", "--rest", contact.restUrl);
    await this.run("join", contact.address, "--token", token, ...this.#nodeOptions());
  }

  /** Starts the node's processes, without waiting for anything. */
  spawn(): void {
    const log = openSync(join(this.folder, "log"), "a");
    const options = [
      ...["--listen", this.address, "--rpc", `${this.address}:${OWN_RPC_PORT}`],
      ...["--rest-listen", `${this.address}:${REST_PORT}`],
      ...["--metrics-listen", `${this.address}:${METRICS_PORT}`],
      ...["--reactors", "1", "--discovery-port", "none", "--nbd-port", "none"],
      ...this.#options,
    ];
    this.#process = Bun.spawn(
      [
        ...this.#within,
        ...trilithCommand(),
        ...["server", "--stop-on-stdin-end", ...this.#nodeOptions(), ...options],
      ],
      { stdin: "pipe", stdout: log, stderr: log },
    );
    closeSync(log);
  }

  /** Starts the node and waits until it answers. */
  async start(): Promise<void> {
    this.spawn();
    const child = this.#process!;
    await waitUntil(
      `${this.name} answering`,
      async () => {
        if (child.exitCode !== null) throw new Error(`${this.name} does not start:\n${this.log()}`);
        return (await fetch(`${this.restUrl}/v0/cluster`).catch(() => null))?.status ?? 0;
      },
      (status) => status === 200,
    );
  }

  /** The host fails: all processes of the node end at the same time, with nothing put in order. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === null) return;
    // Stopped first, so that it cannot start anything again while its children end.
    signalAll([child.pid], "SIGSTOP");
    const all = [child.pid, ...descendants(child.pid)];
    signalAll(all, "SIGKILL");
    await child.exited;
    for (const pid of all) await hasEnded(pid);
    this.#process = null;
  }

  /** Stops all processes of the node where they are; its connections stay open. */
  pause(): void {
    const all = [this.pid, ...descendants(this.pid)];
    signalAll(all, "SIGSTOP");
    this.#paused = all;
  }

  /** Lets a node go on that was paused. */
  resume(): void {
    signalAll(this.#paused.splice(0), "SIGCONT");
  }

  /** Kills the engine alone; the control process starts it again. Returns its process id. */
  killEngine(): number {
    const [engine] = descendants(this.pid);
    if (engine === undefined) throw new Error(`${this.name} has no engine`);
    signalAll([engine], "SIGKILL");
    return engine;
  }

  /** Has the node end in order; returns its exit status. */
  async stop(): Promise<number> {
    const child = this.#process;
    if (child === null) throw new Error(`${this.name} does not run`);
    const all = descendants(child.pid);
    child.kill("SIGTERM");
    const status = await child.exited;
    for (const pid of all) await hasEnded(pid);
    this.#process = null;
    return status;
  }

  /** For the end of the test. */
  endNow(): void {
    if (this.#process === null) return;
    signalAll([this.#process.pid], "SIGSTOP");
    signalAll([this.#process.pid, ...descendants(this.#process.pid)], "SIGKILL");
    this.#process = null;
  }
}

const clusters = new Set<Cluster>();
process.on("exit", () => {
  for (const cluster of clusters) cluster.endNow();
});

/** Ends every cluster that is still there. For `afterEach` or `afterAll`. */
export async function endClusters(): Promise<void> {
  for (const cluster of [...clusters]) {
    await Promise.all(cluster.nodes.map((node) => node.kill()));
    cluster.endNow();
  }
}

export class Cluster {
  readonly folder: string;
  readonly nodes: readonly ClusterNode[];

  private constructor(
    count: number,
    folder: string,
    options: readonly string[],
    places: readonly Place[],
  ) {
    this.folder = mkdtempSync(join(folder, "trilith-cluster-"));
    this.nodes = Array.from(
      { length: count },
      (_, index) => new ClusterNode(`node-${index + 1}`, this.folder, options, places[index]),
    );
    clusters.add(this);
  }

  /**
   * Makes and starts a cluster of `count` nodes; resolves when all vote and all engines answer.
   * `options`: what `trilith server` is given besides, on every node. `places`: where they run.
   */
  static async start(
    count: number,
    folder = tmpdir(),
    options: readonly string[] = [],
    places: readonly Place[] = [],
  ): Promise<Cluster> {
    const cluster = new Cluster(count, folder, options, places);
    const [first, ...others] = cluster.nodes;
    await first!.init();
    await first!.start();
    await cluster.leader();
    for (const node of others) {
      await node.join(first!);
      await node.start();
    }
    await cluster.isWhole();
    return cluster;
  }

  node(name: string): ClusterNode {
    const node = this.nodes.find((one) => one.name === name);
    if (node === undefined) throw new Error(`there is no ${name}`);
    return node;
  }

  /** API of any node that runs: who is not the leader hands requests on. */
  get rest(): RestClient {
    const node = this.nodes.find((one) => one.isRunning);
    if (node === undefined) throw new Error("no node runs");
    return node.rest;
  }

  /** The node that leads, once some node says so and the one it names agrees. */
  async leader(): Promise<ClusterNode> {
    const running = this.nodes.filter((node) => node.isRunning);
    const name = await waitUntil(
      "a leader",
      async () => {
        const said = await Promise.all(running.map((node) => leaderBy(node)));
        const named = said.find((one) => one !== null) ?? null;
        return said.every((one) => one === named) ? named : null;
      },
      (one) => one !== null && this.node(one).isRunning,
    );
    return this.node(name!);
  }

  /** Waits until every running node's engine is Online and every member votes. */
  async isWhole(): Promise<void> {
    const names = this.nodes.filter((node) => node.isRunning).map(({ name }) => name);
    await this.leader();
    await waitUntil(
      "all engines online",
      () => this.rest.nodes(),
      (nodes) =>
        names.every((name) => nodes.find(({ id }) => id === name)?.state?.status === "Online"),
    );
    await waitUntil(
      "all members voting",
      async () => (await this.rest.cluster()).members,
      (members) => members.filter((member) => member.voter).length === this.nodes.length,
    );
  }

  /** Makes a pool on a new disk of a node. */
  async createPool(node: ClusterNode, id: string, bytes: number): Promise<void> {
    await this.rest.createPool(node.name, id, { disks: [node.disk(id, bytes)] });
    await this.poolIs(id, "Online");
  }

  async poolIs(id: string, status: string): Promise<void> {
    await waitUntil(
      `pool ${id} being ${status}`,
      () => this.rest.pool(id),
      (pool) => (pool.state?.status ?? "Unknown") === status,
    );
  }

  /** Changes settings of the cluster. */
  async set(changes: SettingsChange): Promise<void> {
    await this.rest.call("PUT", "/settings", { body: changes });
  }

  /** The disk of a pool fails: every request to it ends with an I/O error from now on. */
  async failDisk(node: ClusterNode, pool: string): Promise<void> {
    const target = { kind: "pool", name: pool } as const;
    await node.engine.createFault({ id: `disk-of-${pool}`, target, action: { kind: "error" } });
  }

  /** The disk of a pool works again, and the pool comes back by itself. */
  async mendDisk(node: ClusterNode, pool: string): Promise<void> {
    await node.engine.destroyFault({ id: `disk-of-${pool}` });
    await this.poolIs(pool, "Online");
  }

  /** Waits until a volume is as `isSo` says. */
  volumeUntil(what: string, uuid: string, isSo: (volume: Volume) => boolean): Promise<Volume> {
    return waitUntil(what, () => this.rest.volume(uuid), isSo);
  }

  /** Waits until the planner has nothing to do, twice in a row. */
  async isSettled(): Promise<void> {
    let quiet = 0;
    await waitUntil(
      "nothing left to do",
      async () => {
        const { works } = await this.rest.get<{ works: unknown[] }>("/plan");
        quiet = works.length === 0 ? quiet + 1 : 0;
        return { quiet, works };
      },
      (seen) => seen.quiet >= 2,
    );
  }

  /** What all nodes have logged at last, for a test that failed. */
  logs(lines = 40): string {
    return this.nodes.map((node) => `--- ${node.name}\n${node.log(lines)}`).join("\n");
  }

  /** For the end of the test: kills what runs and removes the folder. */
  endNow(): void {
    clusters.delete(this);
    for (const node of this.nodes) node.endNow();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Whom a node takes for the leader; null: nobody, or it does not answer. */
async function leaderBy(node: ClusterNode): Promise<string | null> {
  try {
    const { members } = await node.rest.cluster();
    return members.find((member) => member.leader)?.node ?? null;
  } catch (error) {
    if (error instanceof TrilithError) return null;
    throw error;
  }
}

/** What has been seen of a volume over a time, by asking again and again. */
export interface Seen {
  readonly volume: ReadonlySet<string>;
  readonly nexus: ReadonlySet<string>;
  /** States of children, with the pool of the replica: `pool-2-a Faulted`. */
  readonly children: ReadonlySet<string>;
  /** Numbers of children of the nexus, with its state: `Online 1`. */
  readonly counts: ReadonlySet<string>;
  stop(): Promise<void>;
}

/** Watches a volume through the API until told to stop. `poolOf`: pools by replica. */
export function watchVolume(cluster: Cluster, uuid: string): Seen {
  const seen = {
    volume: new Set<string>(),
    nexus: new Set<string>(),
    children: new Set<string>(),
    counts: new Set<string>(),
  };
  const pools = new Map<string, string>();
  let stopped = false;
  const ask = async () => cluster.rest.volume(uuid);
  const watching = (async () => {
    while (!stopped) {
      // No answer is none of the states that are looked for.
      const volume = await ask().catch(() => null);
      if (volume !== null) note(volume, pools, seen);
      await Bun.sleep(2);
    }
  })();
  return {
    ...seen,
    async stop() {
      stopped = true;
      await watching;
    },
  };
}

type Sets = { [K in Exclude<keyof Seen, "stop">]: Set<string> };

function note({ state }: Volume, pools: Map<string, string>, seen: Sets): void {
  seen.volume.add(state.status);
  for (const [uuid, replica] of Object.entries(state.replica_topology)) {
    if (replica.pool != null) pools.set(uuid, replica.pool);
    const child = replica["child-status"];
    if (child != null) seen.children.add(`${pools.get(uuid)} ${child}`);
  }
  const nexus = state.target;
  if (nexus == null) return;
  seen.nexus.add(nexus.state);
  seen.counts.add(`${nexus.state} ${nexus.children.length}`);
  for (const { uri, state: child } of nexus.children) {
    for (const [uuid, pool] of pools) if (uri.includes(uuid)) seen.children.add(`${pool} ${child}`);
  }
}

/** Nodes that a volume's replicas are on, in order. */
export function replicaNodes(volume: Volume): string[] {
  return Object.values(volume.state.replica_topology)
    .map((replica) => replica.node ?? "")
    .sort();
}

/** Pools that a volume's replicas are in, in order. */
export function replicaPools(volume: Volume): string[] {
  return Object.values(volume.state.replica_topology)
    .map((replica) => replica.pool ?? "")
    .sort();
}
