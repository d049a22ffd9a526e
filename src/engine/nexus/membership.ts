/**
 * Who belongs to a nexus: children that are lost, recorded, revived, joined and removed.
 *
 * The rule that everything serves (DESIGN 6.2): a write is acknowledged only when every child that
 * the durable record calls healthy has it. So a lost child's loss is recorded first, with the
 * recorder and, as a higher generation, on the children that remain; until then writes are held.
 */
import { assert } from "../../assert.ts";
import { IoStatus, TrilithError } from "../../errors.ts";
import type { Child, ChildDevice } from "./child.ts";
import type { NexusCore } from "./core.ts";
import { RETRY_MS, TURN_AWAY_MS, WHOLE_CHILD_WAIT_MS } from "./limits.ts";
import { ReadLease } from "./read-lease.ts";
import type { SyncState } from "./replica-link.ts";
import type { ChildReason } from "./states.ts";
import { statusOfError, type WriteIntent } from "./write-intent.ts";

/** What membership tells the rebuilds. */
export interface MembershipUser {
  /** A child that was being rebuilt, or rebuilt from, takes no more part. */
  childLost(child: Child): void;
  /** Children wait to be brought up to date. */
  childrenWaiting(): void;
}

function reasonOf(status: number): ChildReason {
  switch (status) {
    case IoStatus.NO_SPACE:
      return "no-space";
    case IoStatus.TIMEOUT:
      return "timed-out";
    default:
      return "io-failure";
  }
}

export class Membership {
  readonly #core: NexusCore;
  readonly #intent: () => WriteIntent;
  readonly #user: MembershipUser;
  readonly lease: ReadLease;
  #settling: Promise<void> | null = null;
  /** A higher generation was begun and not yet confirmed by every in-sync child. */
  #generationPending = false;
  #isExpecting = false;
  /** Since when a child could have been got back that may lack writes. */
  #lackingSinceNs: number | null = null;
  /** When one of the last children was last got back. */
  #revivedNs = Number.NEGATIVE_INFINITY;

  constructor(core: NexusCore, intent: () => WriteIntent, user: MembershipUser) {
    this.#core = core;
    this.#intent = intent;
    this.#user = user;
    this.lease = new ReadLease(core, this);
  }

  // ------------------------------------------------------------------------------------- masks

  /** Derives the I/O path's masks and readers from the children's phases. */
  apply(): void {
    const { io } = this.#core;
    let write = 0;
    let sync = 0;
    let failing = 0;
    const local: number[] = [];
    const remote: number[] = [];
    for (const child of this.#core.present()) {
      if (child.phase === "failing") failing |= child.bit;
      if (child.phase === "rebuilding" || child.phase === "in-sync") write |= child.bit;
      if (child.phase !== "in-sync") continue;
      sync |= child.bit;
      (child.isLocal ? local : remote).push(child.index);
    }
    io.writeMask = write;
    io.syncMask = sync;
    io.failingMask = failing;
    io.readers = local.length > 0 ? local : remote;
    this.lease.apply();
  }

  /** Puts an opened device behind a child. */
  attach(child: Child, device: ChildDevice): void {
    const { io } = this.#core;
    assert(child.device === null, "a child has one device at a time");
    child.device = device;
    io.attach(child.index, device.bdev, child.statistics);
    child.leaseSinceNs = Number.NEGATIVE_INFINITY;
    device.link?.lease?.onLoss(() => {
      if (child.device === device) this.lease.lost(child);
    });
    child.unlisten = device.bdev.listen((event) => {
      if (event.kind === "removed") this.childFailed(child.index, IoStatus.DEVICE_GONE);
    });
  }

