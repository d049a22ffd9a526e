/**
 * Copies that are made anew: how fast, against the slower of the disk and NVMe/TCP over the loopback; how
 * much less there is to do after an absence; and what hosts feel of it.
 */
import { closeSync, openSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { waitUntil } from "../../support/cluster.ts";
import { PathHost } from "../../support/path-hosts.ts";
import type { Bench, Group } from "../bench.ts";
import { BenchEngine, mallocUri } from "../engine.ts";
import { MEMORY_MIB, START_TIMEOUT_MS } from "../limits.ts";
import { type Load, trilithLoad } from "../loads.ts";
import { runProgram } from "../processes.ts";
import { type Aim, pairedRow, plainRow } from "../rows.ts";
import {
  HEAL_IDLE_SECONDS,
  HEAL_POOL_BYTES,
  HEAL_VOLUME_BYTES,
  HEAL_WRITTEN_BYTES,
  PAUSE_WRITES,
} from "./limits.ts";
import { withCluster } from "./nodes.ts";
import { PublishedVolume } from "./published.ts";

const MIB = 1 << 20;
const COPIES = 2;
const names = {
  rate: "rebuild: full, rate",
  latency: "rebuild: full, host's latency beside it, times that without",
  factor: `rebuild: bytes after an absence with ${HEAL_WRITTEN_BYTES / MIB} MiB written, share of the full`,
} as const;

const sequential: Load = { pattern: "write", blockBytes: 512 << 10, depth: 4 };
const FILL_SECONDS = 12;

/** MiB/s of the slower of a file and of NVMe/TCP over the loopback, as a rebuild would use them. */
async function slowerMibPerSec(bench: Bench): Promise<number> {
  const { executable, folder, pace } = bench.options;
  const file = join(folder, `trilith-bench-${process.pid}.img`);
  closeSync(openSync(file, "w"));
  truncateSync(file, HEAL_VOLUME_BYTES);
  const engine = await BenchEngine.start({
    executable,
    place: bench.server,
    folder: bench.folder,
  });
  try {
    const disk = `uring://${file}`;
    const onDisk = await trilithLoad(executable, disk, sequential, pace.seconds, bench.load);
    const { uri } = await engine.serveDevice(mallocUri("loopback", MEMORY_MIB));
    const overTcp = await trilithLoad(executable, uri, sequential, pace.seconds, bench.load);
    return Math.min(onDisk.bytesPerSec, overTcp.bytesPerSec) / MIB;
  } finally {
    await engine.service.stop();
    rmSync(file);
  }
}

/** What the volume's nexus says of the last rebuild that has ended since `sinceMs`. */
async function ended(volume: PublishedVolume, sinceMs: number) {
  const node = await volume.target();
  const { state } = await volume.cluster.rest.volume(volume.uuid);
  const { uuid } = state.target!;
  const found = await waitUntil(
    "a rebuild that has ended",
    async () => (await node.engine.listRebuilds({ uuid })).history.at(-1) ?? null,
    (one) => one !== null && one.startTimeMs >= sinceMs && one.endTimeMs !== null,
  );
  return found!;
}

/** Mean time of one write of the host, in ms, over `until`. */
async function meanMs(host: PathHost, until: () => Promise<unknown>): Promise<number> {
  const before = host.report.writes;
  const startMs = performance.now();
  await until();
  return (performance.now() - startMs) / (host.report.writes - before);
}

/** Makes a second copy anew while a host writes; adds the rows of that. Returns the bytes copied. */
async function rebuilt(bench: Bench, volume: PublishedVolume, uri: string): Promise<number> {
  const { rest } = volume.cluster;
  const { uuid } = volume;
  const host = new PathHost({ writers: [uri], readers: [] });
  try {
    await host.writes(PAUSE_WRITES);
    const idleMs = await meanMs(host, () => Bun.sleep(HEAL_IDLE_SECONDS * 1000));
    const beginMs = Date.now();
    await rest.setReplicaCount(uuid, 1);
    await volume.until("one copy", ({ state }) => state.target?.children.length === 1);
    await rest.setReplicaCount(uuid, COPIES);
    await volume.until("one more", ({ state }) => state.target?.children.length === COPIES);
    const besideMs = await meanMs(host, () => volume.isWhole());
    host.end();
    const full = await ended(volume, beginMs);
    const bytes = full.blocksTransferred * full.blockSize;
    const rate = bytes / MIB / ((full.endTimeMs! - full.startTimeMs) / 1000);
    const slower = await slowerMibPerSec(bench);
    const aim: Aim = { atLeast: 0.5 };
    bench.add(
      pairedRow({ case: names.rate, unit: "MiB/s", aim }, "disk or loopback", [rate], [slower]),
      plainRow({ case: names.latency, unit: "times", aim: { atMost: 2 } }, besideMs / idleMs),
    );
    return bytes;
  } finally {
    host.end();
  }
}

/** Has a copy be away while some is written; returns the bytes copied when it is back. */
async function resynced(bench: Bench, volume: PublishedVolume, uri: string): Promise<number> {
  const target = await volume.target();
  const { state } = await volume.cluster.rest.volume(volume.uuid);
  const holders = Object.values(state.replica_topology).map(({ node }) => node);
  const away = volume.cluster.nodes.find((n) => n !== target && holders.includes(n.name))!;
  const beginMs = Date.now();
  await away.kill();
  await volume.until("a copy less", (one) => one.state.status === "Degraded");
  const command = [bench.options.executable, "bench", uri, "--rw", "write", "--bs", "512k"];
  command.push("--qd", "4", "--runtime", "3s", "--size", String(HEAL_WRITTEN_BYTES));
  await runProgram(command, bench.load, START_TIMEOUT_MS);
  await away.start();
  await volume.isWhole();
  const partial = await ended(volume, beginMs);
  if (!partial.isPartial) throw new Error("a copy that was away was made anew from nothing");
  return partial.blocksTransferred * partial.blockSize;
}

async function run(bench: Bench): Promise<void> {
  await withCluster(bench, async (cluster) => {
    for (const node of cluster.nodes) {
      await cluster.createPool(node, `pool-${node.name}`, HEAL_POOL_BYTES);
    }
    const volume = new PublishedVolume(cluster, COPIES);
    await volume.publish(HEAL_VOLUME_BYTES);
    const { uri } = (await volume.paths()).find(({ role }) => role === "target")!;
    // Written once all over, so that there is something to copy.
    const { executable } = bench.options;
    await trilithLoad(executable, uri, sequential, FILL_SECONDS, bench.load);
    const full = await rebuilt(bench, volume, uri);
    const partial = await resynced(bench, volume, uri);
    bench.add(plainRow({ case: names.factor, unit: "of 1" }, partial / full));
  });
}

export const healing: Group = { rows: Object.values(names), run };
