/**
 * A cluster whose nodes, links and processes fail under a Linux host with all paths: three nodes and the host
 * in network namespaces of their own, an ext4 and an xfs file system that are written and verified all the time,
 * and a ledger, outside of all of them, of every fsync that was acknowledged. Whatever happens to one node,
 * both go on, and at the end nothing that was acknowledged is missing.
 *
 * `npm test` has some of the faults, each once; with `TRILITH_NIGHTLY=1` all of them strike, and then random
 * ones, a hundred in all.
 */

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { tmpdir } from "node:os";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../support/cluster.ts";
import { expectSameBytes } from "../support/cluster-replicas.ts";
import { isWholeWith } from "../support/cluster-volumes.ts";
import { canMakeNetworks, type NetHost, NetLab } from "../support/net-lab.ts";
import { Random, testSeed } from "../support/random.ts";
import { IO_PORT, nqnOf } from "./engine.ts";
import { Ledger } from "./ledger.ts";
import { FAULT_CYCLES_NIGHTLY, FAULTS_TIMEOUT_MS, SET_UP_TIMEOUT_MS } from "./limits.ts";
import { underLoad } from "./load.ts";
import { Guest } from "./vm.ts";

const MIB = 1 << 20;
const POOL_BYTES = 1024 * MIB;
const NODES = 3;
/** Reconnect every second, for ten minutes; keep-alive after five seconds. */
const KERNEL_OPTIONS = "reconnect_delay=1,ctrl_loss_tmo=600,keep_alive_tmo=5";
const CONNECT_OPTIONS = "-c 1 -l 600 -k 5";
/** Records that have to be made durable after a fault, or its end, before the test goes on. */
const RECORDS = 6;

/** A file system on a volume. */
class Mounted {
  readonly uuid = randomUUID();
  readonly nqn = nqnOf(this.uuid);
  readonly kind: "ext4" | "xfs";
  readonly sizeBytes: number;
  readonly folder: string;
  device = "";

  constructor(kind: "ext4" | "xfs", sizeBytes: number) {
    this.kind = kind;
    this.sizeBytes = sizeBytes;
    this.folder = `/mnt/${kind}`;
  }

  get mount(): string {
    return `mount -t ${this.kind} ${this.device} ${this.folder}`;
  }

  get check(): string {
    return this.kind === "ext4" ? `fsck.ext4 -fn ${this.device}` : `xfs_repair -n ${this.device}`;
  }
}

const mounts = [new Mounted("ext4", 96 * MIB), new Mounted("xfs", 320 * MIB)];
let lab: NetLab;
let guest: Guest;
let cluster: Cluster;

setDefaultTimeout(FAULTS_TIMEOUT_MS);

beforeAll(async () => {
  if (!canMakeNetworks) return;
  lab = new NetLab(NODES + 1);
  [guest, cluster] = await Promise.all([
    Guest.boot({ within: lab.hosts[NODES]!.within }),
    Cluster.start(NODES, tmpdir(), [], lab.hosts.slice(0, NODES)),
  ]);
  for (const node of cluster.nodes) await cluster.createPool(node, `pool-${node.name}`, POOL_BYTES);
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await endClusters();
  lab?.end();
});

const isWhole = isWholeWith(NODES);

async function publish({ uuid, sizeBytes }: Mounted, node: ClusterNode): Promise<void> {
  await cluster.rest.createVolume(uuid, {
    size: sizeBytes,
    replicas: NODES,
    thin: true,
    policy: { self_heal: true },
  });
  const to = { protocol: "nvmf", node: node.name, publish_context: {} } as const;
  await cluster.rest.publishVolume(uuid, to);
  await waitUntil(
    "all standbys",
    () => cluster.rest.paths(uuid),
    (paths) => paths.filter(({ state }) => state === "listening").length === NODES - 1,
  );
}

