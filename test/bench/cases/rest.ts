/** The engine at rest: how long it takes to start, and what it takes when nobody asks for anything. */
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Bench, Group } from "../bench.ts";
import { BenchEngine } from "../engine.ts";
import { IDLE_POOL_MIB, IDLE_REPLICA_MIB, IDLE_REPLICAS } from "../limits.ts";
import { cpuTimeNs, freePorts, hugeMappedBytes, residentBytes } from "../machine.ts";
import { runProgram, type Service } from "../processes.ts";
import { pairedRow, plainRow } from "../rows.ts";
import { type RpcCall, type Spdk, subsystemCalls, transportCalls } from "../spdk.ts";

const TARGET_MIB = 1024;
const MIB = 1 << 20;

const idleNames = {
  cpu: `idle with ${IDLE_REPLICAS} shared replicas, CPU`,
  memory: `idle with ${IDLE_REPLICAS} shared replicas, memory beyond the arena`,
  total: `idle with ${IDLE_REPLICAS} shared replicas, memory`,
} as const;

const startNames = {
  version: "start: `version` to its end",
  engine: "start: engine to its first answer",
  memory: "start: engine's memory, empty",
} as const;

/** Share of one CPU that a process takes while it is left alone, in percent. */
async function cpuPercent(service: Service, seconds: number): Promise<number> {
  const startNs = Bun.nanoseconds();
  const before = cpuTimeNs(service.pid);
  await Bun.sleep(seconds * 1000);
  return ((cpuTimeNs(service.pid) - before) / (Bun.nanoseconds() - startNs)) * 100;
}

async function serveReplicas(engine: BenchEngine, disk: string): Promise<void> {
  await engine.rpc.createPool({ name: "idle", disks: [disk] });
  for (let i = 0; i < IDLE_REPLICAS; i++) {
    const uuid = `00000001-0000-4000-8000-${String(i).padStart(12, "0")}`;
    await engine.serveReplica("idle", uuid, IDLE_REPLICA_MIB, true);
  }
}

interface Idle {
  readonly cpu: number;
  readonly residentMib: number;
  readonly arenaMib: number;
}

async function idleOf(service: Service, seconds: number): Promise<Idle> {
  // What starting left behind is done with first.
  await Bun.sleep(1000);
  const cpu = await cpuPercent(service, seconds);
  return {
    cpu,
    residentMib: residentBytes(service.pid) / MIB,
    arenaMib: hugeMappedBytes(service.pid) / MIB,
  };
}

async function idleOurs(bench: Bench): Promise<Idle> {
  const { server: place, folder } = bench;
  const disk = join(bench.options.folder, `trilith-bench-${process.pid}-pool.img`);
  writeFileSync(disk, "");
  truncateSync(disk, IDLE_POOL_MIB * MIB);
  const engine = await BenchEngine.start({ executable: bench.options.executable, place, folder });
  try {
    await serveReplicas(engine, disk);
    return await idleOf(engine.service, bench.options.pace.idleSeconds);
  } finally {
    await engine.stop();
    rmSync(disk, { force: true });
  }
}

/** SPDK with as many devices that hold nothing, each shared. */
async function idleSpdk(bench: Bench, spdk: Spdk): Promise<Idle> {
  const [port] = freePorts(1) as [number];
  const calls: RpcCall[] = [
    { method: "nvmf_create_transport", params: { trtype: "TCP" } },
    ...Array.from({ length: IDLE_REPLICAS }, (_, i): RpcCall[] => {
      const name = `Null${i}`;
      const params = { name, num_blocks: (IDLE_REPLICA_MIB * MIB) / 512, block_size: 512 };
      const nqn = `nqn.2019-05.io.openebs:idle${i}`;
      const at = { address: "127.0.0.1", port, nqn };
      return [{ method: "bdev_null_create", params }, ...subsystemCalls(name, at, i + 1)];
    }).flat(),
  ];
  const target = await spdk.startTarget(TARGET_MIB, bench.server, calls);
  try {
    return await idleOf(target.service, Math.min(5, bench.options.pace.idleSeconds));
  } finally {
    await target.stop();
  }
}

async function runIdle(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, async (spdk) => {
    const ours = await idleOurs(bench);
    const theirs = spdk === null ? null : await idleSpdk(bench, spdk);
    const frames = [
      { case: idleNames.cpu, unit: "% of a core", of: (idle: Idle) => idle.cpu, atMost: 0.5 },
      {
        case: idleNames.memory,
        unit: "MiB",
        of: (idle: Idle) => idle.residentMib - idle.arenaMib,
        atMost: 150,
      },
    ];
    for (const { of, atMost, ...frame } of frames) {
      if (bench.wants(frame.case)) bench.add(plainRow({ ...frame, aim: { atMost } }, of(ours)));
    }
    if (theirs === null) return;
    const frame = { case: idleNames.total, unit: "MiB" };
    if (bench.wants(frame.case)) {
      bench.add(pairedRow(frame, "SPDK", [ours.residentMib], [theirs.residentMib]));
    }
    const cpu = { case: idleNames.cpu, unit: "% of a core" };
    if (bench.wants(cpu.case)) bench.add(pairedRow(cpu, "SPDK", [ours.cpu], [theirs.cpu]));
  });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startNs = Bun.nanoseconds();
  await work();
  return (Bun.nanoseconds() - startNs) / 1e6;
}

async function runStart(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, async (spdk) => {
    const { executable, pace } = bench.options;
    const { server: place, folder } = bench;
    const versions: number[] = [];
    const engines: number[] = [];
    const memory: number[] = [];
    const targets: number[] = [];
    for (let i = 0; i < pace.starts; i++) {
      versions.push(await timed(() => runProgram([executable, "version"], place, 10_000)));
      let engine: BenchEngine | undefined;
      engines.push(
        await timed(async () => {
          engine = await BenchEngine.start({ executable, place, folder }, 1);
        }),
      );
      memory.push(residentBytes(engine!.service.pid) / MIB);
      await engine!.stop();
      if (spdk === null) continue;
      let stop = async (): Promise<void> => {};
      targets.push(
        await timed(async () => {
          ({ stop } = await spdk.startTarget(TARGET_MIB, place, transportCalls));
        }),
      );
      await stop();
    }
    addStarts(bench, versions, engines, memory, targets);
  });
}

function addStarts(
  bench: Bench,
  versions: readonly number[],
  engines: readonly number[],
  memory: readonly number[],
  targets: readonly number[],
): void {
  const middle = (values: readonly number[]): number =>
    values.toSorted((a, b) => a - b)[values.length >> 1]!;
  if (bench.wants(startNames.version)) {
    bench.add(plainRow({ case: startNames.version, unit: "ms" }, middle(versions)));
  }
  const frame = { case: startNames.engine, unit: "ms" };
  if (bench.wants(frame.case)) {
    if (targets.length === 0) bench.add(plainRow(frame, middle(engines)));
    else bench.add(pairedRow(frame, "SPDK", engines, targets));
  }
  if (bench.wants(startNames.memory)) {
    bench.add(plainRow({ case: startNames.memory, unit: "MiB" }, middle(memory)));
  }
}

export const idle: Group = { rows: Object.values(idleNames), run: runIdle };
export const start: Group = { rows: Object.values(startNames), run: runStart };
