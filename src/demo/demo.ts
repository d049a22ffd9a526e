/**
 * The demonstration: three nodes on one machine, a volume mirrored over them, and a host that writes
 * and verifies while a node with a replica, and then the node that serves the volume, is killed and
 * brought back.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { LoadResult, LoadStats } from "../engine/bench/load.ts";
import { serveRecorder } from "../engine/main/recorder-server.ts";
import { openFileRecorder, type Recorder } from "../engine/recorder.ts";
import { NVMF_PORT_DEFAULT, RPC_PORT_DEFAULT } from "../engine/settings.ts";
import { TrilithError } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import { type DemoLoad, startDemoLoad } from "./load.ts";
import { DemoNode } from "./node.ts";
import { bytesText, countText, table, timeText } from "./text.ts";
import { DemoVolume, until } from "./volume.ts";

const NODES = 3;
const RECORDER_PORT = 10125;
const POOL_BYTES = 2 ** 30;
const VOLUME_BYTES = 512 << 20;
/** What is written and verified; the rest of the volume stays empty. */
const LOAD_BYTES = 64 << 20;
const REQUEST_BYTES = 4096;
const QUEUE_DEPTH = 16;
const READ_PERCENT = 50;
const SHOWN_EVERY_MS = 1000;

export interface DemoOptions {
  readonly dataDir: string;
  /** Length of each quiet stretch between what happens. */
  readonly actMs: number;
  readonly seed: number;
  readonly print: (text: string) => void;
}

/** What has been seen. */
export interface DemoResult {
  readonly load: LoadResult;
  readonly replicaNode: string;
  readonly replicaRebuildMs: number;
  readonly replicaRebuiltBytes: number;
  readonly nexusNode: string;
  readonly nexusOutageMs: number;
  readonly nexusRebuildMs: number;
  readonly checksumsAgree: boolean;
  readonly volumeUri: string;
}

/** True when not a byte differs and no request failed. */
export function isIntact(result: DemoResult): boolean {
  const { mismatches, errorCount, unreadable } = result.load;
  return mismatches === 0 && errorCount === 0 && unreadable === 0 && result.checksumsAgree;
}

/** A stage on which the demonstration is played: what has to be taken down again afterwards. */
export class Demo {
  readonly #options: DemoOptions;
  readonly #nodes: DemoNode[] = [];
  #recorder: Recorder | null = null;
  #stopRecorder: () => Promise<void> = () => Promise.resolve();
  #load: DemoLoad | null = null;
  #startedMs = 0;
  #lastShown: LoadStats | null = null;

  constructor(options: DemoOptions) {
    this.#options = options;
  }

