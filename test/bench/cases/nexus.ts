/**
 * A mirror of three copies in one engine, its children reached over NVMe/TCP loopback or by direct
 * call, beside SPDK's raid1 built the same way in one process.
 */
import { type Bench, type Group, iops, type Side } from "../bench.ts";
import { type BenchEngine, mallocUri, nvmfUri, withBaseline, withEngine } from "../engine.ts";
import { CHILD_MIB, COPIES } from "../limits.ts";
import { type Load, loadName, type Subsystem } from "../loads.ts";
import { freePorts } from "../machine.ts";
import { oursOverTcp, spdkOverTcp } from "../sides.ts";
import { mallocCall, type RpcCall, type Spdk, subsystemCalls, transportCalls } from "../spdk.ts";

/** Memory of SPDK's target: the children of two mirrors, and its buffers. */
const TARGET_MIB = 1024 + 2 * COPIES * CHILD_MIB;

const loads: readonly Load[] = (["randread", "randwrite"] as const).flatMap((pattern) =>
  [1, 32].map((depth) => ({ pattern, blockBytes: 4096, depth })),
);

const remoteName = (load: Load): string => `nexus remote children ${loadName(load)}`;
const localName = (load: Load): string => `nexus local children ${loadName(load)}`;
const replicaName = (load: Load): string => `nexus remote replicas ${loadName(load)}`;

function uuidOf(kind: number, index: number): string {
  return `${String(kind).padStart(8, "0")}-0000-4000-8000-${String(index).padStart(12, "0")}`;
}

const copies = Array.from({ length: COPIES }, (_, index) => index + 1);

interface OurDevices {
  readonly single: Subsystem;
  readonly remote: Subsystem;
  readonly local: Subsystem;
  readonly replicas: Subsystem;
}

async function serveOurs(engine: BenchEngine): Promise<OurDevices> {
  const remote: string[] = [];
  const local: string[] = [];
  const replicas: string[] = [];
  for (const copy of copies) {
    remote.push((await engine.serveDevice(mallocUri(`remote${copy}`, CHILD_MIB))).uri);
    const { name } = await engine.rpc.createBdev({ uri: mallocUri(`local${copy}`, CHILD_MIB) });
    local.push(`bdev:///${name}`);
    // Room for the replica and for the pool's own structures.
    const disk = mallocUri(`disk${copy}`, CHILD_MIB + 64, 4096);
    await engine.rpc.createPool({ name: `pool${copy}`, disks: [disk] });
    const replica = await engine.serveReplica(`pool${copy}`, uuidOf(1, copy), CHILD_MIB, false);
    replicas.push(nvmfUri(replica));
  }
  return {
    single: (await engine.serveDevice(mallocUri("single", CHILD_MIB))).at,
    remote: await engine.serveNexus(uuidOf(2, 1), remote),
    local: await engine.serveNexus(uuidOf(2, 2), local),
    replicas: await engine.serveNexus(uuidOf(2, 3), replicas),
  };
}

/** Calls that build SPDK's two mirrors, and those that take them apart in order. */
function raidCalls(
  port: number,
  remote: Subsystem,
  local: Subsystem,
): { up: RpcCall[]; down: RpcCall[] } {
  const up: RpcCall[] = [...transportCalls];
  for (const copy of copies) {
    const nqn = `nqn.2019-05.io.openebs:spdk-child${copy}`;
    const at = { address: "127.0.0.1", port, nqn };
    up.push(mallocCall(`Remote${copy}`, CHILD_MIB), mallocCall(`Local${copy}`, CHILD_MIB));
    up.push(...subsystemCalls(`Remote${copy}`, at, copy));
    const path = { trtype: "TCP", adrfam: "ipv4", traddr: "127.0.0.1", trsvcid: String(port) };
    const params = { name: `Child${copy}`, ...path, subnqn: nqn };
    up.push({ method: "bdev_nvme_attach_controller", params });
  }
  const raid = (name: string, base: string[]): RpcCall => ({
    method: "bdev_raid_create",
    params: { name, raid_level: "raid1", base_bdevs: base },
  });
  up.push(
    raid(
      "RemoteRaid",
      copies.map((copy) => `Child${copy}n1`),
    ),
  );
  up.push(
    raid(
      "LocalRaid",
      copies.map((copy) => `Local${copy}`),
    ),
  );
  up.push(...subsystemCalls("RemoteRaid", remote, 101), ...subsystemCalls("LocalRaid", local, 102));
  // What the target's initiators hold must not outlive the subsystems they are connected to.
  const down: RpcCall[] = [remote, local].map(({ nqn }) => ({
    method: "nvmf_delete_subsystem",
    params: { nqn },
  }));
  down.push({ method: "bdev_raid_delete", params: { name: "RemoteRaid" } });
  for (const copy of copies) {
    down.push({ method: "bdev_nvme_detach_controller", params: { name: `Child${copy}` } });
  }
  return { up, down };
}

