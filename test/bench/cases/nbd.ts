/** One memory device over NBD, under fio's NBD engine, beside Debian's NBD servers. */
import { type Bench, type Group, iops, type Side } from "../bench.ts";
import { type BenchEngine, mallocUri, withBaseline, withEngine } from "../engine.ts";
import { MEMORY_MIB } from "../limits.ts";
import { type Load, loadName } from "../loads.ts";
import { startNbdkit, startQemuNbd } from "../nbd-peers.ts";
import { nbdPeerSides, overNbd } from "../sides.ts";

const loads: readonly Load[] = (["randread", "randwrite"] as const).flatMap((pattern) =>
  [1, 32].map((depth) => ({ pattern, blockBytes: 4096, depth })),
);

const nameOf = (load: Load): string => `nbd ${loadName(load)}`;

async function served(bench: Bench, engine: BenchEngine, name: string): Promise<Side> {
  const { name: device } = await engine.rpc.createBdev({ uri: mallocUri("nbd", MEMORY_MIB) });
  const { shares } = await engine.rpc.shareBdevNbd({ name: device });
  return overNbd(bench, shares[0]!.uri, name);
}

async function compareAll(
  bench: Bench,
  engine: BenchEngine,
  baseline: BenchEngine | null,
): Promise<void> {
  const { server, folder } = bench;
  const ours = await served(bench, engine, "ours");
  const before = baseline === null ? [] : [await served(bench, baseline, "baseline")];
  const nbdkit = await startNbdkit(MEMORY_MIB, server, folder);
  const qemu = await startQemuNbd(MEMORY_MIB, server, folder, bench.memoryFolder);
  try {
    const sides = [ours, ...nbdPeerSides(bench, [nbdkit, qemu]), ...before] as const;
    for (const load of loads) await bench.compare(nameOf(load), iops, load, sides);
  } finally {
    await Promise.all([nbdkit.service.stop(), qemu.service.stop()]);
  }
}

async function run(bench: Bench): Promise<void> {
  await withEngine(bench, (engine) =>
    withBaseline(bench, (baseline) => compareAll(bench, engine, baseline)),
  );
}

export const nbd: Group = { rows: loads.map(nameOf), run };
