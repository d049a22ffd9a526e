/** One memory device over NVMe/TCP: what the target itself costs. Also with digests. */
import type { Bench, Group, Side } from "../bench.ts";
import { iops, mibPerSec } from "../bench.ts";
import { type BenchEngine, mallocUri, withBaseline, withEngine } from "../engine.ts";
import { MEMORY_MIB } from "../limits.ts";
import { type Load, loadName } from "../loads.ts";
import { freePorts } from "../machine.ts";
import { startNbdkit, startQemuNbd } from "../nbd-peers.ts";
import type { Aim } from "../rows.ts";
import { nbdPeerSides, oursOverTcp, spdkOverTcp } from "../sides.ts";
import { mallocCall, type Spdk, subsystemCalls, transportCalls } from "../spdk.ts";

/** Memory of SPDK's target: its device and its buffers. */
const TARGET_MIB = 1024;

/** What is aimed at relative to SPDK. */
const aims: Readonly<Record<string, Aim>> = {
  "4k randread qd 1": { atLeast: 0.95 },
  "4k randread qd 32": { atLeast: 1.1 },
  "4k randread qd 128": { atLeast: 1.3 },
  "4k randwrite qd 1": { atLeast: 0.95 },
  "4k randwrite qd 32": { atLeast: 1.6 },
  "4k randwrite qd 128": { atLeast: 1.4 },
  "128k read qd 16": { atLeast: 1 },
  "128k write qd 16": { atLeast: 1 },
};

const loads: readonly Load[] = [
  ...(["randread", "randwrite"] as const).flatMap((pattern) =>
    [1, 32, 128].map((depth) => ({ pattern, blockBytes: 4096, depth })),
  ),
  ...(["read", "write"] as const).map((pattern) => ({ pattern, blockBytes: 128 << 10, depth: 16 })),
];

const digestLoads: readonly Load[] = [
  { pattern: "randread", blockBytes: 4096, depth: 32 },
  { pattern: "randwrite", blockBytes: 4096, depth: 32 },
  { pattern: "read", blockBytes: 128 << 10, depth: 16 },
  { pattern: "write", blockBytes: 128 << 10, depth: 16 },
];

const memoryName = (load: Load): string => `memory ${loadName(load)}`;
const digestName = (load: Load): string => `digests ${loadName(load)}`;
const metricOf = (load: Load) => (load.blockBytes > 4096 ? mibPerSec : iops);

/** Starts an SPDK target with one memory device, for as long as `use` takes. */
async function withSpdkDevice(
  bench: Bench,
  spdk: Spdk,
  use: (side: (digests?: boolean) => Side) => Promise<void>,
): Promise<void> {
  const [port] = freePorts(1) as [number];
  const at = { address: "127.0.0.1", port, nqn: "nqn.2019-05.io.openebs:spdk" };
  const calls = [
    ...transportCalls,
    mallocCall("Malloc0", MEMORY_MIB),
    ...subsystemCalls("Malloc0", at, 1),
  ];
  const target = await spdk.startTarget(TARGET_MIB, bench.server, calls);
  try {
    await use((digests = false) => ({
      ...spdkOverTcp(bench, spdk, target, at, digests ? "SPDK with digests" : "SPDK", {
        headerDigest: digests,
        dataDigest: digests,
      }),
      aimOf: (load) => (digests ? { atLeast: 1 } : aims[loadName(load)]),
    }));
  } finally {
    await target.stop();
  }
}

/** Runs `use` with the peers of a memory device: SPDK, or Debian's NBD servers without one. */
async function withPeers(
  bench: Bench,
  spdk: Spdk | null,
  use: (peers: readonly Side[]) => Promise<void>,
): Promise<void> {
  if (spdk !== null) {
    await withSpdkDevice(bench, spdk, (side) => use([side()]));
    return;
  }
  const { server, folder } = bench;
  const nbdkit = await startNbdkit(MEMORY_MIB, server, folder);
  const qemu = await startQemuNbd(MEMORY_MIB, server, folder, bench.memoryFolder);
  try {
    await use(nbdPeerSides(bench, [nbdkit, qemu]));
  } finally {
    await Promise.all([nbdkit.service.stop(), qemu.service.stop()]);
  }
}

async function runMemory(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, (spdk) =>
    withEngine(bench, (engine) =>
      withBaseline(bench, (baseline) =>
        withPeers(bench, spdk, async (peers) => {
          const served = async (from: BenchEngine, name: string): Promise<Side> => {
            const { at } = await from.serveDevice(mallocUri("memory", MEMORY_MIB));
            return oursOverTcp(bench, spdk, at, name);
          };
          const ours = await served(engine, "ours");
          const before = baseline === null ? [] : [await served(baseline, "baseline")];
          for (const load of loads) {
            const sides = [ours, ...peers, ...before] as const;
            await bench.compare(memoryName(load), metricOf(load), load, sides);
          }
        }),
      ),
    ),
  );
}

async function runDigests(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, (spdk) =>
    withEngine(bench, async (engine) => {
      const { at } = await engine.serveDevice(mallocUri("digests", MEMORY_MIB));
      const both = { headerDigest: true, dataDigest: true };
      const ours = oursOverTcp(bench, spdk, at, "ours", both);
      const without = oursOverTcp(bench, spdk, at, "ours without digests");
      const compareWith = async (peers: readonly Side[]): Promise<void> => {
        for (const load of digestLoads) {
          await bench.compare(digestName(load), metricOf(load), load, [ours, without, ...peers]);
        }
      };
      if (spdk === null) await compareWith([]);
      else await withSpdkDevice(bench, spdk, (side) => compareWith([side(true)]));
    }),
  );
}

export const memory: Group = { rows: loads.map(memoryName), run: runMemory };
export const digests: Group = { rows: digestLoads.map(digestName), run: runDigests };
