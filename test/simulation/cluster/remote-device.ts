/**
 * A namespace of another simulated machine as a block device: what `bdev/nvmf/nvmf-bdev.ts` is over sockets, with
 * its states, its policy when the connection is lost ("fail"), its pauses before it connects again, and
 * its time-outs.
 */
import { type BdevListener, BdevListeners } from "../../../src/engine/bdev/bdev.ts";
import type { Completion } from "../../../src/engine/bdev/nvmf/control-commands.ts";
import type {
  NvmfBdev,
  NvmfState,
  VendorCommand,
} from "../../../src/engine/bdev/nvmf/interface.ts";
import {
  type NvmeHost,
  type NvmfSettings,
  nvmfDefaults,
} from "../../../src/engine/bdev/nvmf/options.ts";
import { nvmeError, nvmeIoStatus, STATUS_CODE_MASK } from "../../../src/engine/bdev/nvmf/status.ts";
import { rangeStatus } from "../../../src/engine/bdev/range.ts";
import type { NvmfUri } from "../../../src/engine/bdev/uri.ts";
import { IoOp } from "../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../src/engine/reactor/reactor.ts";
import { hostIdHex } from "../../../src/engine/shard/replica-access.ts";
import { IoStatus, TrilithError } from "../../../src/errors.ts";
import { AnaState } from "../../../src/nvme/constants.ts";
import {
  type CommandWithData,
  type ReservationAcquire,
  type ReservationRegister,
  type ReservationRelease,
  reservationAcquireCommand,
  reservationRegisterCommand,
  reservationReleaseCommand,
} from "../../../src/nvme/host-commands.ts";
import {
  decodeReservationReport,
  type ReservationReport,
} from "../../../src/nvme/identify-decode.ts";
import {
  Association,
  type ConnectFailure,
  connect,
  type FabricAnswer,
  type FabricCommand,
  type FabricHost,
  type FabricTarget,
  type NamespaceFacts,
} from "./fabric.ts";
import type { Network } from "./network.ts";
import type { Process, Timer } from "./world.ts";

const NSID = 1;

export interface RemoteOptions {
  readonly network: Network;
  readonly process: Process;
  readonly reactor: Reactor;
  readonly uri: NvmfUri;
  readonly uriText: string;
  readonly host: NvmeHost;
  readonly settings: Partial<NvmfSettings>;
  /** The machine behind an address, and its engine's target now. */
  readonly machineAt: (address: string) => {
    readonly machine: string;
    readonly target: () => FabricTarget | null;
  };
}

function failure(outcome: ConnectFailure, what: string): TrilithError {
  switch (outcome) {
    case "refused":
    case "no-ids":
      return new TrilithError("Unavailable", `${what}: ${outcome}`);
    case "silent":
      return new TrilithError("Timeout", `${what}: no answer`);
    case "no-subsystem":
      return new TrilithError("NotFound", `${what}: there is no such subsystem`);
    case "not-admitted":
      return new TrilithError("PermissionDenied", `${what}: the host is not admitted`);
  }
}

class RemoteDevice implements NvmfBdev {
  readonly driver = "nvmf" as const;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly discardZeroes = true;
  readonly volatileCache = true;
  readonly name: string;
  readonly uri: string;
  readonly uuid: string;
  readonly nqn: string;
  readonly hostNqn: string;
  readonly blockSize: number;
  readonly reactor: Reactor;
  blockCount: number;
  losses = 0;
  readonly #options: RemoteOptions;
  readonly #settings: NvmfSettings;
  readonly #listeners = new BdevListeners();
  readonly #stateListeners = new Set<(state: NvmfState, reason: string) => void>();
  readonly #lossListeners: (() => void)[] = [];
  /** Requests and control commands under way: what ends them when the association is lost. */
  readonly #underWay = new Set<() => void>();
  #association: Association;
  #state: NvmfState = "live";
  #pause: Timer | null = null;
  #onIdle: (() => void)[] = [];

  constructor(options: RemoteOptions, settings: NvmfSettings, association: Association) {
    const { uri, reactor, host } = options;
    this.#options = options;
    this.#settings = settings;
    this.#association = association;
    this.reactor = reactor;
    this.nqn = uri.nqn;
    this.hostNqn = host.nqn;
    this.name = `${uri.address}:${uri.port}/${uri.nqn}n${NSID}`;
    this.uri = options.uriText;
    this.uuid = association.facts.uuid;
    this.blockSize = association.facts.blockSize;
    this.blockCount = association.facts.blockCount;
    this.#adopt(association);
  }

