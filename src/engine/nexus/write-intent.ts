/**
 * The write-intent log at work: regions are marked dirty on every child before their first write,
 * and marks are taken off again, lazily, only while every child is in sync, none that the volume is to
 * have is missing, and only after every child's disk has been flushed (DESIGN 6.4).
 */
import { IoStatus, TrilithError } from "../../errors.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Timer } from "../reactor/timers.ts";
import type { Child } from "./child.ts";
import { deviceIo } from "./child-io.ts";
import type { NexusCore } from "./core.ts";
import {
  CLEAN_IDLE_PERIODS,
  CLEAN_PERIOD_MS,
  DIRTY_REGIONS_KEPT,
  REGIONS_PER_CALL_MAX,
} from "./limits.ts";
import { RegionState } from "./regions.ts";

/** What marking and cleaning report back. */
export interface WriteIntentUser {
  /** A child could not be marked, flushed or cleared. */
  childFailed(index: number, status: number): void;
  superseded(reason: string): void;
}

/** The I/O status that an error of a child's link amounts to. */
export function statusOfError(error: unknown): IoStatus {
  if (!(error instanceof TrilithError)) throw error;
  switch (error.code) {
    case "Superseded":
      return IoStatus.SUPERSEDED;
    case "ReservationConflict":
      return IoStatus.RESERVATION_CONFLICT;
    case "NoSpace":
    case "ResourceExhausted":
      return IoStatus.NO_SPACE;
    case "Timeout":
      return IoStatus.TIMEOUT;
    case "DeviceGone":
    case "NotFound":
      return IoStatus.DEVICE_GONE;
    case "Internal":
      throw error;
    default:
      return IoStatus.UNAVAILABLE;
  }
}

export class WriteIntent {
  readonly #core: NexusCore;
  readonly #user: WriteIntentUser;
  #marking: Promise<void> | null = null;
  #cleaning: Promise<void> | null = null;
  #timer: Timer | null = null;

  constructor(core: NexusCore, user: WriteIntentUser) {
    this.#core = core;
    this.#user = user;
  }