/** Connects the host through all nodes and mounts a new file system. */
async function mount(at: Mounted): Promise<void> {
  const { nqn, kind, folder } = at;
  const [first, ...others] = cluster.nodes;
  at.device = await guest.ok(`attach ${nqn} ${first!.address} ${IO_PORT} ${CONNECT_OPTIONS}`);
  for (const { address } of others) {
    await guest.ok(`add_path ${nqn} ${address} ${IO_PORT} ${KERNEL_OPTIONS}`);
  }
  await guest.ok(`mkfs.${kind} -q ${at.device}; mkdir -p ${folder}; ${at.mount}`);
}

/** Waits until every volume has all its copies and the host all its paths. */
async function everythingIsWell(): Promise<void> {
  for (const { uuid, nqn } of mounts) {
    await cluster.volumeUntil("all copies", uuid, isWhole);
    await waitUntil(
      "a host on every standby",
      () => cluster.rest.paths(uuid),
      (paths) =>
        paths.length === NODES &&
        paths.every(({ role, state, hosts }) =>
          role === "target" ? state === "serving" : state === "listening" && hosts === 1,
        ),
    );
    await guest.ok(`wait_for 60 has_live_paths ${nqn} ${NODES}`);
  }
}

// ------------------------------------------------------------------------------------ the faults

/** Whom a fault strikes. */
type Role = "target" | "replica" | "leader";

interface Fault {
  readonly name: string;
  /** Not only at night. */
  readonly isDaily?: true;
  readonly role: Role;
  /** Nothing goes on before it is mended. */
  readonly isTotal?: true;
  strike(node: ClusterNode): Promise<void> | void;
  mend(node: ClusterNode): Promise<void> | void;
}

function hostOf(node: ClusterNode): NetHost {
  return lab.hosts[cluster.nodes.indexOf(node)]!;
}

function others(node: ClusterNode): ClusterNode[] {
  return cluster.nodes.filter((other) => other !== node);
}

const killed = {
  strike: (node: ClusterNode) => node.kill(),
  mend: (node: ClusterNode) => node.start(),
};
const stopped = {
  strike: (node: ClusterNode) => node.pause(),
  mend: (node: ClusterNode) => node.resume(),
};
const unplugged = {
  strike(node: ClusterNode) {
    node.isCutOff = true;
    hostOf(node).linkDown();
  },
  mend(node: ClusterNode) {
    lab.heal();
    node.isCutOff = false;
  },
};
/** What the node sends to other nodes is lost; it hears them, and the host has it both ways. */
const unheard = {
  strike(node: ClusterNode) {
    node.isCutOff = true;
    for (const other of others(node)) hostOf(node).loseTo(hostOf(other));
  },
  mend: unplugged.mend,
};
/** The node hears no other node, and they hear it. */
const deaf = {
  strike(node: ClusterNode) {
    node.isCutOff = true;
    for (const other of others(node)) hostOf(other).loseTo(hostOf(node));
  },
  mend: unplugged.mend,
};

/** Every request to the node's disk fails; mended, its engine starts anew. */
const diskless = {
  strike: (node: ClusterNode) => cluster.failDisk(node, `pool-${node.name}`),
  mend: (node: ClusterNode) => cluster.mendDisk(node, `pool-${node.name}`),
};
/** One node after the other, as soon as the host goes on without it. */
const eachInTurn = {
  async strike(node: ClusterNode) {
    for (const other of others(node)) {
      await other.kill();
      await other.start();
      await everythingIsWell();
    }
    await node.kill();
  },
  mend: (node: ClusterNode) => node.start(),
};
/** The power of the rack fails; nodes come back in another order. */
const together = {
  async strike() {
    await Promise.all(cluster.nodes.map((node) => node.kill()));
  },
  async mend() {
    for (const node of cluster.nodes.toReversed()) node.spawn();
    await cluster.isWhole();
  },
};

