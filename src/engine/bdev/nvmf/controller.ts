/**
 * One association with a controller: its admin queue, its I/O queues, what it said of itself, and
 * the watch over it (keep-alive, command time-outs, asynchronous events). It lives from Connect
 * until the first of its connections ends; reconnecting makes a new one.
 */
import { closeFd } from "../../../../ffi/index.ts";
import { assert } from "../../../assert.ts";
import { TrilithError } from "../../../errors.ts";
import { AnaState, Property, Status } from "../../../nvme/constants.ts";
import {
  ANA_LOG_GROUPS_ONLY,
  AsyncNotice,
  abortCommand,
  asyncEventRequestCommand,
  CNTLID_DYNAMIC,
  connectCommand,
  connectData,
  decodeAsyncEvent,
  Feature,
  getFeaturesCommand,
  getLogPageCommand,
  IdentifyCns,
  identifyCommand,
  keepAliveCommand,
  LogPage,
  NSID_ALL,
  propertyGetCommand,
  propertySetCommand,
  type SqeWords,
  setFeaturesCommand,
} from "../../../nvme/host-commands.ts";
import {
  anaLogBytes,
  type ControllerIdentity,
  decodeActiveNamespaces,
  decodeAnaLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceDescriptors,
  decodeNvmLimits,
  type NamespaceIdentity,
  type NvmLimits,
  uuidBytes,
} from "../../../nvme/identify-decode.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Timer } from "../../reactor/timers.ts";
import { CommandState } from "./command-table.ts";
import { type Connecting, connectTcp } from "./connect.ts";
import { type Completion, ControlCommands, type ControlData } from "./control-commands.ts";
import {
  ADMIN_DEPTH,
  ADMIN_IN_CAPSULE_BYTES,
  ANA_GROUPS_MAX,
  READY_POLL_MS,
  READY_TIMEOUT_MS_MIN,
  SHUTDOWN_TIMEOUT_MS,
  TIMEOUT_SCAN_MS_MAX,
  TIMEOUT_SCAN_MS_MIN,
  TIMEOUT_SCAN_SHARE,
} from "./limits.ts";
import type { NvmeHost, NvmfSettings } from "./options.ts";
import { QueuePair, type QueueUser } from "./queue-pair.ts";
import { connectError, nvmeError, STATUS_CODE_MASK } from "./status.ts";

const IDENTIFY_BYTES = 4096;
const CSTS_READY = 1;
const CSTS_FATAL = 2;
const CC_ENABLE = 1;
const CC_SHUTDOWN_NORMAL = 1 << 14;
/** I/O queue entry sizes as CC wants them: 2^6 and 2^4 bytes. */
const CC_ENTRY_SIZES = (6 << 16) | (4 << 20);

/** Where a controller is and how it is spoken to. */
export interface ControllerTarget {
  readonly address: string;
  readonly port: number;
  readonly nqn: string;
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  readonly queues: number;
}

/** What a namespace turned out to be. */
export interface NamespaceFacts extends NamespaceIdentity {
  readonly nsid: number;
  /** From its descriptors; undefined when it carries none. */
  readonly uuid: string | undefined;
}

/** The way of I/O commands above; their tags are request slots. */
export interface ControllerIo {
  /** An I/O command has ended; `status` is SCT << 8 | SC with DNR in bit 14. */
  ioDone(slot: number, status: number): void;
  /** An I/O command was lost. `timedOut`: it was being aborted when the connection ended. */
  ioLost(slot: number, timedOut: boolean): void;
  /** I/O commands may be started that could not before. */
  ioRoom(): void;
}

/** The device above. */
export interface ControllerUser {
  /** After an asynchronous event: the namespace or its ANA state has been read again. */
  namespaceRead(): void;
  /** The association is being given up: no connection has been shut down from this side yet. */
  controllerClosing(): void;
  /** The association is over: every connection is closed, every command was told of. */
  controllerLost(reason: string): void;
}

export class Controller implements QueueUser {
  readonly target: ControllerTarget;
  /** I/O queues, open ones. */
  readonly queues: QueuePair[] = [];
  /** Set while time-outs are watched: to be looked at, and `watch` called, after a start. */
  watching = false;
  /** Set once the association is being given up. */
  ending = false;