  #say(text: string): void {
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1).padStart(5);
    this.#options.print(`[${seconds} s] ${text}`);
  }

  /** Plays all of it. Errors: `InUse` (an address or port is taken), and those of the engines. */
  async play(): Promise<DemoResult> {
    this.#startedMs = performance.now();
    const loadDied = Promise.withResolvers<never>();
    return Promise.race([this.#perform(loadDied.reject), loadDied.promise]);
  }

  async #perform(onLoadDeath: (error: unknown) => void): Promise<DemoResult> {
    const { volume, volumeUri } = await this.#setUp();
    this.#load = await startDemoLoad(
      {
        uri: volumeUri,
        requestBytes: REQUEST_BYTES,
        queueDepth: QUEUE_DEPTH,
        readPercent: READ_PERCENT,
        size: LOAD_BYTES,
        seed: this.#options.seed,
      },
      onLoadDeath,
    );
    this.#say(`a host writes and verifies ${bytesText(LOAD_BYTES)} through ${volumeUri}`);
    await this.#watch();
    const replica = await this.#loseReplica(volume, this.#nodes[2]!);
    const nexus = await this.#loseNexus(volume, this.#nodes[0]!);
    this.#say("the load ends; everything that was written is read back and compared");
    const load = await this.#load.finish();
    this.#say(`${countText(load.blocksVerified)} blocks verified, ${load.mismatches} mismatches`);
    await volume.whole();
    const checksums = await volume.checksums();
    const checksumsAgree = checksums.every((checksum) => checksum === checksums[0]);
    this.#say(`CRC32C of the three replicas: ${checksums.map(hexText).join(" ")}`);
    return { load, ...replica, ...nexus, checksumsAgree, volumeUri };
  }

  async #setUp(): Promise<{ volume: DemoVolume; volumeUri: string }> {
    const { dataDir } = this.#options;
    this.remove();
    mkdirSync(dataDir, { recursive: true });
    const quiet: Log = () => {};
    const recorder = openFileRecorder(join(dataDir, "recorder.sqlite"), () => new Date());
    this.#recorder = recorder;
    const server = serveRecorder(recorder, { address: "127.0.0.1", port: RECORDER_PORT }, quiet);
    this.#stopRecorder = () => server.stop();
    for (let number = 1; number <= NODES; number++) {
      const recorderUrl = server.url;
      const node = new DemoNode({ number, dataDir, poolBytes: POOL_BYTES, recorder: recorderUrl });
      this.#nodes.push(node);
      await node.start();
      this.#say(
        `${node.name} runs: ${node.address}, NVMe/TCP ${NVMF_PORT_DEFAULT}, RPC ${RPC_PORT_DEFAULT}, ` +
          `pool of ${bytesText(POOL_BYTES)} in a file, process ${node.pid}`,
      );
    }
    const volume = new DemoVolume(VOLUME_BYTES, recorder, this.#nodes[0]!);
    await volume.makeReplicas(this.#nodes);
    const volumeUri = await volume.publish();
    this.#say(`volume of ${bytesText(VOLUME_BYTES)} with ${NODES} replicas, published by node-1`);
    return { volume, volumeUri };
  }

  /** Lets the load run for an act, showing it once per second. */
  async #watch(): Promise<void> {
    const steps = Math.max(1, Math.round(this.#options.actMs / SHOWN_EVERY_MS));
    for (let step = 0; step < steps; step++) {
      await Bun.sleep(this.#options.actMs / steps);
      await this.#show();
    }
  }

  async #show(): Promise<void> {
    const now = await this.#load!.stats();
    const before = this.#lastShown;
    this.#lastShown = now;
    const seconds = (now.elapsedNs - (before?.elapsedNs ?? 0)) / 1e9;
    const reads = (now.reads - (before?.reads ?? 0)) / seconds;
    const writes = (now.writes - (before?.writes ?? 0)) / seconds;
    const problems = now.errorCount + now.mismatches;
    this.#say(
      `  ${countText(reads)} reads/s  ${countText(writes)} writes/s` +
        `${problems === 0 ? "" : `  ${now.errorCount} errors  ${now.mismatches} MISMATCHES`}`,
    );
  }

  async #loseReplica(volume: DemoVolume, node: DemoNode) {
    const killed = node.pid;
    await node.kill();
    this.#say(`${node.name} killed with SIGKILL (process ${killed}): it holds a replica`);
    await volume.childLost(node);
    this.#say("the loss of its replica is recorded; the volume goes on with two");
    await this.#watch();
    await node.start();
    this.#say(`${node.name} is back (process ${node.pid}), its pool imported`);
    const startMs = performance.now();
    await volume.bringBack(node);
    await volume.whole();
    const replicaRebuildMs = performance.now() - startMs;
    const replicaRebuiltBytes = await volume.rebuiltBytes();
    this.#say(
      `replica rebuilt in ${timeText(replicaRebuildMs * 1e6)}: ` +
        `${bytesText(replicaRebuiltBytes)} that it had missed were copied`,
    );
    await this.#watch();
    return { replicaNode: node.name, replicaRebuildMs, replicaRebuiltBytes };
  }

  async #loseNexus(volume: DemoVolume, node: DemoNode) {
    const load = this.#load!;
    const killed = node.pid;
    const startMs = performance.now();
    await node.kill();
    this.#say(`${node.name} killed with SIGKILL (process ${killed}): it serves the volume`);
    const before = await load.stats();
    await node.start();
    await volume.publish();
    this.#say(`${node.name} is back (process ${node.pid}), the volume published again`);
    const done = (stats: LoadStats): number => stats.reads + stats.writes;
    await until(
      "the host's requests going on",
      () => load.stats(),
      (stats) => done(stats) > done(before),
    );
    const nexusOutageMs = performance.now() - startMs;
    this.#say(`the host's requests go on after ${timeText(nexusOutageMs * 1e6)}, none failed`);
    const rebuildMs = performance.now();
    await volume.whole();
    const nexusRebuildMs = performance.now() - rebuildMs;
    this.#say("replicas made equal again where writes were under way");
    await this.#watch();
    return { nexusNode: node.name, nexusOutageMs, nexusRebuildMs };
  }

  /** Ends everything: load, nodes, recorder. The first node closes the volume, so it goes first. */
  async end(): Promise<void> {
    await this.#load?.terminate();
    for (const node of this.#nodes) await node.stop();
    await this.#stopRecorder();
    this.#recorder?.close();
  }

  /** Removes what this or an earlier demonstration has written, and nothing else. */
  remove(): void {
    const { dataDir } = this.#options;
    if (!existsSync(dataDir)) return;
    const isOurs = (name: string): boolean =>
      /^(node-\d+|recorder\.sqlite(-wal|-shm)?)$/.test(name);
    const names = readdirSync(dataDir);
    for (const name of names.filter(isOurs)) rmSync(join(dataDir, name), { recursive: true });
    if (names.every(isOurs)) rmdirSync(dataDir);
  }
}