const faults: readonly Fault[] = [
  { name: "kill -9 of the target's node", role: "target", ...killed },
  { name: "SIGSTOP of a replica's node", role: "replica", isDaily: true, ...stopped },
  { name: "link down of the target's node", role: "target", isDaily: true, ...unplugged },
  { name: "kill -9 of the leader", role: "leader", isDaily: true, ...killed },
  { name: "SIGSTOP of the target's node", role: "target", ...stopped },
  {
    name: "the target's node is not heard by other nodes",
    role: "target",
    isDaily: true,
    ...unheard,
  },
  { name: "kill -9 of a replica's node", role: "replica", ...killed },
  { name: "the target's node hears no other node", role: "target", ...deaf },
  { name: "SIGSTOP of the leader", role: "leader", ...stopped },
  { name: "link down of a replica's node", role: "replica", ...unplugged },
  { name: "the disk of the target's node fails", role: "target", ...diskless },
  { name: "the disk of a replica's node fails", role: "replica", ...diskless },
  { name: "kill -9 of all nodes in turn, the target's last", role: "target", ...eachInTurn },
  { name: "kill -9 of all nodes at once", role: "target", isTotal: true, ...together },
];

async function nodeOf(role: Role): Promise<ClusterNode> {
  if (role === "leader") return cluster.leader();
  const { state } = await cluster.rest.volume(mounts[0]!.uuid);
  const target = cluster.node(state.target!.node);
  return role === "target" ? target : others(target)[0]!;
}

/** Strikes, waits until the host goes on, mends, waits until all is as before. */
async function suffer(fault: Fault, ledger: Ledger): Promise<void> {
  const node = await nodeOf(fault.role);
  const startedMs = performance.now();
  await fault.strike(node);
  if (fault.isTotal !== true) await ledger.progresses(RECORDS);
  const onMs = performance.now();
  await fault.mend(node);
  await everythingIsWell();
  await ledger.progresses(RECORDS);
  const times = `${Math.round(onMs - startedMs)} ms, whole after ${Math.round(performance.now() - onMs)} ms more`;
  console.log(`${fault.name} (${node.name}): ${RECORDS} records durable after ${times}`);
}

/** The faults of this run, in order. */
function schedule(): Fault[] {
  if (process.env.TRILITH_NIGHTLY !== "1") return faults.filter(({ isDaily }) => isDaily === true);
  const seed = testSeed();
  console.log(`faults with seed ${seed}`);
  const random = new Random(seed);
  const more = FAULT_CYCLES_NIGHTLY - faults.length;
  return [...faults, ...Array.from({ length: more }, () => faults[random.below(faults.length)]!)];
}

test.skipIf(!canMakeNetworks)(
  "nodes, links and processes fail in turn: the host goes on, and no acknowledged fsync is lost",
  async () => {
    for (const at of mounts) await publish(at, cluster.nodes[0]!);
    for (const at of mounts) await mount(at);
    await everythingIsWell();
    const ledger = new Ledger(
      guest,
      mounts.map(({ folder }) => folder),
    );
    const [first, second] = mounts as [Mounted, Mounted];
    const options = { options: "--fsync=8", timeoutMs: FAULTS_TIMEOUT_MS };
    await underLoad(guest, { target: first.folder, ...options }, async () => {
      await underLoad(guest, { target: second.folder, ...options }, async () => {
        await ledger.progresses(RECORDS);
        for (const fault of schedule()) await suffer(fault, ledger);
      });
    });
    await ledger.stop();
    for (const { folder, mount, check } of mounts) {
      await guest.ok(`umount ${folder}; ${check}; echo 3 >/proc/sys/vm/drop_caches; ${mount}`);
    }
    await ledger.check();
    console.log(`${ledger.told} fsyncs were acknowledged, and none is lost`);
    for (const { folder } of mounts) await guest.ok(`umount ${folder}`);
    await guest.ok("detach_all");
    for (const { uuid } of mounts) {
      await cluster.rest.unpublishVolume(uuid, false);
      await expectSameBytes(cluster, uuid);
    }
    // I/O errors would be among its complaints.
    expect(guest.complaints()).toEqual([]);
  },
);