  get state(): NvmfState {
    return this.#state;
  }

  #setState(state: NvmfState, reason: string): void {
    if (this.#state === state || this.#state === "closed") return;
    this.#state = state;
    for (const listener of [...this.#stateListeners]) listener(state, reason);
  }

  #adopt(association: Association): void {
    this.#association = association;
    association.onClosing = () => {
      for (const listener of this.#lossListeners) listener();
    };
    association.onLost = (reason) => this.#lost(reason);
    association.onFacts = (facts) => this.#read(facts);
    this.#read(association.facts);
  }

  #read(facts: NamespaceFacts): void {
    if (this.#state !== "live" && this.#state !== "inaccessible") return;
    if (!facts.isActive || facts.uuid !== this.uuid) {
      this.#vanish("the namespace was removed or replaced");
      return;
    }
    if (facts.blockCount !== this.blockCount) {
      this.blockCount = facts.blockCount;
      this.#listeners.tell({ kind: "resized", blockCount: this.blockCount });
    }
    const isOpen = facts.ana === AnaState.OPTIMIZED || facts.ana === AnaState.NON_OPTIMIZED;
    this.#setState(isOpen ? "live" : "inaccessible", "ANA state");
  }

  #vanish(reason: string): void {
    this.#setState("gone", reason);
    this.#association.lose(reason);
    this.#listeners.tell({ kind: "removed", reason });
  }

  // ------------------------------------------------------------------------------------- requests

  submit(slot: number): void {
    const { io, arena } = this.reactor;
    let status: IoStatus = rangeStatus(io, slot, this.blockCount * this.blockSize, this.blockSize);
    if (status === IoStatus.OK && this.#state !== "live") {
      const isEnded = this.#state === "gone" || this.#state === "closed";
      status = isEnded ? IoStatus.DEVICE_GONE : IoStatus.UNAVAILABLE;
    }
    if (status !== IoStatus.OK) {
      io.complete(slot, status);
      return;
    }
    const op = io.op[slot]!;
    const length = io.length[slot]!;
    const buffer = io.buffer[slot]!;
    const data = op === IoOp.WRITE ? arena.u8.slice(buffer, buffer + length) : null;
    const offset = io.offset[slot]!;
    const flags = io.flags[slot]!;
    this.#send({ kind: "io", op, offset, length, flags, data }, (answer) => {
      if (answer === null) {
        io.complete(slot, IoStatus.UNAVAILABLE);
        return;
      }
      const ended = nvmeIoStatus[answer.status & STATUS_CODE_MASK]!;
      if (op === IoOp.READ && ended === IoStatus.OK) arena.u8.set(answer.data, buffer);
      io.complete(slot, ended);
    });
  }

  /** Sends a command; null: the association was lost before it was answered. */
  #send(command: FabricCommand, ended: (answer: FabricAnswer | null) => void): void {
    const end = (answer: FabricAnswer | null): void => {
      this.#underWay.delete(lost);
      ended(answer);
      if (this.#underWay.size === 0) for (const done of this.#onIdle.splice(0)) done();
    };
    const lost = (): void => end(null);
    this.#underWay.add(lost);
    this.#association.send(command, end);
  }

  #control(command: FabricCommand, what: string): Promise<FabricAnswer> {
    return new Promise((resolve, reject) => {
      const lost = new TrilithError(
        "Unavailable",
        `${what} of ${this.nqn}: the connection is lost`,
      );
      if (this.#association.isOver) {
        reject(lost);
        return;
      }
      this.#send(command, (answer) => (answer === null ? reject(lost) : resolve(answer)));
    });
  }

  async #reserve({ sqe, data }: CommandWithData, what: string): Promise<void> {
    const opcode = sqe[0]!;
    const command = { kind: "reservation", opcode, dword10: sqe[10]!, data } as const;
    const { status } = await this.#control(command, what);
    if (status !== 0) throw nvmeError(status, `reservation ${what} on ${this.name}`);
  }

  reservationRegister(r: ReservationRegister): Promise<void> {
    return this.#reserve(reservationRegisterCommand(NSID, r), r.action);
  }

  reservationAcquire(r: ReservationAcquire): Promise<void> {
    return this.#reserve(reservationAcquireCommand(NSID, r), r.action);
  }

  reservationRelease(r: ReservationRelease): Promise<void> {
    return this.#reserve(reservationReleaseCommand(NSID, r), r.action);
  }

  async reservationReport(): Promise<ReservationReport> {
    const { status, data } = await this.#control({ kind: "report" }, "report");
    if (status !== 0) throw nvmeError(status, `reservation report of ${this.name}`);
    return decodeReservationReport(data);
  }

  async vendorCommand(command: VendorCommand): Promise<Completion> {
    const { opcode, dwords = [], dataOut = new Uint8Array(0), dataInBytes = 0 } = command;
    const answer = await this.#control(
      { kind: "vendor", opcode, dwords, data: dataOut.slice(), room: dataInBytes },
      "vendor command",
    );
    return { status: answer.status, dword0: answer.dword0, dword1: 0, data: answer.data };
  }

  // -------------------------------------------------------------------------- losing and reconnecting

  #lost(reason: string): void {
    this.losses++;
    const wasEnded = this.#state === "closed" || this.#state === "gone";
    if (!wasEnded) this.#setState("reconnecting", reason);
    for (const lost of [...this.#underWay]) lost();
    if (wasEnded) return;
    if (this.#settings.controllerLossMs === 0) this.#vanish(reason);
    else this.#reconnectIn(this.#settings.reconnectDelayMs);
  }

  #reconnectIn(delayMs: number): void {
    this.#pause = this.reactor.after(delayMs, () => {
      if (this.#state !== "reconnecting") return;
      open(this.#options, this.#settings, (outcome) => {
        if (!(outcome instanceof Association)) {
          if (this.#state !== "reconnecting") return;
          this.#reconnectIn(Math.min(delayMs * 2, this.#settings.reconnectDelayMaxMs));
        } else if (this.#state !== "reconnecting") outcome.lose("no longer wanted");
        else if (outcome.facts.uuid !== this.uuid) {
          outcome.lose("another namespace");
          this.#vanish("another namespace answers under this name");
        } else {
          this.#state = "live";
          this.#adopt(outcome);
          for (const listener of [...this.#stateListeners]) listener("live", "connected again");
        }
      });
    });
  }

  reset(reason: string): void {
    this.#association.lose(reason);
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  listenLoss(listener: () => void): void {
    this.#lossListeners.push(listener);
  }

  listenState(listener: (state: NvmfState, reason: string) => void): () => void {
    this.#stateListeners.add(listener);
    return () => this.#stateListeners.delete(listener);
  }

  async close(): Promise<void> {
    if (this.#state === "closed") return;
    this.#setState("closed", "closed by its user");
    this.#pause?.cancel();
    if (this.#underWay.size > 0) await new Promise<void>((done) => this.#onIdle.push(done));
    this.#association.lose("closed by its user");
  }
}

function open(
  options: RemoteOptions,
  settings: NvmfSettings,
  ended: (outcome: Association | ConnectFailure) => void,
): void {
  const { network, process, uri, host, machineAt } = options;
  const { machine, target } = machineAt(uri.address);
  const fabricHost: FabricHost = {
    nqn: uri.hostNqn ?? host.nqn,
    id: hostIdHex(host.id),
    keepAliveMs: settings.keepAliveMs,
    keepAliveAnswerMs: Math.min(settings.keepAliveMs, settings.adminTimeoutMs),
    ioTimeoutMs: settings.ioTimeoutMs + settings.abortGraceMs,
  };
  connect(network, process, machine, target, uri.nqn, fabricHost, settings.connectTimeoutMs, ended);
}

/** Opens a namespace of another machine. Rejects as `openNvmfBdev` does. */
export function openRemoteDevice(options: RemoteOptions): Promise<NvmfBdev> {
  const settings = { ...nvmfDefaults, ...options.settings };
  return new Promise((resolve, reject) => {
    open(options, settings, (outcome) => {
      const what = `connecting to ${options.uri.nqn} at ${options.uri.address}`;
      if (!(outcome instanceof Association)) reject(failure(outcome, what));
      else if (options.uri.uuid !== undefined && outcome.facts.uuid !== options.uri.uuid) {
        outcome.lose("another namespace");
        reject(new TrilithError("Conflict", `${what}: another UUID`));
      } else if (!outcome.facts.isActive) {
        outcome.lose("no namespace");
        reject(new TrilithError("NotFound", `${what}: there is no namespace`));
      } else resolve(new RemoteDevice(options, settings, outcome));
    });
  });
}
