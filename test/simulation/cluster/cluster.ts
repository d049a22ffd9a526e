/** A simulated cluster: machines, their network, a host with its volumes; formed, watched and compared. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bdev } from "../../../src/engine/bdev/bdev.ts";
import { deviceIo, takeBuffer } from "../../../src/engine/nexus/child-io.ts";
import { Nexus } from "../../../src/engine/nexus/index.ts";
import { IoOp, ioOpNames } from "../../../src/engine/reactor/io-table.ts";
import { nqnOf } from "../../../src/names.ts";
import { nodeRecord } from "../../support/store-records.ts";
import { type Control, simUuid } from "./control.ts";
import { HostVolume } from "./host.ts";
import { Machine } from "./machine.ts";
import { Network } from "./network.ts";
import { Workload } from "./workload.ts";
import { Process, World } from "./world.ts";

const MIB = 1 << 20;
const DISK_BYTES = 192 * MIB;
const FORM_MS = 60_000;
const READ_BYTES = MIB;

export interface ClusterOptions {
  readonly seed: number;
  readonly machines: number;
  readonly replicas: number;
  readonly volumes: number;
  readonly thin: boolean;
  readonly faultedChildWaitMs: number;
}

export interface SimVolume {
  readonly uuid: string;
  readonly sizeBytes: number;
  readonly workload: Workload;
}

export class Cluster {
  readonly options: ClusterOptions;
  readonly world: World;
  readonly network: Network;
  readonly machines: Machine[] = [];
  readonly volumes: SimVolume[] = [];
  readonly host: Process;
  /** A replica may lack something: nothing may keep the others away. */
  isLacking = false;
  /** Machines whose pool is to be made anew. */
  readonly blankDisks = new Set<Machine>();
  /** Machines whose processes came to an end by themselves: somebody starts them again. */
  onCrash: (machine: Machine, what: "engine" | "control") => void = (machine) =>
    machine.startControl();
  /** By volume: the highest epoch that has acknowledged a write. */
  readonly #epochs = new Map<string, number>();
  readonly #folder = mkdtempSync(join(tmpdir(), "trilith-cluster-sim-"));

  constructor(options: ClusterOptions) {
    this.options = options;
    this.world = new World(options.seed);
    this.network = new Network(this.world);
    this.host = new Process(this.world, "host", "host");
    this.world.onServed = (bdev, op) => this.#served(bdev, op);
    const around = {
      world: this.world,
      network: this.network,
      folder: this.#folder,
      machines: this.machines,
      onCrash: (machine: Machine, what: "engine" | "control") => this.onCrash(machine, what),
    };
    for (let n = 1; n <= options.machines; n++) {
      this.machines.push(new Machine(around, n, DISK_BYTES));
    }
  }

  /** Once a nexus has acknowledged a write, none of an earlier epoch may answer anything. */
  #served(bdev: Bdev, op: number): void {
    if (!(bdev instanceof Nexus)) return;
    const { volumeUuid, epoch } = bdev.core.identity;
    const highest = this.#epochs.get(volumeUuid) ?? 0;
    if (epoch < highest) {
      const what = `volume ${volumeUuid}: a nexus of epoch ${epoch} answers ${ioOpNames[op]}`;
      this.world.fail(new Error(`${what}, after one of epoch ${highest} has acknowledged a write`));
    } else if (op !== IoOp.READ) this.#epochs.set(volumeUuid, epoch);
  }

  /** The control process that leads, and has caught up. */
  leader(): Control | null {
    for (const { control } of this.machines) if (control?.store.isLeader() === true) return control;
    return null;
  }

  /** Runs something as part of the leader, waits for its outcome. */
  ask<T>(what: string, run: (leader: Control) => Promise<T>, durationMs = FORM_MS): T {
    this.world.run(durationMs, () => this.leader() !== null);
    const leader = this.leader();
    if (leader === null) throw new Error(`${what}: there is no leader`);
    let promise: Promise<T> | undefined;
    this.world.enter(leader.process, () => {
      promise = run(leader);
      promise.catch(() => undefined);
    });
    return this.world.await(promise!, durationMs, what);
  }

  form(): void {
    const { machines, world } = this;
    for (const machine of machines) {
      machine.startEngine();
      machine.startControl();
    }
    for (const { raftId, name } of machines.slice(1)) {
      this.ask(`${name} joins`, ({ raft }) => raft.addLearner(raftId, name));
      this.ask(`${name} votes`, ({ raft }) => raft.promote(raftId));
    }
    // The tables are brought to their newest version first.
    this.ask("nodes", ({ store }) =>
      store.transact(() => ({
        changes: machines.map(({ name, raftId }) => ({
          table: "nodes" as const,
          put: nodeRecord(name, { raftId, hostNqn: `nqn.2019-05.io.openebs:node-name:${name}` }),
        })),
        events: [],
        value: undefined,
      })),
    );
    const context = { requestId: "form" };
    this.ask("settings", ({ service }) =>
      service.changeSettings({ faultedChildWaitMs: this.options.faultedChildWaitMs }, context),
    );
    for (const machine of machines) {
      this.ask(`pool of ${machine.name}`, (leader) => this.#makePool(leader, machine));
    }
    for (let n = 1; n <= this.options.volumes; n++) this.#makeVolume(n);
    world.note("--- the cluster is formed");
  }

  #makePool({ service }: Control, { name, diskPath }: Machine): Promise<void> {
    const request = {
      nodeId: name,
      poolId: `pool-${name}`,
      disks: [diskPath],
      labels: {},
      clusterSizeBytes: MIB,
      force: false,
    };
    return service.createPool(request, { requestId: "pool" });
  }

  /** Has the pool of a machine forgotten, with what it held, and made on the blank disk; tried until it is done. */
  makePoolAnew(machine: Machine): void {
    const { world } = this;
    const id = `pool-${machine.name}`;
    const purge = { purge: true, acceptVolumeLoss: false, acceptSnapshotLoss: false };
    let isForgotten = false;
    const attempt = async (leader: Control): Promise<void> => {
      if (!isForgotten && leader.store.view().pools.has(id)) {
        await leader.service.destroyPool(id, machine.name, purge, { requestId: "swap" });
        world.note(`operator: ${id} is forgotten`);
      }
      isForgotten = true;
      await this.#makePool(leader, machine);
      world.note(`operator: ${id} is made`);
      this.blankDisks.delete(machine);
    };
    const again = (): void => {
      if (!this.blankDisks.has(machine)) return;
      const leader = this.leader();
      if (leader !== null) {
        world.enter(leader.process, () => {
          attempt(leader).catch((error: unknown) => world.note(`operator: ${String(error)}`));
        });
      }
      world.after(3_000, null, again);
    };
    this.blankDisks.add(machine);
    again();
  }

  #makeVolume(number: number): void {
    const context = { requestId: "form" };
    const sizeBytes = 48 * MIB;
    const uuid = simUuid(this.host);
    const { replicas: replicaCount, thin } = this.options;
    const volume = {
      uuid,
      sizeBytes,
      replicaCount,
      thin,
      selfHeal: true,
      topology: null,
      labels: {},
      affinityGroup: null,
      maxSnapshots: null,
    };
    this.ask(`volume ${number}`, ({ service }) => service.createVolume(volume, context));
    const frontendNode = { name: "host", nqn: "nqn.2014-08.org.example:host" };
    const publish = {
      uuid,
      publishContext: {},
      nodeId: null,
      reuseExisting: false,
      republish: false,
      frontendNode,
    };
    this.ask(`publishing ${number}`, ({ service }) => service.publishVolume(publish, context));
    this.world.enter(this.host, () => {
      const host = new HostVolume({
        network: this.network,
        process: this.host,
        nqn: nqnOf(uuid),
        hostNqn: frontendNode.nqn,
        hostId: "0123456789abcdef0123456789abcdef",
        machines: this.machines.map((one) => ({ name: one.name, target: () => one.engine })),
      });
      const workload = new Workload(this.host, host, number, sizeBytes);
      this.volumes.push({ uuid, sizeBytes, workload });
    });
  }

  // ------------------------------------------------------------------------------------- looking

  /** Null when a volume has all of its replicas, healthy, and a nexus with all of them in sync. */
  whyNotWhole({ uuid }: SimVolume): string | null {
    const leader = this.leader();
    if (leader === null) return "there is no leader";
    const view = leader.store.view();
    const volume = view.volumes.get(uuid)!;
    const replicas = [...(view.replicasOfVolume.get(uuid) ?? [])].map(
      (key) => view.replicas.get(key)!,
    );
    const healthy = replicas.filter((one) => one.healthy && one.status === "Created");
    if (healthy.length !== volume.replicaCount || replicas.length !== volume.replicaCount) {
      return `${healthy.length} healthy replicas of ${replicas.length}, ${volume.replicaCount} wanted`;
    }
    const { target } = volume;
    if (target === null) return "it is not published";
    const machine = this.machines.find(({ name }) => name === target.nodeId)!;
    const nexus = machine.engine?.shard.nexusOf(target.nexusUuid);
    if (nexus === undefined) return `there is no nexus at ${target.nodeId}`;
    const { state, children } = nexus.info();
    const isWhole =
      state === "online" &&
      children.length === volume.replicaCount &&
      children.every((child) => child.state === "online");
    return isWhole
      ? null
      : `its nexus is ${state}: ${children.map((c) => `${c.uri.slice(0, 24)} ${c.state} ${c.reason}`).join(", ")}`;
  }

  isWhole(): boolean {
    return (
      this.blankDisks.size === 0 &&
      this.volumes.every((volume) => this.whyNotWhole(volume) === null)
    );
  }

  /**
   * True when no replica lacks anything that was acknowledged, as nexuses have confirmed since the last power
   * loss of its machine, and every machine can be reached: then one may lose what no flush has covered.
   */
  isSettled(): boolean {
    const { machines, network } = this;
    const isDiskWell = machines.every(({ disk }) => disk.isWell);
    if (!isDiskWell || this.blankDisks.size > 0) return false;
    const isAllThere = machines.every(
      ({ isOn, engine }) => isOn && engine !== null && !engine.process.isPaused,
    );
    if (!isAllThere || network.cuts.size > 0 || !this.isWhole()) return false;
    return [...this.leader()!.store.view().replicas.values()].every(({ uuid, nodeId }) => {
      const machine = machines.find(({ name }) => name === nodeId)!;
      return machine.engine!.shard.findReplica(uuid)?.attributes.bootId === machine.bootId;
    });
  }

  /** Reads all of a volume's replicas and compares them, byte by byte. */
  compareReplicas({ uuid, sizeBytes }: SimVolume): void {
    const view = this.leader()!.store.view();
    const keys = [...(view.replicasOfVolume.get(uuid) ?? [])].sort();
    for (let at = 0; at < sizeBytes; at += READ_BYTES) {
      let first: Uint8Array | null = null;
      for (const key of keys) {
        const { nodeId } = view.replicas.get(key)!;
        const bytes = this.#readReplica(nodeId, key, at);
        if (first === null) first = bytes;
        else if (Buffer.compare(first, bytes) !== 0) {
          const block = first.findIndex((byte, i) => byte !== bytes[i]);
          throw new Error(
            `volume ${uuid}: replica ${key} at ${nodeId} differs from ${keys[0]} at block ${(at + block) >> 9}`,
          );
        }
      }
    }
  }

  #readReplica(nodeId: string, uuid: string, offset: number): Uint8Array {
    const engine = this.machines.find(({ name }) => name === nodeId)!.engine!;
    const replica = engine.shard.findReplica(uuid)!;
    let bytes: Uint8Array | null = null;
    const read = async (): Promise<void> => {
      const buffer = await takeBuffer(engine.reactor, READ_BYTES);
      const status = await deviceIo(replica, IoOp.READ, offset, READ_BYTES, buffer);
      if (status !== 0) throw new Error(`replica ${uuid} cannot be read: status ${status}`);
      bytes = engine.reactor.arena.u8.slice(buffer, buffer + READ_BYTES);
      engine.reactor.arena.free(buffer);
    };
    this.world.enter(engine.process, () => {
      read().catch((error: unknown) => this.world.fail(error));
    });
    this.world.run(60_000, () => bytes !== null);
    if (bytes === null) throw new Error(`replica ${uuid} is not read`);
    return bytes;
  }

  close(): void {
    for (const machine of this.machines) machine.close();
    this.world.drain();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
