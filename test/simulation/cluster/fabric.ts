/**
 * NVMe over fabrics between simulated engines and hosts, in the place of sockets, PDUs and queues: a
 * controller on the target's side that takes the commands of one host in the order they came, and an
 * association on the host's. Subsystems, namespaces, ANA states, reservations, vendor commands and devices are
 * the product's own; what stands in for `target/io-queue.ts` (who is refused, which status a failure becomes, what a
 * fence waits for) and for `bdev/nvmf/controller.ts` (time-outs, keep-alive) follows them line by line. Commands
 * that wait for their data (R2T) and the limits of queues are left out.
 */

import { assert } from "../../../src/assert.ts";
import { IoOp, type IoOwner } from "../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import type { Controller } from "../../../src/engine/target/controller.ts";
import { nvmeStatus } from "../../../src/engine/target/io-queue.ts";
import {
  acquire,
  holds,
  type ReservationOutcome,
  type ReservationState,
  register,
  release,
} from "../../../src/engine/target/reservation-state.ts";
import { Access } from "../../../src/engine/target/reservations.ts";
import { Subsystem } from "../../../src/engine/target/subsystem.ts";
import type { Target } from "../../../src/engine/target/target.ts";
import { type AnaState, IoOpcode, STATUS_DNR, Status } from "../../../src/nvme/constants.ts";
import {
  decodeAcquire,
  decodeRegister,
  decodeRelease,
  encodeReservationReport,
} from "../../../src/nvme/reservations.ts";
import { Connection, type Network } from "./network.ts";
import type { Process, Timer } from "./world.ts";

/** Who connects. */
export interface FabricHost {
  readonly nqn: string;
  /** 32 hex digits. */
  readonly id: string;
  readonly keepAliveMs: number;
  /** How long a Keep Alive, and any other command, may take. */
  readonly keepAliveAnswerMs: number;
  readonly ioTimeoutMs: number;
}

export type FabricCommand =
  | {
      readonly kind: "io";
      readonly op: number;
      readonly offset: number;
      readonly length: number;
      readonly flags: number;
      readonly data: Uint8Array | null;
    }
  | {
      readonly kind: "vendor";
      readonly opcode: number;
      readonly dwords: readonly number[];
      readonly data: Uint8Array;
      readonly room: number;
    }
  | {
      /** Register, acquire or release, as `nvme/host-commands.ts` makes them. */
      readonly kind: "reservation";
      readonly opcode: number;
      readonly dword10: number;
      readonly data: Uint8Array;
    }
  | { readonly kind: "report" }
  | { readonly kind: "keep-alive" };

export interface FabricAnswer {
  /** SCT << 8 | SC, with STATUS_DNR; 0 is success. */
  readonly status: number;
  readonly data: Uint8Array;
  readonly dword0: number;
}

/** What a host is told of a namespace. */
export interface NamespaceFacts {
  readonly uuid: string;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly isActive: boolean;
  readonly ana: AnaState;
}

const NOTHING = new Uint8Array(0);
const CONTROLLER_SCAN_MS = 500;

function factsOf(subsystem: Subsystem): NamespaceFacts {
  const { bdev, uuid, active } = subsystem.namespace;
  return {
    uuid,
    blockSize: bdev.blockSize,
    blockCount: bdev.blockCount,
    isActive: active,
    ana: subsystem.anaState,
  };
}

// ------------------------------------------------------------------------------------ the target's side

