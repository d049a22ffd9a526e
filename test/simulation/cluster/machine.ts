/** A simulated machine: disks and the control plane's file, which last, and two processes, which do not. */
import { join } from "node:path";
import { SimDatabase } from "../../support/raft/sim-database.ts";
import { type Control, Crash, startSimControl } from "./control.ts";
import { Disk } from "./disk.ts";
import { type Engine, simEngineClient, startSimEngine } from "./engine.ts";
import { call, type Network } from "./network.ts";
import { Process, type World } from "./world.ts";

const RECORD_TIMEOUT_MS = 5_000;

export interface Surroundings {
  readonly world: World;
  readonly network: Network;
  readonly folder: string;
  readonly machines: readonly Machine[];
  /** A process has ended by a fault of its own making. */
  readonly onCrash: (machine: Machine, what: "engine" | "control") => void;
}

export class Machine {
  readonly name: string;
  readonly number: number;
  readonly address: string;
  readonly raftId: string;
  readonly diskPath = "/dev/sim";
  readonly disk: Disk;
  engine: Engine | null = null;
  control: Control | null = null;
  isOn = true;
  db = new SimDatabase(":memory:");
  readonly #around: Surroundings;
  #starts = 0;
  #boots = 0;
  #wallOffsetMs = 0;
  #isBegun = false;

  constructor(around: Surroundings, number: number, diskBytes: number) {
    this.#around = around;
    this.number = number;
    this.name = `node-${number}`;
    this.address = `10.0.0.${number}`;
    this.raftId = String(number);
    this.disk = new Disk(around.world, `${this.name}${this.diskPath}`, diskBytes);
  }

  /** Another one after each power loss. */
  get bootId(): string {
    const boot = String(this.number * 1_000 + this.#boots);
    return `00000000-0000-4000-b000-${boot.padStart(12, "0")}`;
  }

  get hostId(): string {
    return `00000000-0000-4000-a000-${String(this.number).padStart(12, "0")}`;
  }

  #process(what: string): Process {
    const process = new Process(this.#around.world, `${this.name} ${what}`, this.name);
    process.wallOffsetMs = this.#wallOffsetMs;
    return process;
  }

  startEngine(): void {
    if (!this.isOn || this.engine !== null) return;
    const { world, network, machines } = this.#around;
    const process = this.#process("engine");
    world.note(`${this.name}: engine starts`);
    world.enter(process, () => {
      this.engine = startSimEngine({
        process,
        network,
        nodeName: this.name,
        address: this.address,
        hostId: this.hostId,
        bootId: this.bootId,
        instance: ++this.#starts,
        disks: new Map([[this.diskPath, this.disk]]),
        machineAt: (address) => {
          const machine = machines.find((one) => one.address === address)!;
          return { machine: machine.name, target: () => machine.engine };
        },
        record: ({ volumeUuid, nexusUuid, epoch, children, cleanShutdown }) => {
          const plain = children.map(({ uri, healthy }) => ({ uri, healthy }));
          const request = { volumeUuid, nexusUuid, epoch, children: plain, cleanShutdown };
          return call(network, {
            from: process,
            machine: this.name,
            listener: () => this.control?.process ?? null,
            what: `record at ${this.name}`,
            timeoutMs: RECORD_TIMEOUT_MS,
            serve: () => this.control!.record(request),
          });
        },
      });
    });
  }

  startControl(): void {
    if (!this.isOn || this.control !== null) return;
    const { world, network, folder, machines, onCrash } = this.#around;
    const process = this.#process("control");
    const isFirst = this.number === 1 && !this.#isBegun;
    this.#isBegun = true;
    world.note(`${this.name}: control starts`);
    const byRaftId = (raftId: string) => machines.find((one) => one.raftId === raftId)!;
    world.enter(process, () => {
      this.control = startSimControl({
        process,
        network,
        nodeName: this.name,
        raftId: this.raftId,
        db: this.db,
        folder: join(folder, this.name),
        isFirst,
        member: (raftId) => byRaftId(raftId).control,
        machineOf: (raftId) => byRaftId(raftId).name,
        engineOf: ({ id }) => {
          const machine = machines.find((one) => one.name === id)!;
          return simEngineClient(network, process, id, () => machine.engine);
        },
        onFailure: (error) => {
          if (!(error instanceof Crash)) world.fail(error);
          world.after(0, null, () => {
            this.killControl();
            onCrash(this, "control");
          });
        },
      });
    });
  }

  killEngine(): void {
    if (this.engine === null) return;
    this.#around.world.note(`${this.name}: engine is killed`);
    const { process } = this.engine;
    this.engine = null;
    process.end("killed");
  }

  killControl(): void {
    if (this.control === null) return;
    this.#around.world.note(`${this.name}: control is killed`);
    const { process } = this.control;
    this.control = null;
    process.end("killed");
    this.db.crashAt = null;
  }

  /** Everything stops at once; of what no flush has covered, anything may be lost. */
  losePower(): void {
    const { world, network } = this.#around;
    world.note(`${this.name}: power is lost`);
    this.isOn = false;
    network.off.add(this.name);
    const ended = [this.engine?.process, this.control?.process];
    this.engine = null;
    this.control = null;
    for (const process of ended) process?.end("power");
    this.disk.losePower();
    const lost = world.random.below(this.db.unsyncedCount + 1);
    const before = this.db;
    this.db = before.afterPowerLoss(lost);
    before.close();
  }

  powerUp(): void {
    this.#around.world.note(`${this.name}: power is back`);
    this.isOn = true;
    this.#boots++;
    this.#around.network.off.delete(this.name);
  }

  /** Its wall clock jumps. */
  jumpClock(byMs: number): void {
    this.#wallOffsetMs += byMs;
    for (const process of [this.engine?.process, this.control?.process]) {
      if (process !== undefined) process.wallOffsetMs = this.#wallOffsetMs;
    }
  }

  close(): void {
    this.engine?.process.end("killed");
    this.control?.process.end("killed");
    this.db.close();
  }
}