function hexText(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/** The command line by which a Linux host connects to the volume. */
export function connectCommand(volumeUri: string): string {
  const url = new URL(volumeUri);
  const nqn = decodeURIComponent(url.pathname.slice(1));
  return `nvme connect -t tcp -a ${url.hostname} -s ${url.port} -n ${nqn}`;
}

/** The result as a short table. */
export function resultText(result: DemoResult): string {
  const { load } = result;
  const { latency } = load;
  const seconds = load.elapsedNs / 1e9;
  const percentiles = [latency.p50Ns, latency.p90Ns, latency.p99Ns, latency.p999Ns].map(timeText);
  return table([
    ["IOPS", `${countText((load.reads + load.writes) / seconds)} (${READ_PERCENT} % reads, 4 KiB)`],
    ["latency p50 / p90 / p99 / p99.9", percentiles.join(" / ")],
    ["longest request", timeText(latency.maxNs)],
    ["killed", `${result.replicaNode} (a replica), then ${result.nexusNode} (the target)`],
    [
      "rebuild",
      `${timeText(result.replicaRebuildMs * 1e6)}, ${bytesText(result.replicaRebuiltBytes)} copied`,
    ],
    ["outage of the target", timeText(result.nexusOutageMs * 1e6)],
    ["blocks verified", countText(load.blocksVerified)],
    ["failed requests", countText(load.errorCount + load.unreadable)],
    ["replicas equal", result.checksumsAgree ? "yes" : "NO"],
    ["mismatches", String(load.mismatches)],
  ]);
}

/** What went wrong, as the error that the verb ends with; undefined when nothing did. */
export function failureOf(result: DemoResult): TrilithError | undefined {
  if (isIntact(result)) return undefined;
  const { mismatches, errorCount, unreadable, firstMismatches } = result.load;
  if (mismatches > 0 || !result.checksumsAgree) {
    const [first] = firstMismatches;
    const where = first === undefined ? "" : `, the first at byte ${first.offset} (${first.kind})`;
    return new TrilithError("Miscompare", `${mismatches} mismatches${where}`);
  }
  return new TrilithError("DeviceIo", `${errorCount + unreadable} requests failed`);
}