/** One host's controller in a subsystem: what `Subsystem` knows of one, and what carries commands out. */
class TargetController {
  readonly id: number;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly subsystem: Subsystem;
  readonly features = { reservationMask: 0 };
  readonly changedNamespaces = new Set<number>();
  readonly notices = new Set<number>();
  /** The product keeps one queue per connection: here there is one. */
  readonly queues = new Map([[1, this]]);
  readonly events = { raise: () => this.#tellFacts() };
  readonly onFacts: (facts: NamespaceFacts) => void;
  denied: number;
  readonly #process: Process;
  readonly #reactor: Reactor;
  readonly #connection: Connection;
  readonly #keepAliveMs: number;
  /** Commands under way, by number. */
  readonly #executing = new Set<number>();
  readonly #fences: { readonly waitsFor: Set<number>; readonly done: () => void }[] = [];
  readonly #endListeners: ((isByHost: boolean) => void)[] = [];
  #number = 0;
  #isEnded = false;
  lastSeenMs: number;

  constructor(
    process: Process,
    reactor: Reactor,
    subsystem: Subsystem,
    connection: Connection,
    host: FabricHost,
    onFacts: (facts: NamespaceFacts) => void,
  ) {
    this.#process = process;
    this.#reactor = reactor;
    this.#connection = connection;
    this.#keepAliveMs = host.keepAliveMs;
    this.subsystem = subsystem;
    this.hostNqn = host.nqn;
    this.hostId = host.id;
    this.onFacts = onFacts;
    this.id = subsystem.takeControllerId();
    this.denied = subsystem.namespace.reservations.deniedTo(host.id);
    subsystem.controllers.set(this.id, this as unknown as Controller);
    this.lastSeenMs = process.world.nowMs;
    connection.onClosed(process, (reason) => {
      this.#tellEnd(true);
      this.end(reason);
    });
    this.#watch();
  }

  #watch(): void {
    if (this.#isEnded) return;
    const { world } = this.#process;
    world.after(CONTROLLER_SCAN_MS, this.#process, () => {
      if (world.nowMs - this.lastSeenMs > this.#keepAliveMs) this.end("keep-alive time-out");
      else this.#watch();
    });
  }

  #tellFacts(): void {
    if (this.#isEnded) return;
    const facts = factsOf(this.subsystem);
    this.#connection.send(this.#process, () => this.onFacts(facts));
  }

  onEnd(listener: (isByHost: boolean) => void): void {
    this.#endListeners.push(listener);
  }

  #tellEnd(isByHost: boolean): void {
    for (const tell of this.#endListeners.splice(0)) tell(isByHost);
  }

  end(reason: string): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#tellEnd(false);
    this.#connection.close(this.#process, reason);
    this.#leaveWhenIdle();
  }

  #leaveWhenIdle(): void {
    if (!this.#isEnded || this.#executing.size > 0) return;
    const { controllers } = this.subsystem;
    if (controllers.get(this.id) === (this as unknown as Controller)) {
      this.subsystem.controllerGone(this as unknown as Controller);
    }
  }

  /** Nothing here waits for data of the host. */
  abortAwaiting(): void {}

  /** Calls when everything that has begun by now has ended. */
  fence(done: () => void): void {
    if (this.#executing.size === 0) done();
    else this.#fences.push({ waitsFor: new Set(this.#executing), done });
  }

  #ended(number: number): void {
    this.#executing.delete(number);
    for (const fence of [...this.#fences]) {
      fence.waitsFor.delete(number);
      if (fence.waitsFor.size > 0) continue;
      this.#fences.splice(this.#fences.indexOf(fence), 1);
      fence.done();
    }
    this.#leaveWhenIdle();
  }

  #refusal(offset: number, length: number, access: number): number {
    const { namespace, refusal } = this.subsystem;
    if (!namespace.active) return Status.INVALID_NAMESPACE | STATUS_DNR;
    if (refusal !== 0) return refusal;
    const { bdev } = namespace;
    if (offset + length > bdev.blockCount * bdev.blockSize) {
      return Status.LBA_OUT_OF_RANGE | STATUS_DNR;
    }
    return (this.denied & access) === 0 ? 0 : Status.RESERVATION_CONFLICT;
  }

