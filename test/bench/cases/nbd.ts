/** One memory device over NBD, under fio's NBD engine, beside Debian's NBD servers. */
import { type Bench, type Group, iops } from "../bench.ts";
import { BenchEngine, mallocUri } from "../engine.ts";
import { MEMORY_MIB } from "../limits.ts";
import { type Load, loadName } from "../loads.ts";
import { startNbdkit, startQemuNbd } from "../nbd-peers.ts";
import { nbdPeerSides, overNbd } from "../sides.ts";

const loads: readonly Load[] = (["randread", "randwrite"] as const).flatMap((pattern) =>
  [1, 32].map((depth) => ({ pattern, blockBytes: 4096, depth })),
);

const nameOf = (load: Load): string => `nbd ${loadName(load)}`;

async function run(bench: Bench): Promise<void> {
  const { server, folder } = bench;
  const { executable } = bench.options;
  const engine = await BenchEngine.start({ executable, place: server, folder });
  try {
    const { name } = await engine.rpc.createBdev({ uri: mallocUri("nbd", MEMORY_MIB) });
    const { shares } = await engine.rpc.shareBdevNbd({ name });
    const ours = overNbd(bench, shares[0]!.uri, "ours");
    const nbdkit = await startNbdkit(MEMORY_MIB, server, folder);
    const qemu = await startQemuNbd(MEMORY_MIB, server, folder, bench.memoryFolder);
    try {
      const peers = nbdPeerSides(bench, [nbdkit, qemu]);
      for (const load of loads) await bench.compare(nameOf(load), iops, load, [ours, ...peers]);
    } finally {
      await Promise.all([nbdkit.service.stop(), qemu.service.stop()]);
    }
  } finally {
    await engine.stop();
  }
}

export const nbd: Group = { rows: loads.map(nameOf), run };