  /** Starts the periodic cleaning. */
  start(): void {
    this.#timer = this.#core.reactor.after(CLEAN_PERIOD_MS, () => {
      this.start();
      if (this.#cleaning === null) void this.#cleanIdle();
    });
  }

  /** Ends the periodic cleaning and resolves when nothing of the log is under way. */
  async stop(): Promise<void> {
    this.#timer?.cancel();
    await this.settled();
  }

  /** Resolves when no mark and no cleaning is under way. */
  async settled(): Promise<void> {
    while (this.#marking !== null || this.#cleaning !== null) {
      await this.#marking;
      await this.#cleaning;
    }
  }

  /** Marks the regions that are wanted. Called by the I/O path, which waits meanwhile. */
  mark(): void {
    // A batch per turn: what the turn's other writes want travels with the first one's.
    this.#marking ??= this.#markAll().finally(() => {
      this.#marking = null;
    });
  }

  async #markAll(): Promise<void> {
    const { io, regions } = this.#core;
    await Promise.resolve();
    for (let wanted = regions.takeWanted(); wanted.length > 0; wanted = regions.takeWanted()) {
      await this.#call(this.#takingWrites(), wanted, "markDirty");
      const isMarked = io.writeMask !== 0;
      regions.settle(wanted, isMarked ? RegionState.DIRTY : RegionState.CLEAN);
    }
    io.regionsSettled();
  }

  #takingWrites(): Child[] {
    const { io } = this.#core;
    return this.#core.present().filter((child) => (io.writeMask & child.bit) !== 0);
  }

  /** Marks or clears regions on children; those that fail are reported. True: all did it. */
  async #call(
    children: readonly Child[],
    regions: readonly number[],
    what: "markDirty" | "clearDirty",
  ): Promise<boolean> {
    let allDone = true;
    const one = async (child: Child): Promise<void> => {
      const link = child.device?.link;
      if (link === undefined) return;
      try {
        for (let at = 0; at < regions.length; at += REGIONS_PER_CALL_MAX) {
          await link[what](regions.slice(at, at + REGIONS_PER_CALL_MAX));
        }
      } catch (error) {
        allDone = false;
        this.#failed(child, error);
      }
    };
    await Promise.all(children.map(one));
    return allDone;
  }

  #failed(child: Child, error: unknown): void {
    const status = statusOfError(error);
    if (status === IoStatus.SUPERSEDED || status === IoStatus.RESERVATION_CONFLICT) {
      this.#user.superseded(error instanceof Error ? error.message : String(error));
    } else this.#user.childFailed(child.index, status);
  }

  /** Marks regions on some children outside of the I/O path (a child joins). True: all did it. */
  markOn(children: readonly Child[], regions: readonly number[]): Promise<boolean> {
    return this.#call(children, regions, "markDirty");
  }

  async #cleanIdle(): Promise<void> {
    const { regions, io } = this.#core;
    if (!this.#mayClean() || io.gateClosed) return;
    const idle = regions.takeIdle(CLEAN_IDLE_PERIODS, DIRTY_REGIONS_KEPT, REGIONS_PER_CALL_MAX);
    if (idle.length === 0) return;
    this.#cleaning = this.#clean(idle)
      .then(() => undefined)
      .finally(() => {
        this.#cleaning = null;
        io.regionsSettled();
      });
    await this.#cleaning;
  }

  #mayClean(): boolean {
    const { isFull, isAwaiting, io, ended } = this.#core;
    return isFull && !isAwaiting && io.failingMask === 0 && ended !== "superseded";
  }

  /** For an orderly close: with no request under way, flushes and cleans everything. True: done. */
  async cleanAll(): Promise<boolean> {
    const { regions } = this.#core;
    if (!this.#mayClean()) return this.flush();
    return this.#clean(regions.takeAll());
  }

  /** Flushes every in-sync child's disk; children that fail are reported. */
  async flush(): Promise<boolean> {
    let allDone = true;
    const one = async (child: Child): Promise<void> => {
      const status = await deviceIo(child.device!.bdev, IoOp.FLUSH, 0, 0, -1);
      if (status === IoStatus.OK) return;
      allDone = false;
      this.#user.childFailed(child.index, status);
    };
    await Promise.all(this.#core.inSync().map(one));
    return allDone;
  }

  /** Takes the marks off regions that are in CLEANING. */
  async #clean(idle: readonly number[]): Promise<boolean> {
    const core = this.#core;
    const { regions } = core;
    // All disks first: a mark may go only when no child can lose what was written there.
    if (!(await this.flush()) || !(await this.#raiseBase()) || !this.#mayClean()) {
      regions.settle(idle, RegionState.DIRTY);
      return false;
    }
    const isCleared = await this.#call(core.inSync(), idle, "clearDirty");
    // Whether or not every child did it: some have, so the next write must mark again.
    regions.settle(idle, RegionState.CLEAN);
    return isCleared;
  }

  /**
   * Before the first mark is cleared since the set became full, every child learns that the log is
   * complete only from the present generation on.
   */
  async #raiseBase(): Promise<boolean> {
    const core = this.#core;
    if (core.baseGeneration === core.generation) return true;
    const state = {
      epoch: core.identity.epoch,
      generation: core.generation,
      baseGeneration: core.generation,
      clean: false,
      mayLack: false,
    };
    let allDone = true;
    const one = async (child: Child): Promise<void> => {
      try {
        await child.device!.link?.writeState(state);
      } catch (error) {
        allDone = false;
        this.#failed(child, error);
      }
    };
    await Promise.all(core.inSync().map(one));
    if (allDone) core.baseGeneration = state.generation;
    return allDone;
  }
}
