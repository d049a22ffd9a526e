/**
 * A nexus: the mirror of one volume, as a block device over its children (DESIGN 6). This is its
 * face: the block device that targets serve, and what the engine's RPC can do with it.
 */
import { IoStatus, TrilithError } from "../../errors.ts";
import { type Bdev, type BdevListener, BdevListeners, bdevBytes } from "../bdev/bdev.ts";
import { rangeStatus } from "../bdev/range.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { Child } from "./child.ts";
import { deviceIo, sameBytes, takeBuffer } from "./child-io.ts";
import { type NexusContext, NexusCore, type NexusIdentity } from "./core.ts";
import { IoPath, type NexusControl } from "./io-path.ts";
import { CHILDREN_MAX, REGION_BYTES, SEGMENT_BYTES_MAX } from "./limits.ts";
import { Membership } from "./membership.ts";
import type { RebuildRecord } from "./rebuild.ts";
import { Rebuilds } from "./rebuilds.ts";
import { Regions } from "./regions.ts";
import { bitsOf } from "./replica-link.ts";
import type { ScrubRecord } from "./scrub-record.ts";
import { Scrubs } from "./scrubs.ts";
import type { ChildReason, ChildState, NexusState } from "./states.ts";
import { WriteIntent } from "./write-intent.ts";

/** A child as it is reported. */
export interface ChildInfo {
  readonly uri: string;
  readonly state: ChildState;
  readonly reason: ChildReason;
  readonly isLocal: boolean;
  /** Being rebuilt now. */
  readonly rebuild: RebuildRecord | undefined;
}

/** A nexus as it is reported. */
export interface NexusInfo {
  readonly name: string;
  readonly uuid: string;
  readonly volumeUuid: string;
  readonly epoch: number;
  readonly generation: number;
  readonly sizeBytes: number;
  readonly blockSize: number;
  readonly state: NexusState;
  readonly children: readonly ChildInfo[];
  readonly dirtyRegions: number;
  /** Host requests that wait for something other than a disk. */
  readonly waitingRequests: number;
  readonly isPaused: boolean;
  readonly wantedChildren: number;
  /** The scrub that runs, or the last one. */
  readonly scrub: ScrubRecord | undefined;
}

export class Nexus implements Bdev, NexusControl {
  readonly driver = "nexus";
  readonly synchronous = false;
  readonly discardZeroes = false;
  readonly volatileCache = true;
  readonly core: NexusCore;
  readonly rebuilds: Rebuilds;
  readonly scrubs: Scrubs;
  readonly membership: Membership;
  readonly intent: WriteIntent;
  readonly #io: IoPath;
  #refused: { offset: number; length: number }[] = [];
  #reconciling = false;
  #bytes: number;

  constructor(
    context: NexusContext,
    identity: NexusIdentity,
    shape: { blockSize: number; sizeBytes: number },
  ) {
    const regions = new Regions(shape.sizeBytes);
    this.core = new NexusCore(context, identity, shape, regions, new BdevListeners());
    this.#io = new IoPath(context.reactor, context.requests, regions, this);
    this.core.io = this.#io;
    this.#bytes = shape.sizeBytes;
    this.membership = new Membership(this.core, () => this.intent, {
      childLost: (child) => this.rebuilds.childLost(child),
      childrenWaiting: () => this.resyncConsistent(),
    });
    this.intent = new WriteIntent(this.core, {
      childFailed: (index, status) => this.membership.childFailed(index, status),
      superseded: (reason) => this.membership.supersede(reason),
    });
    this.scrubs = new Scrubs(this.core, {
      childFailed: (index, status) => this.membership.childFailed(index, status),
      superseded: (reason) => this.membership.supersede(reason),
      isReconciling: () => this.#reconciling,
    });
    this.rebuilds = new Rebuilds(this.core, this.membership, this.scrubs);
  }

  // --------------------------------------------------------------------------- the block device

  get name(): string {
    return this.core.identity.name;
  }

  get uri(): string {
    return `nexus:///${this.name}?uuid=${this.core.identity.uuid}`;
  }

  /** A namespace over a nexus is the volume, whichever nexus serves it. */
  get uuid(): string {
    return this.core.identity.volumeUuid;
  }

  get reactor(): Reactor {
    return this.core.reactor;
  }

  get blockSize(): number {
    return this.core.blockSize;
  }

  get blockCount(): number {
    return this.#bytes / this.core.blockSize;
  }

