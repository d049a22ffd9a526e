/** What a host does with its volume: random reads, writes, zeroes and flushes, each checked. */
import { IoFlag, IoOp } from "../../../src/engine/reactor/io-table.ts";
import { BLOCK_BYTES, VolumeChecker } from "./checker.ts";
import type { HostVolume } from "./host.ts";
import type { Process, World } from "./world.ts";

/** The parts of the volume that are used: few enough that blocks are written again and again. */
const SPOTS = 24;
const SPOT_BLOCKS = 64;
const DEPTH = 4;
const IO_BLOCKS_MAX = 32;

export class Workload {
  readonly checker: VolumeChecker;
  readonly host: HostVolume;
  readonly #world: World;
  readonly #process: Process;
  readonly #spots: number[];
  readonly #volumeBlocks: number;
  #isStopped = false;
  #underWay = 0;
  /** When the oldest request without an outcome was begun. */
  readonly #begunMs = new Set<number>();
  errors = 0;
  worstMs = 0;

  constructor(process: Process, host: HostVolume, volume: number, sizeBytes: number) {
    this.#process = process;
    this.#world = process.world;
    this.host = host;
    this.checker = new VolumeChecker(volume);
    this.#volumeBlocks = sizeBytes / BLOCK_BYTES;
    const { random } = this.#world;
    this.#spots = Array.from({ length: SPOTS }, () =>
      random.below(this.#volumeBlocks - SPOT_BLOCKS),
    );
  }

  get outstanding(): number {
    return this.#underWay;
  }

  start(): void {
    this.#isStopped = false;
    for (let i = 0; i < DEPTH; i++) this.#next();
  }

  /** Begins nothing any more. */
  stop(): void {
    this.#isStopped = true;
  }

  #next(): void {
    const { random } = this.#world;
    const thinkMs = random.chance(0.05) ? random.next() * 1_500 : random.next() * 60;
    this.#world.after(thinkMs, this.#process, () => {
      if (!this.#isStopped) this.#begin();
    });
  }

  #range(): { first: number; count: number } {
    const { random } = this.#world;
    const first = random.pick(this.#spots) + random.below(SPOT_BLOCKS);
    const count = random.chance(0.3) ? 1 : random.between(1, IO_BLOCKS_MAX);
    return { first, count: Math.min(count, this.#volumeBlocks - first) };
  }

  #begin(): void {
    const { random } = this.#world;
    const roll = random.next();
    const { first, count } = this.#range();
    if (roll < 0.4) this.read(first, count, () => this.#next());
    else if (roll < 0.92) this.#write(first, count, random.chance(0.1), random.chance(0.15));
    else this.flush(() => this.#next());
  }

  /** Sends one request; `ended` with its data when it succeeded. */
  #send(
    op: number,
    offset: number,
    length: number,
    flags: number,
    data: Uint8Array | null,
    ended: (data: Uint8Array) => void,
  ): void {
    const begunMs = this.#world.nowMs;
    this.#underWay++;
    this.#begunMs.add(begunMs);
    const done = (status: number, bytes: Uint8Array): void => {
      this.#underWay--;
      this.#begunMs.delete(begunMs);
      this.worstMs = Math.max(this.worstMs, this.#world.nowMs - begunMs);
      this.#world.mix(op, offset, status);
      if (status === 0) ended(bytes);
      else {
        this.errors++;
        this.#world.fail(
          new Error(
            `I/O error: operation ${op} at ${offset} failed with NVMe status ${status.toString(16)}`,
          ),
        );
      }
    };
    this.host.submit({ op, offset, length, flags, data, done });
  }

  read(first: number, count: number, next: () => void): void {
    const begun = this.checker.beginRead(first, count);
    const length = count * BLOCK_BYTES;
    this.#send(IoOp.READ, first * BLOCK_BYTES, length, 0, null, (data) => {
      const wrong = this.checker.endRead(begun, data);
      if (wrong !== null) this.#world.fail(new Error(wrong));
      next();
    });
  }

  #write(first: number, count: number, isZero: boolean, fua: boolean): void {
    if (this.checker.isWriting(first, count)) {
      this.#next();
      return;
    }
    const { begun, data } = this.checker.beginWrite(first, count, isZero);
    const op = isZero ? IoOp.WRITE_ZEROES : IoOp.WRITE;
    const flags = fua ? IoFlag.FUA : 0;
    const length = count * BLOCK_BYTES;
    this.#send(op, first * BLOCK_BYTES, length, flags, isZero ? null : data, () => {
      this.checker.endWrite(begun, fua);
      this.#next();
    });
  }

  flush(next: () => void): void {
    const covered = this.checker.beginFlush();
    this.#send(IoOp.FLUSH, 0, 0, 0, null, () => {
      covered();
      next();
    });
  }

  /** How long the oldest request has been waiting. */
  oldestMs(): number {
    return this.#begunMs.size === 0 ? 0 : this.#world.nowMs - Math.min(...this.#begunMs);
  }
}