  readonly #reactor: Reactor;
  readonly #host: NvmeHost;
  readonly #settings: NvmfSettings;
  readonly #control: ControlCommands;
  readonly #all = new Set<QueuePair>();
  #io: ControllerIo | null = null;
  #user: ControllerUser | null = null;
  #admin: QueuePair | null = null;
  #connecting: Connecting | null = null;
  #lostReason = "";
  #told = false;
  #aborts = 0;
  /** The keep-alive time-out in force: what was asked for, or what the controller made of it. */
  #keepAliveMs: number;
  #keepAliveTimer: Timer | null = null;
  #scanTimer: Timer | null = null;
  #onNegotiated: ((failure: string | null) => void) | null = null;
  #onAllClosed: (() => void) | null = null;
  #controllerId = CNTLID_DYNAMIC;
  #configuration = 0;
  #queueEntriesMax = 0;
  #identity: ControllerIdentity | null = null;
  #namespace: NamespaceFacts | null = null;
  /** ANA state of the namespace; OPTIMIZED when none is reported. */
  anaState: number = AnaState.OPTIMIZED;
  /** Smallest page of the controller: the unit of its limits. */
  pageBytes = 4096;
  /** Largest transfer of one command in bytes. */
  transferBytes = 0;
  limits: NvmLimits = { writeZeroesSize: 0, dsmRangeBlocks: 0 };