  /**
   * Takes the device away from a child at once, and closes it when nothing of it is in flight;
   * resolves then. A child gets another device only after that (`child.detaching`).
   */
  async detach(child: Child): Promise<void> {
    const { device } = child;
    if (device !== null) {
      child.unlisten?.();
      child.unlisten = null;
      child.device = null;
      const before = child.detaching;
      const closing = this.#closeDevice(child, device, before).finally(() => {
        if (child.detaching === closing) child.detaching = null;
      });
      child.detaching = closing;
    }
    await child.detaching;
  }

  async #closeDevice(
    child: Child,
    device: ChildDevice,
    before: Promise<void> | null,
  ): Promise<void> {
    const { io } = this.#core;
    await before;
    // A device that has failed ends what it has in flight; a lost connection does so at once.
    await io.childIdle(child.index);
    io.bdevs[child.index] = null;
    await device.close();
  }

  // -------------------------------------------------------------------------------------- losses

  /** A child failed a request. At once: no more requests to it, and no acknowledgement without a record. */
  childFailed(index: number, status: number): void {
    this.lose(index, reasonOf(status));
  }

  lose(index: number, reason: ChildReason): void {
    const core = this.#core;
    const child = core.children[index];
    if (child == null || core.ended === "superseded") return;
    if (child.phase === "failing" || child.phase === "out") return;
    const { device } = child;
    child.reason = reason;
    if (child.phase === "opening") {
      // It takes no part yet. Whoever brings it in finds that it has gone.
      child.phase = "out";
      void this.detach(child);
      device?.abandon?.();
      return;
    }
    child.phase = child.recordedHealthy ? "failing" : "out";
    this.apply();
    if (core.io.syncMask === 0 && !core.gateHas("held")) {
      core.closeGate("held");
      core.emit({ kind: "io-held", reason: `child ${child.uri}: ${reason}` });
    }
    core.emitChild(child);
    this.#user.childLost(child);
    if (child.phase === "failing") {
      this.#expectRecord(`child ${child.uri}: ${reason}`);
      this.settle();
    } else void this.detach(child);
    // Whoever does not answer would keep requests that the others have answered.
    device?.abandon?.();
  }

  /** A newer nexus is active: everything stops here, nothing more is acknowledged. */
  supersede(reason: string): void {
    const core = this.#core;
    if (core.ended === "superseded") return;
    core.ended = "superseded";
    core.io.stop(IoStatus.SUPERSEDED);
    core.emit({ kind: "superseded", reason });
  }

  /** Looks after a while whether a loss that has to be recorded has been. */
  #expectRecord(reason: string): void {
    if (this.#isExpecting) return;
    this.#isExpecting = true;
    const core = this.#core;
    core.reactor.after(TURN_AWAY_MS, () => {
      this.#isExpecting = false;
      if (core.io.failingMask === 0 || core.io.turnsAway || core.ended !== null) return;
      // Where everything lies here, nobody else can serve it.
      if (core.present().every(({ uri }) => uri.startsWith("bdev:"))) return;
      core.emit({ kind: "unsettled", reason });
    });
  }

  /** Sees to it that lost children are recorded and held writes go on. Idempotent. */
  settle(): void {
    this.#settling ??= this.#settleAll().finally(() => {
      this.#settling = null;
    });
  }

  /** Resolves when no loss is waiting to be recorded. */
  async settled(): Promise<void> {
    while (this.#settling !== null) await this.#settling;
  }

  async #settleAll(): Promise<void> {
    const core = this.#core;
    for (;;) {
      await Promise.resolve();
      if (core.ended === "superseded") return;
      const outcome = await core.serialize(() => this.#settleOnce());
      if (outcome === "settled") return;
      if (outcome === "retry") {
        // An orderly close does not wait for a recorder or child that may never come back.
        if (core.ended !== null) return;
        await core.reactor.sleep(RETRY_MS);
      }
    }
  }

  /** One attempt: "again" after progress, "retry" when something could not be reached. */
  async #settleOnce(): Promise<"settled" | "again" | "retry"> {
    const core = this.#core;
    if (core.ended === "superseded") return "settled";
    const failing = core.present().filter((child) => child.phase === "failing");
    if (failing.length === 0 && core.io.syncMask !== 0) {
      if (this.#generationPending && !(await this.#writeGeneration(core.inSync()))) return "again";
      if (core.io.failingMask !== 0) return "again";
      this.#resume();
      return "settled";
    }
    let survivors = core.inSync();
    if (survivors.length === 0) {
      // A child that comes back only to fail again is not asked more often than one that is away.
      const isTooSoon = core.reactor.now - this.#revivedNs < RETRY_MS * 1e6;
      if (!this.#promote() && (isTooSoon || !(await this.#revive(failing)))) return "retry";
      survivors = core.inSync();
      if (survivors.length === 0) return "again";
    }
    // `#revive` may have taken one out of the failing ones.
    const lost = failing.filter((child) => child.phase === "failing");
    if (lost.length === 0) return "again";
    if (!(await this.record(lost))) return "retry";
    if (!(await this.#raiseGeneration(survivors))) return "again";
    for (const child of lost) {
      child.recordedHealthy = false;
      child.consistent = false;
      child.phase = "out";
      void this.detach(child);
    }
    this.apply();
    return "again";
  }

  /** Every loss is recorded and somebody is in sync: held writes and waiting requests go on. */
  #resume(): void {
    const core = this.#core;
    const isWelcome = core.io.turnsAway;
    core.io.welcome();
    core.io.releaseHeld();
    const isHeld = core.gateHas("held");
    if (!isHeld && !isWelcome) return;
    if (isHeld) core.openGate("held");
    core.emit({ kind: "io-resumed" });
  }

  /** Makes a consistent child (being resynced after a crash) the one that counts. */
  #promote(): boolean {
    const child = this.#core.present().find((c) => c.phase === "rebuilding" && c.consistent);
    if (child === undefined) return false;
    child.phase = "in-sync";
    child.reason = "none";
    this.apply();
    this.#core.emitChild(child);
    this.#user.childLost(child); // A resync from elsewhere to it makes no sense any more.
    this.#user.childrenWaiting();
    return true;
  }

  /** It may have become so while something was awaited. */
  #isSuperseded(): boolean {
    return this.#core.ended === "superseded";
  }

  /** Tries to get one of the last children back. */
  async #revive(failing: readonly Child[]): Promise<boolean> {
    for (const child of failing) {
      try {
        await this.detach(child);
        const device = await this.#core.context.openChild(child.uri);
        // Another nexus serves the volume by now: nothing of it is to be touched any more.
        if (this.#isSuperseded()) {
          await device.close();
          return false;
        }
        this.attach(child, device);
        const state = await this.claim(child, true);
        if (this.#isSuperseded()) return false;
        if (state !== undefined && !this.#isCurrent(child, state)) continue;
        if (child.mayLack && this.#isWorthWaiting(failing)) continue;
        child.mayLack = false;
        child.phase = "in-sync";
        child.reason = "none";
        this.#revivedNs = this.#core.reactor.now;
        this.#lackingSinceNs = null;
        this.apply();
        this.#core.emitChild(child);
        return true;
      } catch (error) {
        if (error instanceof TrilithError && error.code === "Superseded") {
          this.supersede(error.message);
          return false;
        }
        statusOfError(error); // Rethrows what is a defect; the rest means "not yet".
      }
    }
    return false;
  }

  /**
   * True while a child that may lack acknowledged writes is passed over, because others were lost together
   * with it that need not lack any.
   */
  #isWorthWaiting(failing: readonly Child[]): boolean {
    const { now } = this.#core.reactor;
    this.#lackingSinceNs ??= now;
    return failing.length > 1 && now - this.#lackingSinceNs < WHOLE_CHILD_WAIT_MS * 1e6;
  }

  /** True when a returning replica is the one that was lost, with all that was acknowledged. */
  #isCurrent(child: Child, state: SyncState): boolean {
    return state.generation >= child.generation && state.generation <= this.#core.generation;
  }

  /**
   * Has the recorder note who is healthy, `lost` no longer being so. False: not reached, or this
   * nexus is superseded.
   */
  async record(lost: readonly Child[], cleanShutdown = false): Promise<boolean> {
    const core = this.#core;
    if (this.#isSuperseded()) return false;
    const { volumeUuid, uuid, epoch } = core.identity;
    const children = core.present().map((child) => ({
      uri: child.uri,
      healthy: child.recordedHealthy && !lost.includes(child),
    }));
    assert(
      children.some((child) => child.healthy),
      "the last healthy child is never recorded as lost",
    );
    try {
      await core.context.recorder.record({
        volumeUuid,
        nexusUuid: uuid,
        epoch,
        children,
        cleanShutdown,
      });
      return true;
    } catch (error) {
      if (error instanceof TrilithError && error.code === "Superseded") {
        this.supersede(error.message);
      }
      return false;
    }
  }

  /**
   * Writes a generation one higher to the survivors: whoever is not among them is behind from now
   * on. A number is used once: a child whose answer was lost may carry it already.
   */
  async #raiseGeneration(survivors: readonly Child[]): Promise<boolean> {
    this.#core.generation++;
    this.#generationPending = true;
    return this.#writeGeneration(survivors);
  }

  async #writeGeneration(children: readonly Child[]): Promise<boolean> {
    const isWritten = await this.writeState(children, { clean: false });
    if (isWritten) this.#generationPending = false;
    return isWritten;
  }

  /** Writes the sync state of children; those that fail are lost. True: all have it. */
  async writeState(children: readonly Child[], change: { clean: boolean }): Promise<boolean> {
    const core = this.#core;
    if (this.#isSuperseded()) return false;
    const state = {
      epoch: core.identity.epoch,
      generation: core.generation,
      baseGeneration: core.baseGeneration,
      clean: change.clean,
    };
    let allDone = true;
    const one = async (child: Child): Promise<void> => {
      try {
        await child.device?.link?.writeState({ ...state, mayLack: child.mayLack });
        child.generation = state.generation;
      } catch (error) {
        allDone = false;
        this.linkFailed(child, error);
      }
    };
    await Promise.all(children.map(one));
    return allDone;
  }

  /** A child's link failed: the child is lost, or this nexus is superseded. */
  linkFailed(child: Child, error: unknown): void {
    const status = statusOfError(error);
    if (status === IoStatus.SUPERSEDED || status === IoStatus.RESERVATION_CONFLICT) {
      this.supersede(error instanceof Error ? error.message : String(error));
    } else this.childFailed(child.index, status);
  }

  /**
   * Fences a child's replica for this nexus and reads its state; undefined when it is no replica.
   * `isServing`: see `Claim`.
   */
  async claim(child: Child, isServing: boolean): Promise<SyncState | undefined> {
    const link = child.device?.link;
    if (link === undefined) return undefined;
    const { epoch, uuid } = this.#core.identity;
    const sentNs = this.#core.reactor.now;
    await link.acquire({
      epoch,
      nexusUuid: uuid,
      isServing,
      onFenced: () => this.supersede(`child ${child.uri} was taken by a newer nexus`),
    });
    // The claim is an exchange as a renewal is.
    child.leaseSinceNs = sentNs;
    this.lease.lookAgain();
    const state = await link.readState();
    child.mayLack = state.mayLack;
    return state;
  }

  // ---------------------------------------------------------------------------------------- joins

  /**
   * Lets a child take part in writes from now on, to be brought up to date meanwhile. `extra` are
   * regions that it alone has marked. Returns the regions that it may lack.
   */
  async join(child: Child, extra: readonly number[]): Promise<number[]> {
    const core = this.#core;
    return core.quiesced(async () => {
      await this.#intent().settled();
      const known = new Set(core.regions.dirty());
      const added = extra.filter((region) => !known.has(region));
      await this.#intent().markOn(core.inSync(), added);
      core.regions.assume(added);
      const regions = core.regions.dirty();
      if (!(await this.#intent().markOn([child], regions))) {
        throw new TrilithError("Unavailable", `child ${child.uri} could not be marked`);
      }
      if (child.phase !== "opening" || child.device === null) {
        throw new TrilithError("Unavailable", `child ${child.uri} was lost again meanwhile`);
      }
      child.phase = "rebuilding";
      child.reason = "out-of-sync";
      this.apply();
      core.emitChild(child);
      return regions.sort((a, b) => a - b);
    });
  }

  /** A child has been brought up to date: it counts from now on. False: it was lost on the way. */
  async promoteRebuilt(child: Child): Promise<boolean> {
    for (;;) {
      await this.settled();
      const outcome = await this.#core.serialize(() => this.#promoteOnce(child));
      if (outcome !== "later") return outcome === "promoted";
    }
  }

  async #promoteOnce(child: Child): Promise<"promoted" | "lost" | "later"> {
    const core = this.#core;
    if (!this.#isRebuilding(child) || core.ended !== null) return "lost";
    if (this.#generationPending || core.io.failingMask !== 0) {
      this.settle();
      return "later";
    }
    // From here on losing it has to be recorded, for its replica will carry the generation.
    child.recordedHealthy = true;
    child.mayLack = false;
    this.lease.apply();
    if (!(await this.writeState([child], { clean: false }))) return "lost";
    while (!(await this.record([]))) {
      if (core.ended !== null || !this.#isRebuilding(child)) return "lost";
      await core.reactor.sleep(RETRY_MS);
    }
    return core.quiesced(() => {
      if (!this.#isRebuilding(child)) return Promise.resolve("lost" as const);
      child.phase = "in-sync";
      child.reason = "none";
      child.consistent = false;
      this.apply();
      core.emitChild(child);
      return Promise.resolve("promoted" as const);
    });
  }

  /** Its phase may have changed while something was awaited. */
  #isRebuilding(child: Child): boolean {
    return child.phase === "rebuilding";
  }
}
