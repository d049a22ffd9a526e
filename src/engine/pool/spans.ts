/**
 * Requests that do not go straight through: those that span clusters, meet unmapped or shared ones,
 * or arrive while the replica holds writes. Each is worked off from its start in pieces, two of them
 * in flight, and parks itself where it has to wait.
 *
 * State is kept by slot, shared by all pools of a reactor: a slot is in the hands of one replica
 * at a time.
 */
import { fillMemory } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import { IoFlag, IoOp, type IoOwner } from "../reactor/io-table.ts";
import { IO_SLOTS } from "../reactor/limits.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { needsWritable } from "./cluster-ops.ts";
import type { PoolCore } from "./core.ts";
import type { Epoch } from "./epochs.ts";
import { SPLIT_PIECES, UNMAP_CLUSTERS_MAX } from "./limits.ts";
import { Gate, type Replica } from "./replica.ts";
import { isBusy } from "./space.ts";
import { BUSY, CLUSTER_MASK, SHARED, SHARED_SHIFT, UNMAPPED } from "./state.ts";

/** Progress of requests, by slot. */
interface Progress {
  /** Bytes dealt with or given to a piece. */
  readonly at: Float64Array;
  /** Pieces in flight. */
  readonly pieces: Uint8Array;
  readonly status: Uint8Array;
  readonly phase: Uint8Array;
  readonly replica: (Replica | null)[];
  /** The epoch in which the replica took the request on. */
  readonly epoch: (Epoch | null)[];
}

const IDLE = 0;
/** `advance` is on the stack: what completes meanwhile need not call it. */
const RUNNING = 1;
/** In some queue; `resume` takes it out. */
const PARKED = 2;

/** What a step has come to. */
const Step = { GO_ON: 0, PARKED: 1, FAILED: 2 } as const;
type Step = (typeof Step)[keyof typeof Step];

const shared = new WeakMap<Reactor, Progress>();

function progressOf(reactor: Reactor): Progress {
  let progress = shared.get(reactor);
  if (progress === undefined) {
    progress = {
      at: new Float64Array(IO_SLOTS),
      pieces: new Uint8Array(IO_SLOTS),
      status: new Uint8Array(IO_SLOTS),
      phase: new Uint8Array(IO_SLOTS),
      replica: new Array<Replica | null>(IO_SLOTS).fill(null),
      epoch: new Array<Epoch | null>(IO_SLOTS).fill(null),
    };
    shared.set(reactor, progress);
  }
  return progress;
}

export class Spans implements IoOwner {
  readonly #core: PoolCore;
  readonly #progress: Progress;

  constructor(core: PoolCore) {
    this.#core = core;
    this.#progress = progressOf(core.reactor);
  }

  /** Takes on a request whose range has been checked. */
  begin(replica: Replica, slot: number): void {
    const p = this.#progress;
    p.at[slot] = 0;
    p.pieces[slot] = 0;
    p.status[slot] = IoStatus.OK;
    p.phase[slot] = IDLE;
    p.replica[slot] = replica;
    const epoch = replica.requests.current;
    epoch.count++;
    p.epoch[slot] = epoch;
    this.#advance(slot);
  }

  /** Lets a parked request go on, or fail with `status`. */
  resume(slot: number, status: IoStatus): void {
    const p = this.#progress;
    assert(p.phase[slot] === PARKED, "a resumed request was parked");
    p.phase[slot] = IDLE;
    if (status !== IoStatus.OK) p.status[slot] = status;
    this.#advance(slot);
  }

  /** A piece has ended. */
  ioDone(piece: number): void {
    const { io } = this.#core;
    const p = this.#progress;
    const slot = io.parent[piece]!;
    const status = io.status[piece]!;
    io.give(piece);
    if (status !== IoStatus.OK) p.status[slot] = status;
    p.pieces[slot] = p.pieces[slot]! - 1;
    if (p.phase[slot] === IDLE) this.#advance(slot);
  }