  get slotsPerIo(): number {
    let slots = 0;
    for (const bdev of this.#io.bdevs) if (bdev != null) slots += 1 + bdev.slotsPerIo;
    return slots;
  }

  submit(slot: number): void {
    const status = rangeStatus(this.#io.io, slot, this.#bytes, this.core.blockSize);
    if (status === IoStatus.OK) this.#io.submit(slot);
    else this.#io.io.complete(slot, status);
  }

  listen(listener: BdevListener): () => void {
    return this.core.listeners.add(listener);
  }

  // ---------------------------------------------------------------------- what the I/O path asks

  childFailed(index: number, status: number): void {
    this.membership.childFailed(index, status);
  }

  regionsWanted(): void {
    this.intent.mark();
  }

  /** Ends what hosts wait for, and sends them away, until the loss of a child is recorded. */
  turnAway(): void {
    this.#io.turnAway();
  }

  leaseWanted(): void {
    this.membership.lease.renew();
  }

  superseded(): void {
    this.membership.supersede("a child is reserved by a newer nexus");
  }

  writeRefused(offset: number, length: number): void {
    if (this.core.present().filter((child) => child.device !== null).length < 2) return;
    this.#refused.push({ offset, length });
    if (!this.#reconciling) void this.#reconcile();
  }

  /**
   * Makes children equal again where a write was refused by all of them for lack of space: some may
   * have stored part of it. The first in-sync child's content is what counts.
   */
  async #reconcile(): Promise<void> {
    this.#reconciling = true;
    try {
      while (this.#refused.length > 0 && this.core.ended === null) {
        const { offset, length } = this.#refused.pop()!;
        await this.core.serialize(() => this.core.quiesced(() => this.#makeEqual(offset, length)));
      }
    } finally {
      this.#reconciling = false;
    }
  }

  async #makeEqual(offset: number, length: number): Promise<void> {
    const { reactor } = this.core;
    const piece = Math.min(length, SEGMENT_BYTES_MAX / 2);
    const mine = await takeBuffer(reactor, piece);
    const theirs = await takeBuffer(reactor, piece);
    for (let at = offset; at < offset + length; at += piece) {
      const bytes = Math.min(piece, offset + length - at);
      const [source, ...others] = this.core.inSync();
      if (source === undefined) break;
      const read = await deviceIo(source.device!.bdev, IoOp.READ, at, bytes, mine);
      if (read !== IoStatus.OK) continue;
      const rebuilding = this.core.present().filter((child) => child.phase === "rebuilding");
      for (const child of [...others, ...rebuilding]) {
        const { bdev } = child.device!;
        const status = await deviceIo(bdev, IoOp.READ, at, bytes, theirs);
        if (status === IoStatus.OK && sameBytes(reactor, mine, theirs, bytes)) continue;
        const written = await deviceIo(bdev, IoOp.WRITE, at, bytes, mine);
        if (written !== IoStatus.OK) this.membership.childFailed(child.index, written);
      }
    }
    reactor.arena.free(mine);
    reactor.arena.free(theirs);
  }

  // ------------------------------------------------------------------------------------ reporting

  get state(): NexusState {
    const { core } = this;
    if (core.ended === "superseded") return "shutdown";
    if (core.ended === "closing") return "shutting-down";
    if (core.gateHas("opening")) return "init";
    if (core.inSync().length === 0) return "faulted";
    return core.isFull ? "online" : "degraded";
  }

  info(): NexusInfo {
    const { core } = this;
    return {
      ...core.identity,
      generation: core.generation,
      sizeBytes: this.#bytes,
      blockSize: core.blockSize,
      state: this.state,
      children: core.present().map((child) => ({
        uri: child.uri,
        state: child.state,
        reason: child.reason,
        isLocal: child.isLocal,
        rebuild: this.rebuilds.progress(child.uri),
      })),
      dirtyRegions: core.regions.dirtyCount,
      waitingRequests: this.#io.waiting,
      isPaused: core.gateHas("paused"),
      wantedChildren: core.wantedChildren,
      scrub: this.scrubs.record(),
    };
  }

  // ------------------------------------------------------------------------------------- children

  #child(uri: string): Child {
    const child = this.core.find(uri);
    if (child === undefined) {
      throw new TrilithError("NotFound", `nexus ${this.name} has no child ${uri}`);
    }
    return child;
  }

  #assertUsable(): void {
    const { ended } = this.core;
    if (ended === null) return;
    const code = ended === "superseded" ? "Superseded" : "FailedPrecondition";
    throw new TrilithError(code, `nexus ${this.name} is ${this.state}`);
  }

  /** Adds a replica that is not part of the volume yet and starts to rebuild it. */
  addChild(uri: string): Promise<void> {
    return this.core.serialize(async () => {
      this.#assertUsable();
      if (this.core.find(uri) !== undefined) {
        throw new TrilithError("AlreadyExists", `nexus ${this.name} has child ${uri} already`);
      }
      const index = this.core.children.indexOf(null);
      if (index < 0) {
        throw new TrilithError(
          "ResourceExhausted",
          `nexus ${this.name} has ${CHILDREN_MAX} children, which is the most it can have`,
        );
      }
      const child = new Child(uri, index, false);
      this.core.children[index] = child;
      try {
        // Whoever opens the volume next must know of it, and that it does not count yet.
        if (!(await this.membership.record([]))) {
          throw new TrilithError(
            "Unavailable",
            `nexus ${this.name}: the recorder cannot be reached`,
          );
        }
        await this.#bringIn(child);
      } catch (error) {
        this.core.children[index] = null;
        await this.membership.detach(child);
        this.membership.apply();
        throw error;
      }
    });
  }

  /** Brings a child back that takes no part: from the dirty regions alone when that suffices. */
  onlineChild(uri: string): Promise<void> {
    return this.core.serialize(async () => {
      this.#assertUsable();
      const child = this.#child(uri);
      if (child.phase === "in-sync" || child.phase === "rebuilding") return;
      if (child.phase === "failing") {
        throw new TrilithError(
          "FailedPrecondition",
          `the loss of ${uri} is still being recorded`,
          "try again in a moment",
        );
      }
      const reason = child.reason;
      try {
        await this.#bringIn(child);
      } catch (error) {
        child.phase = "out";
        child.reason = reason;
        await this.membership.detach(child);
        this.membership.apply();
        throw error;
      }
    });
  }

  /** Opens, fences and examines a child, then lets it join and queues its rebuild. */
  async #bringIn(child: Child): Promise<void> {
    const { core, membership } = this;
    await child.detaching;
    child.phase = "opening";
    const device = await core.context.openChild(child.uri);
    membership.attach(child, device);
    this.checkShape(child);
    const state = await membership.claim(child, true);
    if (core.inSync().length === 0) {
      throw new TrilithError("FailedPrecondition", `nexus ${this.name} has no child to copy from`);
    }
    const generation = state?.generation ?? child.generation;
    if (generation > core.generation) {
      throw new TrilithError(
        "FailedPrecondition",
        `${child.uri} has generation ${generation}, newer than this nexus's ${core.generation}`,
        "the volume was in use elsewhere meanwhile; open the nexus again with that replica healthy",
      );
    }
    const isPartial = generation > 0 && generation >= core.baseGeneration;
    let extra: number[] = [];
    if (isPartial) {
      const bitmap = await device.link?.readDirty();
      if (bitmap !== undefined) extra = bitsOf(bitmap, core.regions.count);
    } else {
      // Should this rebuild be interrupted, the next one has to be full again.
      const { epoch } = core.identity;
      const none = { epoch, generation: 0, baseGeneration: 0, clean: false, mayLack: true };
      await device.link?.writeState(none);
      child.generation = 0;
    }
    const regions = await membership.join(child, extra);
    this.rebuilds.add(child, isPartial ? regions : undefined);
  }

