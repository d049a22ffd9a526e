/**
 * A namespace reached over NVMe/TCP as a block device: its state, and the associations it goes through.
 * When one is lost a new one is made, with growing pauses, until the controller loss time-out.
 */
import { IoStatus, TrilithError } from "../../../errors.ts";
import type {
  ReservationAcquire,
  ReservationRegister,
  ReservationRelease,
} from "../../../nvme/host-commands.ts";
import type { ReservationReport } from "../../../nvme/identify-decode.ts";
import { IoOp, type IoTable } from "../../reactor/io-table.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Timer } from "../../reactor/timers.ts";
import { type BdevListener, BdevListeners } from "../bdev.ts";
import { rangeStatus } from "../range.ts";
import type { NvmfUri } from "../uri.ts";
import type { Completion } from "./control-commands.ts";
import { Controller, type ControllerUser } from "./controller.ts";
import type { NvmfBdev, NvmfState, VendorCommand } from "./interface.ts";
import { canonicalUri, checkNamespace, uuidOf } from "./namespace.ts";
import type { NvmeHost, NvmfSettings } from "./options.ts";
import * as passthrough from "./passthrough.ts";
import { FLOW_BYTES, RequestFlow } from "./request-flow.ts";

export type { NvmfBdev, NvmfState, VendorCommand } from "./interface.ts";

class NvmfDevice implements NvmfBdev, ControllerUser {
  readonly driver = "nvmf" as const;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly name: string;
  readonly uri: string;
  readonly uuid: string;
  readonly reactor: Reactor;
  readonly nqn: string;
  readonly hostNqn: string;
  readonly blockSize: number;
  readonly discardZeroes: boolean;
  readonly volatileCache: boolean;
  blockCount: number;
  losses = 0;

  readonly #io: IoTable;
  readonly #flow: RequestFlow;
  readonly #settings: NvmfSettings;
  readonly #host: NvmeHost;
  readonly #parsed: NvmfUri;
  readonly #listeners = new BdevListeners();
  readonly #stateListeners = new Set<(state: NvmfState, reason: string) => void>();
  readonly #lossListeners: (() => void)[] = [];
  readonly #nsid: number;
  #state: NvmfState = "live";
  #controller: Controller;
  #discards: boolean;
  #bytes: number;
  #attempt: Controller | null = null;
  #reconnecting: Promise<void> | null = null;
  #pause: { readonly timer: Timer; readonly end: () => void } | null = null;