  /** A command has come. `answer` is called once, unless the connection is closed by then. */
  take(command: FabricCommand, answer: (answer: FabricAnswer) => void): void {
    if (this.#isEnded) return;
    this.lastSeenMs = this.#process.world.nowMs;
    const number = ++this.#number;
    const finish = (status: number, data: Uint8Array = NOTHING, dword0 = 0): void => {
      this.#ended(number);
      if (this.#isEnded) return;
      this.#connection.send(this.#process, () => answer({ status, data, dword0 }));
    };
    switch (command.kind) {
      case "keep-alive":
        finish(0);
        return;
      case "io":
        this.#executing.add(number);
        this.#io(command, finish);
        return;
      case "vendor":
        this.#executing.add(number);
        this.#vendor(command, finish);
        return;
      default:
        // A reservation command in line is not waited for by a fence.
        this.#reserve(command, finish);
    }
  }

  #io(
    command: Extract<FabricCommand, { kind: "io" }>,
    finish: (status: number, data?: Uint8Array) => void,
  ): void {
    const { op, offset, length, flags, data } = command;
    const access = op === IoOp.READ ? Access.READ : Access.WRITE;
    const status = this.#refusal(offset, length, access);
    if (status !== 0) {
      finish(status);
      return;
    }
    const { io, arena } = this.#reactor;
    const { bdev } = this.subsystem.namespace;
    const slots = bdev.slotsPerIo + 1;
    const hasData = op === IoOp.READ || op === IoOp.WRITE;
    let buffer = -1;
    const begin = (): boolean => {
      if (!io.promise(slots)) return false;
      if (hasData) buffer = arena.alloc(length, 0);
      if (hasData && buffer < 0) {
        io.withdraw(slots);
        return false;
      }
      if (data !== null) arena.u8.set(data, buffer);
      const slot = io.take(op, offset, length, buffer, flags, this.#reactor.now);
      const owner: IoOwner = {
        ioDone: (done) => {
          const ended = io.status[done]!;
          if (ended === 0) this.#process.world.onServed(bdev, op);
          const isRead = op === IoOp.READ && ended === 0;
          const bytes = isRead ? arena.u8.slice(buffer, buffer + length) : NOTHING;
          if (hasData) arena.free(buffer);
          io.give(done);
          io.release(slots);
          finish(nvmeStatus(ended, op), bytes);
        },
      };
      io.push(slot, owner);
      bdev.submit(slot);
      return true;
    };
    if (begin()) return;
    const waiter = {
      resume: () => {
        if (!begin()) this.#reactor.waitForResources(waiter);
      },
    };
    this.#reactor.waitForResources(waiter);
  }

  #vendor(
    command: Extract<FabricCommand, { kind: "vendor" }>,
    finish: (status: number, data?: Uint8Array, dword0?: number) => void,
  ): void {
    const { opcode, dwords, data, room } = command;
    const { vendor } = this.subsystem.namespace;
    const status = this.#refusal(0, 0, (opcode & 3) === 2 ? Access.READ : Access.WRITE);
    if (vendor === undefined || status !== 0) {
      finish(vendor === undefined ? Status.INVALID_OPCODE | STATUS_DNR : status);
      return;
    }
    vendor.execute({
      opcode,
      hostNqn: this.hostNqn,
      hostId: this.hostId,
      association: this,
      data,
      room,
      endFormerControllers: () => this.subsystem.endOthers(this as unknown as Controller),
      dword: (number) => dwords[number - 10] ?? 0,
      respond: (ended, bytes = NOTHING, dword0 = 0) => {
        if (ended !== 0 || room === 0) {
          finish(ended, NOTHING, dword0);
          return;
        }
        const whole = new Uint8Array(room);
        whole.set(bytes.subarray(0, room));
        finish(0, whole, dword0);
      },
    });
  }

  #reserve(
    command: Extract<FabricCommand, { kind: "reservation" | "report" }>,
    finish: (status: number, data?: Uint8Array) => void,
  ): void {
    const refused = this.#refusal(0, 0, 0);
    if (refused !== 0) {
      finish(refused);
      return;
    }
    const { reservations } = this.subsystem.namespace;
    const { hostId } = this;
    if (command.kind === "report") {
      const { state } = reservations;
      const { generation, type, persistent } = state;
      const controllers = state.registrants.map((one) => ({
        controllerId: 0xffff,
        hostId: one.hostId,
        key: one.key,
        holds: holds(state, one.hostId),
      }));
      finish(0, encodeReservationReport({ generation, type, persistent, controllers }));
      return;
    }
    const { opcode, dword10, data } = command;
    const run = (state: ReservationState): ReservationOutcome => {
      switch (opcode) {
        case IoOpcode.RESERVATION_REGISTER:
          return register(state, hostId, decodeRegister(dword10, data), reservations.canPersist);
        case IoOpcode.RESERVATION_ACQUIRE:
          return acquire(state, hostId, decodeAcquire(dword10, data));
        default:
          return release(state, hostId, decodeRelease(dword10, data));
      }
    };
    reservations.run(run).then(
      (status) => finish(status),
      () => finish(Status.INTERNAL_ERROR),
    );
  }
}

/** Where a machine's engine takes connections. */
export interface FabricTarget {
  readonly process: Process;
  readonly reactor: Reactor;
  readonly target: Target;
}

// -------------------------------------------------------------------------------------- the host's side

export type ConnectFailure = "refused" | "silent" | "no-subsystem" | "not-admitted" | "no-ids";

interface Sent {
  readonly answered: (answer: FabricAnswer) => void;
  timer: Timer;
}

/** A host's side of a controller. */
export class Association {
  readonly #process: Process;
  readonly #host: FabricHost;
  readonly #connection: Connection;
  readonly #controller: () => TargetController | null;
  readonly #sent = new Map<number, Sent>();
  facts: NamespaceFacts;
  /** Called once when it is lost; commands without answer never get one. */
  onLost: (reason: string) => void = () => {};
  /** Called before that, while the other side cannot have heard of it. */
  onClosing: () => void = () => {};
  onFacts: (facts: NamespaceFacts) => void = () => {};
  #number = 0;
  #isOver = false;