  /** Throws unless the child's device fits the volume. */
  checkShape(child: Child): void {
    const { bdev } = child.device!;
    if (bdev.blockSize !== this.core.blockSize) {
      throw new TrilithError(
        "InvalidArgument",
        `child ${child.uri} has blocks of ${bdev.blockSize} bytes, the nexus of ${this.core.blockSize}`,
      );
    }
    if (bdevBytes(bdev) < this.#bytes) {
      throw new TrilithError(
        "InvalidArgument",
        `child ${child.uri} has ${bdevBytes(bdev)} bytes, the nexus ${this.#bytes}`,
        "use a replica of at least the volume's size",
      );
    }
  }

  /** Takes a child out of use, to be brought back later: `offline`, or `by-client` for a fault. */
  async offlineChild(uri: string, reason: "offline" | "by-client"): Promise<void> {
    this.#assertUsable();
    const child = this.#child(uri);
    this.#assertNotLast(child, "taken offline");
    if (child.phase === "out") {
      child.reason = reason;
      return;
    }
    await this.#putOut(child, reason);
    await child.detaching;
  }

  /** Takes a child out and waits until that is recorded. */
  async #putOut(child: Child, reason: ChildReason): Promise<void> {
    this.membership.lose(child.index, reason);
    await this.membership.settled();
    if (child.phase === "out") return;
    throw new TrilithError(
      "FailedPrecondition",
      `${child.uri} has to stay in nexus ${this.name}: the other children were lost meanwhile`,
      "bring them back first",
    );
  }

  #assertNotLast(child: Child, what: string): void {
    const others = this.core.inSync().filter((other) => other !== child);
    if (child.phase === "in-sync" && others.length === 0) {
      throw new TrilithError(
        "FailedPrecondition",
        `${child.uri} is the last in-sync child of nexus ${this.name} and cannot be ${what}`,
        "add another replica and wait for its rebuild",
      );
    }
  }

  /** Removes a child for good. What it held no longer counts for anything. */
  async removeChild(uri: string): Promise<void> {
    this.#assertUsable();
    const child = this.#child(uri);
    this.#assertNotLast(child, "removed");
    if (child.phase !== "out") await this.#putOut(child, "by-client");
    await this.core.serialize(async () => {
      if (child.phase !== "out") {
        throw new TrilithError("Conflict", `${child.uri} has been brought back meanwhile`);
      }
      await this.membership.detach(child);
      this.core.children[child.index] = null;
      this.membership.apply();
      // A record that fails is made up for by the next one: it always names all children.
      await this.membership.record([]);
    });
  }

  // ----------------------------------------------------------------------------------- operations

  /** Children that a crash left consistent but possibly different: they are made equal again. */
  resyncConsistent(): void {
    for (const child of this.core.present()) {
      if (child.phase === "rebuilding" && child.consistent) {
        const regions = this.core.regions.dirty().sort((a, b) => a - b);
        this.rebuilds.add(child, regions);
      }
    }
  }

  /** Keeps host requests waiting until `resume`, and resolves when none is under way. */
  async pause(): Promise<void> {
    this.#assertUsable();
    this.core.closeGate("paused");
    await Promise.all([this.core.io.idle(), this.scrubs.suspend("nexus-paused")]);
  }

  resume(): void {
    if (!this.core.gateHas("paused")) {
      throw new TrilithError("FailedPrecondition", `nexus ${this.name} is not paused`);
    }
    this.core.openGate("paused");
    this.scrubs.unsuspend("nexus-paused");
  }

  /**
   * How many children the volume is to have in sync. While there are fewer, what is written stays in the
   * write-intent log, also for a replica that is no child any more or not yet: back in time, it is
   * brought up to date from that alone.
   */
  wantChildren(count: number): void {
    this.core.wantedChildren = count;
  }

  /** Grows the device to `sizeBytes`, which every child must have already. */
  resize(sizeBytes: number): Promise<void> {
    return this.core.serialize(async () => {
      this.#assertUsable();
      if (sizeBytes === this.#bytes) return;
      if (sizeBytes < this.#bytes || sizeBytes % this.core.blockSize !== 0) {
        throw new TrilithError(
          "InvalidArgument",
          `nexus ${this.name} has ${this.#bytes} bytes and cannot become ${sizeBytes}`,
          "a volume can only grow, by whole blocks",
        );
      }
      const running = this.core.present().find((child) => child.phase === "rebuilding");
      if (running !== undefined) {
        throw new TrilithError("FailedPrecondition", `child ${running.uri} is being rebuilt`);
      }
      const before = this.#bytes;
      this.#bytes = sizeBytes;
      try {
        for (const child of this.core.inSync()) this.checkShape(child);
      } catch (error) {
        this.#bytes = before;
        throw error;
      }
      await this.scrubs.suspend("resize");
      try {
        await this.core.quiesced(() => {
          this.core.sizeBytes = sizeBytes;
          this.core.regions.grow(sizeBytes);
          return Promise.resolve();
        });
      } finally {
        this.scrubs.unsuspend("resize");
      }
      this.core.listeners.tell({ kind: "resized", blockCount: this.blockCount });
    });
  }

  /**
   * Closes in an orderly way: host requests that wait end UNAVAILABLE, disks are flushed, the
   * write-intent log is cleaned when every child is in sync, and the shutdown is recorded as clean.
   */
  async close(): Promise<void> {
    const { core, membership } = this;
    if (core.ended === null) {
      core.ended = "closing";
      core.closeGate("closing");
      await Promise.all([this.rebuilds.stopAll(), this.scrubs.stopAll()]);
      await core.io.idle();
      await membership.settled();
      await this.intent.stop();
      this.#io.stop(IoStatus.UNAVAILABLE);
      await core.serialize(() => this.#closeClean());
    } else {
      await Promise.all([this.rebuilds.stopAll(), this.scrubs.stopAll()]);
      await core.io.idle();
      await this.intent.stop();
    }
    for (const child of core.present()) await this.#letGo(child);
  }

  async #closeClean(): Promise<void> {
    const { core, membership } = this;
    if (core.io.syncMask === 0 || core.io.failingMask !== 0) return;
    if (!(await this.intent.cleanAll())) return;
    const isWritten = await membership.writeState(core.inSync(), { clean: true });
    if (isWritten && core.io.failingMask === 0) await membership.record([], true);
  }

  async #letGo(child: Child): Promise<void> {
    const link = child.device?.link;
    if (link !== undefined && this.core.ended !== "superseded") {
      // A replica that cannot be told is fenced by the next epoch all the same.
      await link.release().catch(() => undefined);
    }
    await this.membership.detach(child);
  }
}

/** Device bytes covered by the write-intent regions of a nexus, for callers that size bitmaps. */
export function regionCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / REGION_BYTES);
}