  constructor(reactor: Reactor, target: ControllerTarget, host: NvmeHost, settings: NvmfSettings) {
    this.#reactor = reactor;
    this.target = target;
    this.#host = host;
    this.#settings = settings;
    this.#keepAliveMs = settings.keepAliveMs;
    this.#control = new ControlCommands(reactor, () => {
      if (!this.watching) this.watch();
    });
  }

  /** Who I/O and news are for, from now on: to be called in the turn in which `open` resolves. */
  attach(io: ControllerIo, user: ControllerUser): void {
    assert(!this.ending, "an association is taken over while it lasts");
    this.#io = io;
    this.#user = user;
  }

  get identity(): ControllerIdentity {
    assert(this.#identity !== null, "an opened controller has identified itself");
    return this.#identity;
  }

  get namespace(): NamespaceFacts {
    assert(this.#namespace !== null, "an opened controller has named its namespace");
    return this.#namespace;
  }

  /** True when the namespace's ANA state lets commands through. */
  get accessible(): boolean {
    return this.anaState === AnaState.OPTIMIZED || this.anaState === AnaState.NON_OPTIMIZED;
  }

  // -------------------------------------------------------------------------------- opening

  /**
   * Connects, enables and identifies the controller and opens its I/O queues. Rejects with
   * `Unavailable`, `Timeout`, `PermissionDenied`, `NotFound`, `InvalidArgument` or `Unimplemented`;
   * everything is closed then, and `controllerLost` is not called.
   */
  async open(): Promise<void> {
    try {
      await this.#openAdmin();
      await this.#enable();
      await this.#identify();
      await this.#openQueues();
      // The last answer and the end of a connection may come in one turn.
      if (this.ending) throw new TrilithError("Unavailable", this.#lostReason);
      this.#watchEvents();
    } catch (error) {
      this.#told = true;
      this.lose(error instanceof Error ? error.message : String(error));
      await this.#allClosed();
      throw error;
    }
  }

  #what(command: string): string {
    return `${command} to ${this.target.nqn} at ${this.target.address}:${this.target.port}`;
  }

  async #openAdmin(): Promise<void> {
    const admin = await this.#openConnection(0, ADMIN_DEPTH, ADMIN_IN_CAPSULE_BYTES);
    this.#admin = admin;
    const { dword0 } = await this.#connect(admin, ADMIN_DEPTH + 1, CNTLID_DYNAMIC);
    this.#controllerId = dword0 & 0xffff;
    if (dword0 >>> 16 !== 0) {
      throw new TrilithError(
        "PermissionDenied",
        `${this.#what("connection")}: authentication is required`,
        "publish it without a secret",
      );
    }
  }

  /** TCP connection and negotiation of one queue. */
  async #openConnection(id: number, depth: number, inCapsuleBytes: number): Promise<QueuePair> {
    const { address, port } = this.target;
    const { connectTimeoutMs } = this.#settings;
    const attempt = connectTcp(this.#reactor, { address, port }, connectTimeoutMs);
    this.#connecting = attempt;
    const fd = await attempt.done;
    this.#connecting = null;
    if (this.ending) {
      closeFd(fd);
      throw new TrilithError("Aborted", `${this.#what("connection")} was given up`);
    }
    const queue = new QueuePair(this.#reactor, fd, id, depth, inCapsuleBytes, this.target, this);
    this.#all.add(queue);
    await new Promise<void>((resolve, reject) => {
      const timer = this.#reactor.after(connectTimeoutMs, () => {
        queue.close("no answer to the negotiation");
      });
      this.#onNegotiated = (reason) => {
        this.#onNegotiated = null;
        timer.cancel();
        if (reason === null) resolve();
        else {
          const code = reason.startsWith("no answer") ? "Timeout" : "Unavailable";
          reject(new TrilithError(code, `${this.#what("connection")} failed: ${reason}`));
        }
      };
      if (!queue.negotiate(() => this.#onNegotiated?.(null))) queue.close("no memory is free");
    });
    return queue;
  }

  /** The Connect command of one queue (Base 2.0, 6.3). */
  async #connect(queue: QueuePair, entries: number, controllerId: number): Promise<Completion> {
    const { keepAliveMs, adminTimeoutMs } = this.#settings;
    const data = connectData({
      hostId: uuidBytes(this.#host.id),
      hostNqn: this.#host.nqn,
      subsystemNqn: this.target.nqn,
      controllerId,
    });
    const sqe = connectCommand(queue.id, entries, queue.id === 0 ? keepAliveMs : 0);
    const done = await this.#control.run(queue, sqe, { data, timeoutMs: adminTimeoutMs });
    if (done.status !== 0) {
      throw connectError(done.status, done.dword0, this.#what("connection"));
    }
    return done;
  }

  /** Enables the controller and waits until it is ready (Base 2.0, 3.5.1). */
  async #enable(): Promise<void> {
    const cap = await this.#run(propertyGetCommand(Property.CAP, 8), "Property Get");
    const timeoutMs = Math.max((cap.dword0 >>> 24) * 500, READY_TIMEOUT_MS_MIN);
    const pageShift = (cap.dword1 >>> 16) & 15;
    const hasNvmSet = ((cap.dword1 >>> 5) & 1) !== 0;
    this.#queueEntriesMax = cap.dword0 & 0xffff;
    this.pageBytes = 4096 << pageShift;
    const commandSets = hasNvmSet ? 0 : 6;
    this.#configuration = CC_ENABLE | (commandSets << 4) | (pageShift << 7) | CC_ENTRY_SIZES;
    await this.#run(propertySetCommand(Property.CC, this.#configuration), "Property Set");
    const untilNs = this.#reactor.now + timeoutMs * 1e6;
    for (;;) {
      const { dword0 } = await this.#run(propertyGetCommand(Property.CSTS, 4), "Property Get");
      if ((dword0 & CSTS_FATAL) !== 0) {
        throw new TrilithError("Unavailable", `${this.#what("enabling")}: controller fatal status`);
      }
      if ((dword0 & CSTS_READY) !== 0) return;
      if (this.#reactor.now >= untilNs) {
        throw new TrilithError(
          "Timeout",
          `${this.#what("enabling")}: not ready in ${timeoutMs} ms`,
        );
      }
      await this.#reactor.sleep(READY_POLL_MS);
    }
  }

  async #identify(): Promise<void> {
    const sqe = identifyCommand(IdentifyCns.CONTROLLER, 0);
    const { data } = await this.#run(sqe, "Identify", { receiveBytes: IDENTIFY_BYTES });
    const identity = decodeIdentifyController(data);
    this.#identity = identity;
    const byMdts = identity.mdts === 0 ? Number.POSITIVE_INFINITY : 2 ** identity.mdts;
    this.transferBytes = byMdts * this.pageBytes;
    const limits = await this.command(identifyCommand(IdentifyCns.COMMAND_SET_CONTROLLER, 0), {
      receiveBytes: IDENTIFY_BYTES,
    });
    if (limits.status === 0) this.limits = decodeNvmLimits(limits.data);
    const notices =
      identity.asyncEvents & (AsyncNotice.NAMESPACE_ATTRIBUTE | AsyncNotice.ANA_CHANGE);
    if (notices !== 0) {
      const set = setFeaturesCommand(Feature.ASYNC_EVENT_CONFIGURATION, notices);
      await this.#run(set, "Set Features (async events)");
    }
    const granted = await this.command(getFeaturesCommand(Feature.KEEP_ALIVE_TIMER));
    if (granted.status === 0 && granted.dword0 > 0) this.#keepAliveMs = granted.dword0;
    await this.readNamespace(await this.#findNamespace());
    if (this.namespace.blockCount === 0) {
      throw new TrilithError(
        "NotFound",
        `${this.#what("connection")}: the namespace is not active`,
      );
    }
  }

  /** Namespace 1 when it is active, else the first active one. */
  async #findNamespace(): Promise<number> {
    const sqe = identifyCommand(IdentifyCns.ACTIVE_NAMESPACES, 0);
    const { data } = await this.#run(sqe, "Identify", { receiveBytes: IDENTIFY_BYTES });
    const active = decodeActiveNamespaces(data);
    const nsid = active.includes(1) ? 1 : active[0];
    if (nsid === undefined) {
      throw new TrilithError("NotFound", `${this.#what("connection")}: there is no namespace`);
    }
    return nsid;
  }

  /** Reads size, format, identifiers and ANA state of the namespace. */
  async readNamespace(nsid: number): Promise<void> {
    const receive = { receiveBytes: IDENTIFY_BYTES };
    const first = await this.command(identifyCommand(IdentifyCns.NAMESPACE, nsid), receive);
    // A namespace that is gone is invalid, or reads as one of size 0: zeroes stand for both.
    if ((first.status & STATUS_CODE_MASK) === Status.INVALID_NAMESPACE) first.data.fill(0);
    else if (first.status !== 0) throw nvmeError(first.status, this.#what("Identify"));
    const facts = decodeIdentifyNamespace(first.data);
    if (facts.blockCount === 0) {
      this.#namespace = { ...facts, nsid, uuid: undefined };
      return;
    }
    const second = await this.command(
      identifyCommand(IdentifyCns.NAMESPACE_DESCRIPTORS, nsid),
      receive,
    );
    // Only "I do not know this" means that there are none: a namespace must not lose its name
    // because its answer did.
    const code = second.status & STATUS_CODE_MASK;
    if (code !== 0 && code !== Status.INVALID_FIELD && code !== Status.INVALID_OPCODE) {
      throw nvmeError(second.status, this.#what("Identify (descriptors)"));
    }
    const ids = code === 0 ? decodeNamespaceDescriptors(second.data) : undefined;
    const nguid = facts.nguid ?? ids?.nguid;
    this.#namespace = { ...facts, nguid, nsid, uuid: ids?.uuid };
    if (this.identity.reportsAna) await this.readAna();
  }

  /** Reads the ANA log page and takes over the state of the namespace's group. */
  async readAna(): Promise<void> {
    const groups = Math.min(this.identity.anaGroups, ANA_GROUPS_MAX);
    const bytes = anaLogBytes(groups);
    const sqe = getLogPageCommand(LogPage.ANA, NSID_ALL, bytes, ANA_LOG_GROUPS_ONLY);
    const { data } = await this.#run(sqe, "Get Log Page (ANA)", { receiveBytes: bytes });
    this.anaState = decodeAnaLog(data).get(this.namespace.anaGroup) ?? AnaState.OPTIMIZED;
  }

  async #openQueues(): Promise<void> {
    const wanted = this.target.queues;
    const number = (wanted - 1) | ((wanted - 1) << 16);
    const set = setFeaturesCommand(Feature.NUMBER_OF_QUEUES, number);
    const { dword0 } = await this.#run(set, "Set Features (number of queues)");
    const granted = Math.min(dword0 & 0xffff, dword0 >>> 16) + 1;
    const count = Math.min(wanted, granted);
    const depth = Math.max(1, Math.min(this.#settings.queueDepth, this.#queueEntriesMax));
    for (let id = 1; id <= count; id++) {
      // Connect's own data travels in the capsule, whatever I/O commands may have there.
      const queue = await this.#openConnection(id, depth, ADMIN_IN_CAPSULE_BYTES);
      await this.#connect(queue, depth + 1, this.#controllerId);
      queue.inCapsuleBytes = this.identity.inCapsuleBytes;
      this.queues.push(queue);
    }
  }

  // ------------------------------------------------------------------------------- commands

  /** An admin command by promise, whatever its status. */
  command(sqe: SqeWords, data: Omit<ControlData, "timeoutMs"> = {}): Promise<Completion> {
    const admin = this.#admin;
    if (admin === null) return Promise.reject(new TrilithError("Unavailable", "not connected"));
    return this.#control.run(admin, sqe, { ...data, timeoutMs: this.#settings.adminTimeoutMs });
  }

  /** A command on an I/O queue by promise, whatever its status. */
  ioCommand(sqe: SqeWords, data: Omit<ControlData, "timeoutMs"> = {}): Promise<Completion> {
    const queue = this.queues[0];
    if (queue === undefined)
      return Promise.reject(new TrilithError("Unavailable", "not connected"));
    return this.#control.run(queue, sqe, { ...data, timeoutMs: this.#settings.ioTimeoutMs });
  }

  /** An admin command that has to succeed. */
  async #run(
    sqe: SqeWords,
    name: string,
    data: Omit<ControlData, "timeoutMs"> = {},
  ): Promise<Completion> {
    const done = await this.command(sqe, data);
    if (done.status !== 0) throw nvmeError(done.status, this.#what(name));
    return done;
  }

  commandDone(queue: QueuePair, tag: number, status: number): void {
    if (tag < 0) this.#control.done(queue, tag, status);
    else this.#io!.ioDone(tag, status);
    if (this.#control.waiting) this.#control.room(queue);
  }

  commandLost(_queue: QueuePair, tag: number, wasAborting: boolean): void {
    if (tag < 0) this.#control.lost(tag, `${this.#what("command")} was lost: ${this.#lostReason}`);
    else this.#io!.ioLost(tag, wasAborting);
  }

  queueRoom(queue: QueuePair): void {
    if (this.#control.waiting) this.#control.room(queue);
    if (queue.id > 0) this.#io?.ioRoom();
  }

  // ------------------------------------------------------------------------------- the watch

  #watchEvents(): void {
    this.#scheduleKeepAlive();
    // What could not be read again is read after a reconnect. Without effect once all is over.
    this.#listenForEvents().catch((error: unknown) => {
      this.lose(error instanceof Error ? error.message : String(error));
    });
  }

  #scheduleKeepAlive(): void {
    if (this.#settings.keepAliveMs === 0) return;
    this.#keepAliveTimer = this.#reactor.after(this.#keepAliveMs / 2, () => {
      this.#keepAlive().catch(() => {}); // As above.
    });
  }

  async #keepAlive(): Promise<void> {
    if (this.ending || this.#admin === null) return;
    const timeoutMs = Math.min(this.#keepAliveMs, this.#settings.adminTimeoutMs);
    const done = await this.#control.run(this.#admin, keepAliveCommand(), { timeoutMs });
    if (done.status !== 0) this.lose(nvmeError(done.status, "Keep Alive").message);
    else if (!this.ending) this.#scheduleKeepAlive();
  }

  /** Keeps one Asynchronous Event Request outstanding and acts on what it brings. */
  async #listenForEvents(): Promise<void> {
    while (!this.ending && this.#admin !== null) {
      const forever = { timeoutMs: Number.POSITIVE_INFINITY };
      const done = await this.#control.run(this.#admin, asyncEventRequestCommand(), forever);
      if (done.status !== 0) return; // The controller has no events for us.
      const event = decodeAsyncEvent(done.dword0);
      if (event.kind === "namespace-changed") {
        const page = getLogPageCommand(LogPage.CHANGED_NAMESPACES, NSID_ALL, IDENTIFY_BYTES);
        await this.command(page, { receiveBytes: IDENTIFY_BYTES });
        await this.readNamespace(this.namespace.nsid);
        this.#user?.namespaceRead();
      } else if (event.kind === "ana-changed") {
        await this.readAna();
        this.#user?.namespaceRead();
      }
    }
  }

  /** Looks for commands out of time, now and then, until none is in flight. */
  watch(): void {
    const { ioTimeoutMs, adminTimeoutMs, abortGraceMs } = this.#settings;
    const shortest = Math.min(ioTimeoutMs, adminTimeoutMs, abortGraceMs) / TIMEOUT_SCAN_SHARE;
    const delayMs = Math.min(Math.max(shortest, TIMEOUT_SCAN_MS_MIN), TIMEOUT_SCAN_MS_MAX);
    this.watching = true;
    this.#scanTimer = this.#reactor.after(delayMs, () => {
      this.watching = false;
      if (this.#scan() && !this.ending) this.watch();
    });
  }

  /** Deals with commands out of time; returns whether any command with a limit is in flight. */
  #scan(): boolean {
    const nowNs = this.#reactor.now;
    let any = false;
    for (const queue of this.#all) {
      const { state, deadlineNs, depth } = queue.commands;
      for (let index = 0; index < depth; index++) {
        if (state[index] !== CommandState.ACTIVE && state[index] !== CommandState.ABORTING)
          continue;
        if (deadlineNs[index] === Number.POSITIVE_INFINITY) continue;
        any = true;
        if (deadlineNs[index]! <= nowNs) this.#expire(queue, index);
        if (this.ending) return false;
      }
    }
    return any;
  }

  #expire(queue: QueuePair, index: number): void {
    const { state, deadlineNs, cid } = queue.commands;
    const { abortGraceMs, adminTimeoutMs } = this.#settings;
    if (queue.id === 0) {
      this.lose("an admin command timed out");
      return;
    }
    if (state[index] === CommandState.ABORTING) {
      this.lose("a command timed out and could not be aborted");
      return;
    }
    state[index] = CommandState.ABORTING;
    deadlineNs[index] = this.#reactor.now + abortGraceMs * 1e6;
    if (this.#aborts >= this.identity.abortLimit || this.#admin === null) return;
    this.#aborts++;
    const sqe = abortCommand(queue.id, cid[index]!);
    this.#control
      .run(this.#admin, sqe, { timeoutMs: adminTimeoutMs })
      .catch(() => {}) // Lost with the association, whose end is told of.
      .finally(() => this.#aborts--);
  }

  // ------------------------------------------------------------------------------------ end

  /** Gives the association up: closes every connection. `controllerLost` follows. */
  lose(reason: string): void {
    if (this.ending) return;
    this.ending = true;
    this.#lostReason = reason;
    this.#keepAliveTimer?.cancel();
    this.#scanTimer?.cancel();
    this.#connecting?.cancel();
    for (const queue of [...this.#all]) queue.close(reason);
    this.#tellLost();
  }

  queueClosing(): void {
    this.#user?.controllerClosing();
  }

  queueClosed(queue: QueuePair, reason: string): void {
    this.#all.delete(queue);
    this.#control.closed(queue, reason);
    this.#onNegotiated?.(reason);
    this.lose(reason);
    this.#tellLost();
  }

  async #allClosed(): Promise<void> {
    if (this.#all.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#onAllClosed = resolve;
    });
  }

  #tellLost(): void {
    if (!this.ending || this.#all.size > 0) return;
    this.#onAllClosed?.();
    if (this.#told) return;
    this.#told = true;
    this.#user?.controllerLost(this.#lostReason);
  }

  /** Shuts the controller down in order (Base 2.0, 3.6.1), then closes; bounded in time. */
  async shutdown(): Promise<void> {
    const untilNs = this.#reactor.now + SHUTDOWN_TIMEOUT_MS * 1e6;
    const timer = this.#reactor.after(SHUTDOWN_TIMEOUT_MS, () => this.lose("shut down"));
    try {
      const configuration = this.#configuration | CC_SHUTDOWN_NORMAL;
      await this.command(propertySetCommand(Property.CC, configuration));
      while (this.#reactor.now < untilNs) {
        const { dword0 } = await this.command(propertyGetCommand(Property.CSTS, 4));
        const SHUTDOWN_COMPLETE = 2;
        if (((dword0 >>> 2) & 3) === SHUTDOWN_COMPLETE) break;
        await this.#reactor.sleep(READY_POLL_MS);
      }
    } catch {
      // The connection ended first: what was wanted.
    }
    timer.cancel();
    this.lose("shut down");
    await this.#allClosed();
  }
}