  constructor(
    reactor: Reactor,
    uri: NvmfUri,
    host: NvmeHost,
    settings: NvmfSettings,
    controller: Controller,
    ranges: number,
  ) {
    const facts = controller.namespace;
    this.reactor = reactor;
    this.#io = reactor.io;
    this.#flow = new RequestFlow(reactor, controller, settings, ranges);
    this.#settings = settings;
    this.#host = host;
    this.#parsed = uri;
    this.#nsid = facts.nsid;
    this.#controller = controller;
    this.#discards = controller.identity.supportsDatasetManagement;
    this.nqn = uri.nqn;
    this.hostNqn = host.nqn;
    this.name = `${uri.address}:${uri.port}/${uri.nqn}n${facts.nsid}`;
    this.uuid = uuidOf(facts, uri.nqn);
    this.uri = canonicalUri(uri, this.uuid);
    this.blockSize = facts.blockSize;
    this.blockCount = facts.blockCount;
    this.#bytes = facts.blockCount * facts.blockSize;
    this.discardZeroes = facts.deallocatedReadsZero;
    this.volatileCache = controller.identity.volatileCache;
    controller.attach(this.#flow, this);
    this.namespaceRead();
  }

  get state(): NvmfState {
    return this.#state;
  }

  submit(slot: number): void {
    const io = this.#io;
    let status: IoStatus = rangeStatus(io, slot, this.#bytes, this.blockSize);
    if (status === IoStatus.OK) {
      if (this.#state !== "live") status = this.#statusOffline();
      else {
        const op = io.op[slot]!;
        const isFormality =
          (op === IoOp.FLUSH && !this.volatileCache) || (op === IoOp.DISCARD && !this.#discards);
        if (isFormality) {
          io.complete(slot, IoStatus.OK);
          return;
        }
      }
    }
    if (status === IoStatus.OK) this.#flow.submit(slot);
    else io.complete(slot, status);
  }

  /** What a request ends with now, or OK when it is to wait for the reconnect. */
  #statusOffline(): IoStatus {
    if (this.#state === "gone" || this.#state === "closed") return IoStatus.DEVICE_GONE;
    if (this.#state === "reconnecting" && this.#settings.onLoss === "retry") return IoStatus.OK;
    return IoStatus.UNAVAILABLE;
  }

  // ------------------------------------------------------------------ losing and reconnecting

  #setState(state: NvmfState, reason: string): void {
    if (this.#state === state || this.#state === "closed") return;
    this.#state = state;
    this.#settings.log(
      state === "live" || state === "closed" ? "info" : "warn",
      `${this.name}: ${state} (${reason})`,
    );
    for (const listener of [...this.#stateListeners]) listener(state, reason);
  }

  controllerLost(reason: string): void {
    this.losses++;
    this.#flow.suspend();
    if (this.#state === "closed" || this.#state === "gone") {
      this.#flow.failWaiting(IoStatus.DEVICE_GONE);
      return;
    }
    this.#setState("reconnecting", reason);
    if (this.#settings.onLoss === "fail") this.#flow.failWaiting(IoStatus.UNAVAILABLE);
    else this.#flow.requeueLost();
    if (this.#reconnecting === null) {
      this.#reconnecting = this.#reconnect(reason).finally(() => {
        this.#reconnecting = null;
      });
    }
  }

  async #reconnect(reason: string): Promise<void> {
    const { reconnectDelayMs, reconnectDelayMaxMs, controllerLossMs } = this.#settings;
    const untilNs = this.reactor.now + controllerLossMs * 1e6;
    let delayMs = reconnectDelayMs;
    let lastReason = reason;
    while (this.#state === "reconnecting") {
      const leftMs = (untilNs - this.reactor.now) / 1e6;
      if (leftMs <= 0) {
        this.#vanish(`no connection for ${controllerLossMs} ms: ${lastReason}`);
        return;
      }
      await this.#sleep(Math.min(delayMs, leftMs));
      if (this.#state !== "reconnecting") return;
      delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs);
      const controller = makeController(this.reactor, this.#parsed, this.#host, this.#settings);
      this.#attempt = controller;
      try {
        await controller.open();
      } catch (error) {
        lastReason = error instanceof Error ? error.message : String(error);
        this.#settings.log("warn", `${this.name}: ${lastReason}`);
        continue;
      } finally {
        this.#attempt = null;
      }
      this.#resumeWith(controller);
    }
  }

  /** Goes on with a new association, if it leads to the same namespace. */
  #resumeWith(controller: Controller): void {
    if (controller.ending) return;
    if (this.#state !== "reconnecting") {
      controller.lose("no longer wanted");
      return;
    }
    const facts = controller.namespace;
    const isSame =
      facts.nsid === this.#nsid &&
      uuidOf(facts, this.nqn) === this.uuid &&
      facts.blockSize === this.blockSize &&
      facts.metadataBytes === 0;
    if (!isSame) {
      this.#vanish("another namespace answers under this name");
      controller.lose("another namespace");
      return;
    }
    this.#controller = controller;
    this.#discards = controller.identity.supportsDatasetManagement;
    controller.attach(this.#flow, this);
    this.#flow.begin(controller);
    this.#setState("live", "connected again");
    this.namespaceRead();
    this.#flow.pump();
  }

  namespaceRead(): void {
    const { namespace, accessible } = this.#controller;
    if (this.#state !== "live" && this.#state !== "inaccessible") return;
    if (namespace.blockCount === 0 || uuidOf(namespace, this.nqn) !== this.uuid) {
      this.#vanish("the namespace was removed or replaced");
      return;
    }
    if (namespace.blockCount !== this.blockCount) {
      this.blockCount = namespace.blockCount;
      this.#bytes = namespace.blockCount * this.blockSize;
      this.#listeners.tell({ kind: "resized", blockCount: this.blockCount });
    }
    this.#setState(accessible ? "live" : "inaccessible", "ANA state");
  }

  /** The device is lost for good. What is in flight or waits ends with the association. */
  #vanish(reason: string): void {
    this.#setState("gone", reason);
    if (this.#controller.ending) this.#flow.failWaiting(IoStatus.DEVICE_GONE);
    else this.#controller.lose(reason);
    this.#listeners.tell({ kind: "removed", reason });
  }

  /** A pause that `close` can end early. */
  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        this.#pause = null;
        resolve();
      };
      this.#pause = { timer: this.reactor.after(delayMs, end), end };
    });
  }

  reset(reason: string): void {
    this.#controller.lose(reason);
  }

  // -------------------------------------------------------------------------------- control

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  listenLoss(listener: () => void): void {
    this.#lossListeners.push(listener);
  }

  controllerClosing(): void {
    for (const listener of this.#lossListeners) listener();
  }

  listenState(listener: (state: NvmfState, reason: string) => void): () => void {
    this.#stateListeners.add(listener);
    return () => {
      this.#stateListeners.delete(listener);
    };
  }

  reservationRegister(r: ReservationRegister): Promise<void> {
    return passthrough.reservationRegister(this.#controller, this.#nsid, this.name, r);
  }

  reservationAcquire(r: ReservationAcquire): Promise<void> {
    return passthrough.reservationAcquire(this.#controller, this.#nsid, this.name, r);
  }

  reservationRelease(r: ReservationRelease): Promise<void> {
    return passthrough.reservationRelease(this.#controller, this.#nsid, this.name, r);
  }

  reservationReport(): Promise<ReservationReport> {
    return passthrough.reservationReport(this.#controller, this.#nsid, this.name);
  }

  vendorCommand(command: VendorCommand): Promise<Completion> {
    return passthrough.vendorCommand(this.#controller, this.#nsid, this.name, command);
  }

  async close(): Promise<void> {
    if (this.#state === "closed") return;
    const wasConnected = this.#state === "live" || this.#state === "inaccessible";
    this.#setState("closed", "closed by its user");
    this.#pause?.timer.cancel();
    this.#pause?.end();
    this.#attempt?.lose("the device is being closed");
    if (!wasConnected) this.#flow.failWaiting(IoStatus.DEVICE_GONE);
    if (this.#flow.outstanding > 0) {
      await new Promise<void>((resolve) => {
        this.#flow.onDrained = resolve;
      });
    }
    await this.#reconnecting;
    await this.#controller.shutdown();
    this.#flow.close();
  }
}

function makeController(
  reactor: Reactor,
  uri: NvmfUri,
  host: NvmeHost,
  settings: NvmfSettings,
): Controller {
  const target = { ...uri, queues: uri.queues ?? settings.queues };
  return new Controller(reactor, target, host, settings);
}

/**
 * Connects to the namespace that the URI names. Rejects with what the first attempt met:
 * `InvalidArgument`, `Unavailable`, `Timeout`, `PermissionDenied`, `NotFound`, `Conflict` (another
 * UUID), `Unimplemented` (block format), `ResourceExhausted` (no memory or descriptors).
 */
export async function openNvmfBdev(
  reactor: Reactor,
  uri: NvmfUri,
  host: NvmeHost,
  settings: NvmfSettings,
): Promise<NvmfBdev> {
  const controller = makeController(reactor, uri, host, settings);
  await controller.open();
  try {
    checkNamespace(controller.namespace, uri);
    const ranges = reactor.arena.alloc(FLOW_BYTES, 0);
    if (ranges < 0) throw new TrilithError("ResourceExhausted", "the reactor's arena is full");
    return new NvmfDevice(reactor, uri, host, settings, controller, ranges);
  } catch (error) {
    await controller.shutdown();
    throw error;
  }
}