  constructor(
    process: Process,
    host: FabricHost,
    connection: Connection,
    controller: () => TargetController | null,
    facts: NamespaceFacts,
  ) {
    this.#process = process;
    this.#host = host;
    this.#connection = connection;
    this.#controller = controller;
    this.facts = facts;
    connection.onClosed(process, (reason) => this.lose(reason));
    this.#keepAlive();
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  told(facts: NamespaceFacts): void {
    if (this.#isOver) return;
    this.facts = facts;
    this.onFacts(facts);
  }

  #keepAlive(): void {
    const { world } = this.#process;
    world.after(this.#host.keepAliveMs / 2, this.#process, () => {
      if (this.#isOver) return;
      const limitMs = this.#host.keepAliveAnswerMs;
      this.#send({ kind: "keep-alive" }, limitMs, () => this.#keepAlive());
    });
  }

  #send(
    command: FabricCommand,
    timeoutMs: number,
    answered: (answer: FabricAnswer) => void,
  ): number {
    const { world } = this.#process;
    const number = ++this.#number;
    const timer = world.after(timeoutMs, this.#process, () =>
      this.lose(`${command.kind} command: no answer in ${timeoutMs} ms`),
    );
    this.#sent.set(number, { answered, timer });
    this.#connection.send(this.#process, () =>
      this.#controller()?.take(command, (answer) => this.#answered(number, answer)),
    );
    return number;
  }

  #answered(number: number, answer: FabricAnswer): void {
    const sent = this.#sent.get(number);
    if (this.#isOver || sent === undefined) return;
    this.#sent.delete(number);
    sent.timer.cancel();
    sent.answered(answer);
  }

  /** Sends a command; `answered` is called unless the association is lost before. */
  send(command: FabricCommand, answered: (answer: FabricAnswer) => void): void {
    assert(!this.#isOver, "commands are sent while there is a controller");
    this.#send(command, this.#host.ioTimeoutMs, answered);
  }

  lose(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const { timer } of this.#sent.values()) timer.cancel();
    this.#sent.clear();
    this.onClosing();
    this.#connection.close(this.#process, reason);
    this.onLost(reason);
  }
}

/** Connects a host to a subsystem of a machine. `ended` is called once, as part of the host. */
export function connect(
  network: Network,
  process: Process,
  machine: string,
  listener: () => FabricTarget | null,
  nqn: string,
  host: FabricHost,
  timeoutMs: number,
  ended: (outcome: Association | ConnectFailure) => void,
): void {
  const { world } = network;
  let isOver = false;
  let connection: Connection | null = null;
  const end = (outcome: Association | ConnectFailure): void => {
    if (isOver) return;
    isOver = true;
    timer.cancel();
    if (!(outcome instanceof Association)) connection?.close(process, "not wanted any more");
    ended(outcome);
  };
  const timer = world.after(timeoutMs, process, () => end("silent"));
  const carry = (from: string, to: string, run: () => void): void => {
    world.after(network.delayMs(from, to), null, () => {
      if (isOver) return;
      if (network.isCut(from, to)) world.after(200, null, () => carry(from, to, run));
      else run();
    });
  };
  const answer = (outcome: ConnectFailure): void =>
    carry(machine, process.machine, () => {
      world.after(0, process, () => end(outcome));
    });
  carry(process.machine, machine, () => {
    const there = listener();
    if (there === null || there.process.death !== null) {
      answer("refused");
      return;
    }
    world.after(0, there.process, () => {
      const subsystem = there.target.subsystem(nqn);
      if (!(subsystem instanceof Subsystem) || subsystem.ended) return answer("no-subsystem");
      if (!subsystem.admits(host.nqn)) return answer("not-admitted");
      let association: Association | null = null;
      const made = new Connection(network, process, there.process);
      connection = made;
      let controller: TargetController;
      try {
        controller = new TargetController(
          there.process,
          there.reactor,
          subsystem,
          made,
          host,
          (facts) => association?.told(facts),
        );
      } catch {
        return answer("no-ids");
      }
      const facts = factsOf(subsystem);
      made.send(there.process, () => {
        if (isOver) {
          made.close(process, "too late");
          return;
        }
        association = new Association(process, host, made, () => controller, facts);
        end(association);
      });
    });
  });
}