  #advance(slot: number): void {
    const { io } = this.#core;
    const p = this.#progress;
    const length = io.length[slot]!;
    p.phase[slot] = RUNNING;
    while (
      p.status[slot] === IoStatus.OK &&
      p.at[slot]! < length &&
      p.pieces[slot]! < SPLIT_PIECES
    ) {
      if (this.#step(slot, p.replica[slot]!) === Step.PARKED) {
        p.phase[slot] = PARKED;
        return;
      }
    }
    p.phase[slot] = IDLE;
    const isOver = p.status[slot] !== IoStatus.OK || p.at[slot]! >= length;
    if (isOver && p.pieces[slot] === 0) this.#finish(slot);
  }

  #finish(slot: number): void {
    const p = this.#progress;
    const epoch = p.epoch[slot]!;
    p.replica[slot] = null;
    p.epoch[slot] = null;
    this.#core.io.complete(slot, p.status[slot]!);
    epoch.leave();
  }

  #fail(slot: number, status: IoStatus): Step {
    this.#progress.status[slot] = status;
    return Step.FAILED;
  }

  #step(slot: number, replica: Replica): Step {
    const { io, clusterBytes } = this.#core;
    const done = this.#progress.at[slot]!;
    const offset = io.offset[slot]! + done;
    const left = io.length[slot]! - done;
    const index = Math.floor(offset / clusterBytes);
    const within = offset - index * clusterBytes;
    const op = io.op[slot]!;
    if (op === IoOp.READ) return this.#read(slot, replica, index, within, left);
    if ((replica.gate & (Gate.FAULTED | Gate.READONLY)) !== 0) {
      return this.#fail(slot, replica.refusal());
    }
    if (op === IoOp.WRITE) return this.#write(slot, replica, index, within, left);
    const isWhole =
      within === 0 && (left >= clusterBytes || offset + left === replica.object.sizeBytes);
    return isWhole
      ? this.#unmap(slot, replica, index, left)
      : this.#zeroPart(slot, replica, index, within, left);
  }

  /** Bytes from `within` of the run of neighbours that starts at `index`, `left` at most. */
  #runBytes(
    map: Int32Array,
    index: number,
    within: number,
    left: number,
    isWrite: boolean,
  ): number {
    const { clusterBytes } = this.#core;
    const first = map[index]! & CLUSTER_MASK;
    let bytes = clusterBytes - within;
    for (let k = 1; bytes < left; k++) {
      const entry = map[index + k]!;
      if (entry < 0 || (entry & CLUSTER_MASK) !== first + k) break;
      if (isWrite && entry >>> SHARED_SHIFT !== 0) break;
      bytes += clusterBytes;
    }
    return Math.min(bytes, left);
  }

  #read(slot: number, replica: Replica, index: number, within: number, left: number): Step {
    const { io, clusterBytes, reactor } = this.#core;
    const { map } = replica.object;
    const p = this.#progress;
    const entry = map[index]!;
    if (entry >= 0) {
      const bytes = this.#runBytes(map, index, within, left, false);
      this.#piece(slot, IoOp.READ, (entry & CLUSTER_MASK) * clusterBytes + within, bytes);
      return Step.GO_ON;
    }
    let bytes = clusterBytes - within;
    for (let k = 1; bytes < left && map[index + k]! < 0; k++) bytes += clusterBytes;
    bytes = Math.min(bytes, left);
    fillMemory(reactor.arena.address + io.buffer[slot]! + p.at[slot]!, 0, bytes);
    p.at[slot] = p.at[slot]! + bytes;
    return Step.GO_ON;
  }

  #write(slot: number, replica: Replica, index: number, within: number, left: number): Step {
    const { clusterBytes } = this.#core;
    const { map } = replica.object;
    const entry = map[index]!;
    if (entry >>> SHARED_SHIFT === 0) {
      const bytes = this.#runBytes(map, index, within, left, true);
      this.#piece(slot, IoOp.WRITE, entry * clusterBytes + within, bytes);
      return Step.GO_ON;
    }
    const last = index + Math.floor((within + left - 1) / clusterBytes);
    return this.#makeWritable(slot, replica, index, last);
  }

  /** Begins what the entries need, all at once so that it shares commits, and waits for the first. */
  #makeWritable(slot: number, replica: Replica, index: number, last: number): Step {
    const { ops } = this.#core;
    const { map } = replica.object;
    for (let i = index; i <= last; i++) {
      if (!needsWritable(map[i]!)) continue;
      if (!ops.hasFree) {
        if (i > index) break;
        ops.waitForFree(slot);
        return Step.PARKED;
      }
      const status = ops.beginWritable(replica, i);
      if (status !== IoStatus.OK) {
        if (i > index) break;
        return this.#fail(slot, status);
      }
    }
    ops.wait(ops.find(replica, index), slot);
    return Step.PARKED;
  }

  /** Unmaps whole clusters from `index` on, up to the next one that is busy. */
  #unmap(slot: number, replica: Replica, index: number, left: number): Step {
    const { ops, clusterBytes } = this.#core;
    const { map } = replica.object;
    const p = this.#progress;
    const reachesEnd = index * clusterBytes + left === replica.object.sizeBytes;
    const whole = reachesEnd ? Math.ceil(left / clusterBytes) : Math.floor(left / clusterBytes);
    const end = index + Math.min(whole, UNMAP_CLUSTERS_MAX);
    let from = index;
    while (from < end && map[from] === UNMAPPED) from++;
    if (from > index) {
      p.at[slot] = p.at[slot]! + Math.min(left, (from - index) * clusterBytes);
      return Step.GO_ON;
    }
    if (isBusy(map[from]!)) {
      ops.wait(ops.find(replica, from), slot);
      return Step.PARKED;
    }
    if (!ops.hasFree) {
      ops.waitForFree(slot);
      return Step.PARKED;
    }
    let to = from + 1;
    while (to < end && !isBusy(map[to]!)) to++;
    const op = ops.beginUnmap(replica, from, to - from);
    p.at[slot] = p.at[slot]! + Math.min(left, (to - from) * clusterBytes);
    ops.wait(op, slot);
    return Step.PARKED;
  }

  /** Zeroes a part of one cluster: nothing to do where it is not mapped. */
  #zeroPart(slot: number, replica: Replica, index: number, within: number, left: number): Step {
    const { ops, clusterBytes } = this.#core;
    const p = this.#progress;
    const entry = replica.object.map[index]!;
    const bytes = Math.min(left, clusterBytes - within);
    if (isBusy(entry)) {
      ops.wait(ops.find(replica, index), slot);
      return Step.PARKED;
    }
    if (entry < 0) {
      p.at[slot] = p.at[slot]! + bytes;
      return Step.GO_ON;
    }
    if ((entry & SHARED) !== 0) return this.#makeWritable(slot, replica, index, index);
    assert((entry & BUSY) === 0, "the entry is idle");
    this.#piece(slot, IoOp.WRITE_ZEROES, entry * clusterBytes + within, bytes);
    return Step.GO_ON;
  }

  /** Sends a piece of the request to the device. */
  #piece(slot: number, op: number, deviceOffset: number, bytes: number): void {
    const { io, bdev, epochs } = this.#core;
    const p = this.#progress;
    const at = p.at[slot]!;
    const flags = io.flags[slot]! | (op === IoOp.WRITE_ZEROES ? IoFlag.UNMAP : 0);
    const buffer = op === IoOp.WRITE_ZEROES ? -1 : io.buffer[slot]! + at;
    const piece = io.take(op, deviceOffset, bytes, buffer, flags, io.startedNs[slot]!);
    io.parent[piece] = slot;
    p.at[slot] = at + bytes;
    p.pieces[slot] = p.pieces[slot]! + 1;
    io.push(piece, this);
    const epoch = epochs.current;
    epoch.count++;
    io.push(piece, epoch);
    bdev.submit(piece);
  }
}
