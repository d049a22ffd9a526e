/** Replicas of a pool on a memory device beside the device itself: what the pool's mapping costs. */
import { type Bench, type Group, iops } from "../bench.ts";
import { type BenchEngine, mallocUri, withEngine } from "../engine.ts";
import { MEMORY_MIB } from "../limits.ts";
import { type Load, loadName } from "../loads.ts";
import { oursOverTcp } from "../sides.ts";
import type { Spdk } from "../spdk.ts";

const BLOCK_BYTES = 4096;
/** SPDK serves nothing here; its initiator alone is used. */
const TARGET_MIB = 0;

const loads: readonly Load[] = (["randread", "randwrite"] as const).flatMap((pattern) =>
  [1, 32].map((depth) => ({ pattern, blockBytes: BLOCK_BYTES, depth })),
);

const kinds = ["thick", "thin"] as const;
const nameOf = (kind: string, load: Load): string => `pool ${kind} replica ${loadName(load)}`;

async function compareAll(bench: Bench, spdk: Spdk | null, engine: BenchEngine): Promise<void> {
  const disk = mallocUri("disk", 2 * MEMORY_MIB + 64, BLOCK_BYTES);
  await engine.rpc.createPool({ name: "pool", disks: [disk] });
  const device = await engine.serveDevice(mallocUri("device", MEMORY_MIB, BLOCK_BYTES));
  const raw = oursOverTcp(bench, spdk, device.at, "ours, the device");
  for (const [index, kind] of kinds.entries()) {
    const uuid = `00000001-0000-4000-8000-00000000000${index}`;
    const at = await engine.serveReplica("pool", uuid, MEMORY_MIB, kind === "thin");
    const replica = oursOverTcp(bench, spdk, at);
    // Every cluster is written once, so that a thin replica maps what a thick one does.
    const fill: Load = { pattern: "write", blockBytes: 1 << 20, depth: 4 };
    if (loads.some((load) => bench.wants(nameOf(kind, load)))) await replica.measure(fill, 2);
    for (const load of loads) {
      await bench.compare(nameOf(kind, load), iops, load, [replica, raw]);
    }
  }
}

async function run(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, (spdk) =>
    withEngine(bench, (engine) => compareAll(bench, spdk, engine)),
  );
}

export const pool: Group = {
  rows: kinds.flatMap((kind) => loads.map((load) => nameOf(kind, load))),
  run,
};