interface Mirrors {
  readonly remote: Side;
  readonly local: Side;
}

async function withRaids(
  bench: Bench,
  spdk: Spdk | null,
  use: (mirrors: Mirrors | null) => Promise<void>,
): Promise<void> {
  if (spdk === null) {
    await use(null);
    return;
  }
  const [port] = freePorts(1) as [number];
  const prefix = "nqn.2019-05.io.openebs:spdk-raid";
  const remote = { address: "127.0.0.1", port, nqn: `${prefix}-remote` };
  const local = { address: "127.0.0.1", port, nqn: `${prefix}-local` };
  const { up, down } = raidCalls(port, remote, local);
  const target = await spdk.startTarget(TARGET_MIB, bench.server, up, down);
  try {
    await use({
      remote: {
        ...spdkOverTcp(bench, spdk, target, remote, "SPDK raid1"),
        aimOf: () => ({ atLeast: 1 }),
      },
      local: spdkOverTcp(bench, spdk, target, local, "SPDK raid1, local"),
    });
  } finally {
    await target.stop();
  }
}

interface OurSides {
  readonly single: Side;
  readonly remote: Side;
  readonly local: Side;
  readonly replicas: Side;
}

async function sidesOf(bench: Bench, spdk: Spdk | null, engine: BenchEngine): Promise<OurSides> {
  const at = await serveOurs(engine);
  return {
    single: oursOverTcp(bench, spdk, at.single, "ours without nexus"),
    remote: oursOverTcp(bench, spdk, at.remote),
    local: oursOverTcp(bench, spdk, at.local),
    replicas: oursOverTcp(bench, spdk, at.replicas),
  };
}

async function compareAll(
  bench: Bench,
  ours: OurSides,
  before: OurSides | null,
  raids: Mirrors | null,
): Promise<void> {
  const { single, remote, local, replicas } = ours;
  const asPeer = { ...remote, name: "ours, remote children" };
  const raid = raids === null ? [] : [raids.remote];
  const localRaid = raids === null ? [] : [raids.local];
  const baseline = (side: keyof OurSides): Side[] =>
    before === null ? [] : [{ ...before[side], name: "baseline" }];
  for (const load of loads) {
    const sides = [remote, ...raid, single, ...baseline("remote")] as const;
    await bench.compare(remoteName(load), iops, load, sides);
  }
  for (const load of loads) {
    const sides = [local, ...localRaid, asPeer, ...baseline("local")] as const;
    await bench.compare(localName(load), iops, load, sides);
  }
  for (const load of loads) {
    const sides = [replicas, ...raid, asPeer, ...baseline("replicas")] as const;
    await bench.compare(replicaName(load), iops, load, sides);
  }
}

async function run(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, (spdk) =>
    withEngine(bench, (engine) =>
      withBaseline(bench, async (baseline) => {
        const ours = await sidesOf(bench, spdk, engine);
        const before = baseline === null ? null : await sidesOf(bench, spdk, baseline);
        await withRaids(bench, spdk, (raids) => compareAll(bench, ours, before, raids));
      }),
    ),
  );
}

export const nexus: Group = {
  rows: [remoteName, localName, replicaName].flatMap((name) => loads.map(name)),
  run,
};
