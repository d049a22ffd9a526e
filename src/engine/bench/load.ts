/**
 * The load generator: keeps a number of requests in flight on one device, on the device's reactor,
 * counts and times them, and can verify every byte it reads.
 *
 * It is driven by completions: each worker (queue depth times jobs of them) issues its next request
 * when its last one has ended. Times are those of the reactor's turns. Nothing is allocated per
 * request.
 */
import { Op } from "../../../ffi/index.ts";
import { IoStatus, ioStatusCode, TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { IoOp, type IoOwner, type IoTable } from "../reactor/io-table.ts";
import { BUFFER_BYTES_MAX } from "../reactor/limits.ts";
import type { CqeHandler, Reactor } from "../reactor/reactor.ts";
import { Histogram, type LatencySummary } from "./histogram.ts";
import { Ledger, type Mismatch, makeNoise } from "./ledger.ts";
import {
  ERROR_PAUSE_MS,
  FINAL_READS_MAX,
  ISSUES_PER_TURN,
  NOISE_BYTES,
  RATE_TICK_MS,
  WORKERS_MAX,
} from "./limits.ts";
import { Random } from "./random.ts";

/** Patterns: random or sequential; reads, writes, or both. */
export const loadPatterns = ["randread", "randwrite", "randrw", "read", "write", "rw"] as const;
export type LoadPattern = (typeof loadPatterns)[number];

export interface LoadOptions {
  readonly bdev: Bdev;
  readonly pattern: LoadPattern;
  /** Share of reads in `randrw` and `rw`, in percent. */
  readonly readPercent: number;
  /** Bytes per request: a multiple of the device's block size, at most 1 MiB. */
  readonly requestBytes: number;
  /** Requests in flight per job. */
  readonly queueDepth: number;
  /** Jobs; with a sequential pattern each has a part of the range of its own. */
  readonly jobs: number;
  /** Ends after this long; undefined: when `stop` is called. */
  readonly runtimeMs?: number;
  /** First byte of the range and its length; undefined: to the end of the device. */
  readonly offset?: number;
  readonly size?: number;
  /** Writes self-describing blocks and checks every one that is read, all of them at the end. */
  readonly verify?: boolean;
  /** Requests per second; undefined: as many as the device takes. */
  readonly ratePerSec?: number;
  /** 32 bits; the same seed gives the same sequence of requests. */
  readonly seed: number;
}

export interface LoadStats {
  /** `final` is the pass over everything written, at the end of a verifying load. */
  readonly phase: "running" | "final" | "done";
  /** Duration of the load so far, the final pass not counted. */
  readonly elapsedNs: number;
  /** Requests that succeeded, and their bytes, the final pass not counted. */
  readonly reads: number;
  readonly writes: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  /** Requests that failed, by error code; those of the final pass are in `finalErrors`. */
  readonly errors: Readonly<Record<string, number>>;
  readonly errorCount: number;
  readonly finalErrors: number;
  /** Units that could not be read in the final pass. */
  readonly unreadable: number;
  readonly blocksVerified: number;
  readonly mismatches: number;
}

export interface LoadResult extends LoadStats {
  readonly phase: "done";
  readonly readLatency: LatencySummary;
  readonly writeLatency: LatencySummary;
  readonly latency: LatencySummary;
  /** The first of the mismatches. */
  readonly firstMismatches: readonly Mismatch[];
}

/** A load under way. */
export interface Load {
  stats(): LoadStats;
  /** Latencies of everything so far. */
  latency(): LatencySummary;
  /** Lets requests in flight end and begins the final pass, when there is one. */
  stop(): void;
  /** Resolves when everything has ended. */
  readonly done: Promise<LoadResult>;
}

const NONE = -1;
const TOKEN_NEXT_TURN = 0;

function invalid(what: string, remedy = ""): TrilithError {
  return new TrilithError("InvalidArgument", `load: ${what}`, remedy);
}

function checkOptions(o: LoadOptions): void {
  const { blockSize } = o.bdev;
  const isCount = (n: number, max: number): boolean => Number.isInteger(n) && n >= 1 && n <= max;
  if (!isCount(o.requestBytes, BUFFER_BYTES_MAX) || o.requestBytes % blockSize !== 0) {
    throw invalid(
      `request size ${o.requestBytes} is not a multiple of the device's ${blockSize} up to 1 MiB`,
    );
  }
  if (!isCount(o.queueDepth, WORKERS_MAX) || !isCount(o.jobs, WORKERS_MAX)) {
    throw invalid(`queue depth and jobs are numbers from 1 to ${WORKERS_MAX}`);
  }
  if (o.queueDepth * o.jobs > WORKERS_MAX) {
    throw invalid(`queue depth times jobs is more than ${WORKERS_MAX}`);
  }
  if (!(o.readPercent >= 0 && o.readPercent <= 100)) throw invalid("mix is not 0 to 100 percent");
  if (o.verify === true && (o.pattern === "read" || o.pattern === "randread")) {
    throw invalid(
      `verification needs writes, and "${o.pattern}" has none`,
      "use rw, randrw, write or randwrite",
    );
  }
}

/** The range in bytes, a whole number of requests. */
function rangeOf(o: LoadOptions): { offset: number; units: number } {
  const bytes = o.bdev.blockCount * o.bdev.blockSize;
  const offset = o.offset ?? 0;
  const size = Math.min(o.size ?? bytes - offset, bytes - offset);
  if (offset < 0 || offset % o.bdev.blockSize !== 0) {
    throw invalid(`offset ${offset} is not a multiple of the device's ${o.bdev.blockSize}`);
  }
  const units = Math.floor(size / o.requestBytes);
  if (units < 1) throw invalid("the range does not hold one request");
  return { offset, units };
}

class LoadRun implements Load, IoOwner, CqeHandler {
  readonly done: Promise<LoadResult>;

  readonly #options: LoadOptions;
  readonly #bdev: Bdev;
  readonly #reactor: Reactor;
  readonly #io: IoTable;
  readonly #random: Random;
  readonly #ledger: Ledger | null;
  readonly #handler: number;
  readonly #offset: number;
  readonly #units: number;
  readonly #bytes: number;
  readonly #isRandom: boolean;
  readonly #readShare: number;
  readonly #workers: number;
  readonly #noise: number;
  readonly #buffers: Int32Array;
  /** Sequential patterns: next unit of each job. */
  readonly #cursors: Float64Array;
  /** Unit of each worker's request. */
  readonly #unitOf: Float64Array;
  /** Workers without a request, first come first served. */
  readonly #ready: Int32Array;
  #readyHead = 0;
  #readyCount = 0;
  readonly #paused: Int32Array;
  #pausedCount = 0;
  readonly #readLatency = new Histogram();
  readonly #writeLatency = new Histogram();
  readonly #errors = new Float64Array(32);
  readonly #startedNs: number;
  readonly #isSynchronous: boolean;
  #endedNs = 0;
  #phase: LoadStats["phase"] = "running";
  #inFlight = 0;
  #issued = 0;
  #issuing = false;
  #stopping = false;
  #tickSet = false;
  #turnQueued = false;
  #finalNext = 0;
  #finalErrors = 0;
  #unreadable = 0;
  /** A unit was given up, and nothing could be read since: the others are asked for once only. */
  #isLost = false;
  readonly #finalReads: Uint8Array;
  #resolve: (result: LoadResult) => void = () => {};

  constructor(options: LoadOptions) {
    checkOptions(options);
    const { offset, units } = rangeOf(options);
    const { bdev } = options;
    this.#options = options;
    this.#bdev = bdev;
    this.#reactor = bdev.reactor;
    this.#io = bdev.reactor.io;
    this.#offset = offset;
    this.#units = units;
    this.#bytes = options.requestBytes;
    this.#random = new Random(options.seed);
    this.#isRandom = options.pattern.startsWith("rand");
    this.#isSynchronous = bdev.synchronous;
    const { pattern } = options;
    if (pattern.endsWith("read")) this.#readShare = 100;
    else this.#readShare = pattern.endsWith("rw") ? options.readPercent : 0;
    // A verifying load never has two requests on one unit, so more workers could not all be busy.
    const wanted = options.queueDepth * options.jobs;
    this.#workers = options.verify === true ? Math.min(wanted, units) : wanted;
    this.#buffers = new Int32Array(this.#workers).fill(NONE);
    this.#unitOf = new Float64Array(this.#workers);
    this.#ready = new Int32Array(this.#workers);
    this.#paused = new Int32Array(this.#workers);
    this.#finalReads = new Uint8Array(this.#workers);
    this.#cursors = Float64Array.from({ length: options.jobs }, (_, job) =>
      Math.floor((units * job) / options.jobs),
    );
    this.#noise = makeNoise(this.#reactor.arena, this.#random);
    try {
      this.#ledger =
        options.verify === true
          ? new Ledger(
              this.#reactor.arena,
              this.#noise,
              options.seed,
              bdev.blockSize,
              this.#bytes,
              offset,
              units,
            )
          : null;
      this.#takeMemory();
    } catch (error) {
      this.#freeMemory();
      throw error;
    }
    this.#handler = this.#reactor.addHandler(this);
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#startedNs = Bun.nanoseconds();
    for (let worker = 0; worker < this.#workers; worker++) this.#makeReady(worker);
    if (options.runtimeMs !== undefined) {
      const endNs = this.#startedNs + options.runtimeMs * 1e6;
      this.#reactor.timers.at(endNs, () => this.stop());
    }
    this.#nextTurn();
  }

  #takeMemory(): void {
    const { arena } = this.#reactor;
    for (let worker = 0; worker < this.#workers; worker++) {
      const buffer = arena.alloc(this.#bytes, 0);
      const promised = buffer >= 0 && this.#io.promise(this.#bdev.slotsPerIo + 1);
      if (buffer >= 0 && !promised) arena.free(buffer);
      if (!promised) {
        throw new TrilithError(
          "ResourceExhausted",
          `load: no memory or slots for ${this.#workers} requests of ${this.#bytes} bytes`,
          "lower the queue depth, the jobs or the request size",
        );
      }
      this.#buffers[worker] = buffer;
      const { u8 } = arena;
      for (let at = 0; at < this.#bytes; at += NOISE_BYTES) {
        const length = Math.min(NOISE_BYTES, this.#bytes - at);
        u8.copyWithin(buffer + at, this.#noise, this.#noise + length);
      }
    }
  }

  #freeMemory(): void {
    const { arena } = this.#reactor;
    arena.free(this.#noise);
    for (const buffer of this.#buffers) {
      if (buffer === NONE) continue;
      arena.free(buffer);
      this.#io.release(this.#bdev.slotsPerIo + 1);
    }
  }

  // --------------------------------------------------------------------------------- issuing

  #makeReady(worker: number): void {
    const at = this.#readyHead + this.#readyCount++;
    this.#ready[at < this.#workers ? at : at - this.#workers] = worker;
  }

  #takeReady(): number {
    const worker = this.#ready[this.#readyHead]!;
    this.#readyHead = this.#readyHead + 1 < this.#workers ? this.#readyHead + 1 : 0;
    this.#readyCount--;
    return worker;
  }

  /** Goes on in the next turn. */
  #nextTurn(): void {
    if (this.#turnQueued) return;
    this.#turnQueued = true;
    this.#reactor.ring.prep(Op.NOP, -1, 0, 0, 0, 0, TOKEN_NEXT_TURN, this.#handler);
  }

  onCqe(): void {
    this.#turnQueued = false;
    if (this.#phase === "done") this.#finish();
    else this.#issueReady();
  }

  /** Lets ready workers issue their next requests. */
  #issueReady(): void {
    this.#issuing = true;
    let budget = ISSUES_PER_TURN;
    while (this.#readyCount > 0) {
      if (this.#stopping && this.#phase === "running") break;
      if (budget-- === 0) {
        this.#nextTurn();
        break;
      }
      if (this.#phase === "running" && !this.#rateAllows()) break;
      const worker = this.#takeReady();
      if (this.#phase === "running") this.#issue(worker);
      else this.#issueFinal(worker);
    }
    this.#issuing = false;
    if (this.#inFlight === 0 && this.#pausedCount === 0) this.#phaseEnded();
  }

  #rateAllows(): boolean {
    const { ratePerSec } = this.#options;
    if (ratePerSec === undefined) return true;
    const elapsedNs = this.#reactor.now - this.#startedNs;
    if (this.#issued <= (elapsedNs / 1e9) * ratePerSec) return true;
    if (!this.#tickSet) {
      this.#tickSet = true;
      this.#reactor.after(RATE_TICK_MS, () => {
        this.#tickSet = false;
        if (this.#phase !== "done") this.#issueReady();
      });
    }
    return false;
  }

  #issue(worker: number): void {
    const random = this.#random;
    const readShare = this.#readShare;
    const isRead = readShare === 100 || (readShare > 0 && random.below(100) < readShare);
    let unit = this.#isRandom ? random.below(this.#units) : this.#nextInSequence(worker);
    const ledger = this.#ledger;
    if (ledger !== null) {
      // Fewer units are in use than there are workers, and no more workers than units: one is free.
      while (!ledger.claim(unit, !isRead)) unit = unit + 1 < this.#units ? unit + 1 : 0;
      if (!isRead) ledger.fill(unit, this.#buffers[worker]!);
    }
    this.#issued++;
    this.#submit(worker, unit, isRead ? IoOp.READ : IoOp.WRITE);
  }

  #nextInSequence(worker: number): number {
    const { jobs } = this.#options;
    const job = worker % jobs;
    const unit = this.#cursors[job]!;
    const end = Math.floor((this.#units * (job + 1)) / jobs);
    const begin = Math.floor((this.#units * job) / jobs);
    this.#cursors[job] = unit + 1 < end ? unit + 1 : begin;
    return Math.min(unit, this.#units - 1);
  }

  #submit(worker: number, unit: number, op: number): void {
    const io = this.#io;
    const nowNs = this.#isSynchronous ? Bun.nanoseconds() : this.#reactor.now;
    const at = this.#offset + unit * this.#bytes;
    const slot = io.take(op, at, this.#bytes, this.#buffers[worker]!, 0, nowNs);
    this.#unitOf[worker] = unit;
    io.tagA[slot] = worker;
    io.push(slot, this);
    this.#inFlight++;
    this.#bdev.submit(slot);
  }

  // ------------------------------------------------------------------------------ completions

  ioDone(slot: number): void {
    const io = this.#io;
    const worker = io.tagA[slot]!;
    const status = io.status[slot]!;
    const isRead = io.op[slot] === IoOp.READ;
    const startedNs = io.startedNs[slot]!;
    io.give(slot);
    this.#inFlight--;
    if (this.#ledger !== null) this.#account(this.#ledger, worker, isRead, status);
    if (this.#phase !== "running") {
      this.#finalDone(worker, status);
      return;
    }
    if (status === IoStatus.OK) {
      const nowNs = this.#isSynchronous ? Bun.nanoseconds() : this.#reactor.now;
      if (isRead) this.#readLatency.add(nowNs - startedNs);
      else this.#writeLatency.add(nowNs - startedNs);
      this.#makeReady(worker);
      if (!this.#issuing) this.#issueReady();
    } else {
      this.#errors[status] = this.#errors[status]! + 1;
      this.#pause(worker);
    }
  }

  #account(ledger: Ledger, worker: number, isRead: boolean, status: number): void {
    const unit = this.#unitOf[worker]!;
    const succeeded = status === IoStatus.OK;
    if (isRead) ledger.read(unit, this.#buffers[worker]!, succeeded);
    else ledger.wrote(unit, succeeded);
  }

  #pause(worker: number): void {
    this.#paused[this.#pausedCount++] = worker;
    if (this.#pausedCount > 1) return;
    this.#reactor.after(ERROR_PAUSE_MS, () => {
      while (this.#pausedCount > 0) this.#makeReady(this.#paused[--this.#pausedCount]!);
      if (!this.#issuing) this.#issueReady();
    });
  }

  // ------------------------------------------------------------------------------- the end

  stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#endedNs = this.#reactor.now;
    this.#nextTurn();
  }

  /** Nothing is in flight and nobody pauses: on to the next phase, if this one is over. */
  #phaseEnded(): void {
    if (this.#phase === "running" && this.#stopping) {
      if (this.#ledger === null) this.#endSoon();
      else {
        this.#phase = "final";
        this.#nextTurn();
      }
    } else if (this.#phase === "final" && this.#finalNext >= this.#units) this.#endSoon();
  }

  /** Ends in a turn of its own, in which nothing refers to this load any more. */
  #endSoon(): void {
    this.#phase = "done";
    this.#nextTurn();
  }

  /** Reads the next unit that was written to, or retires the worker. */
  #issueFinal(worker: number): void {
    const ledger = this.#ledger!;
    let unit: number;
    if (this.#finalReads[worker]! > 0) unit = this.#unitOf[worker]!;
    else {
      while (this.#finalNext < this.#units && !ledger.touched(this.#finalNext)) this.#finalNext++;
      if (this.#finalNext >= this.#units) return;
      unit = this.#finalNext++;
    }
    ledger.claim(unit, false);
    this.#submit(worker, unit, IoOp.READ);
  }

  #finalDone(worker: number, status: number): void {
    if (status !== IoStatus.OK) {
      this.#finalErrors++;
      const tries = this.#finalReads[worker]! + 1;
      if (tries < FINAL_READS_MAX && !this.#isLost) {
        this.#finalReads[worker] = tries;
        this.#pause(worker);
        return;
      }
      this.#unreadable++;
      this.#isLost = true;
    } else this.#isLost = false;
    this.#finalReads[worker] = 0;
    this.#makeReady(worker);
    if (!this.#issuing) this.#issueReady();
  }

  #finish(): void {
    this.#reactor.removeHandler(this.#handler);
    this.#freeMemory();
    this.#resolve({
      ...this.stats(),
      phase: "done",
      readLatency: this.#readLatency.summary(),
      writeLatency: this.#writeLatency.summary(),
      latency: this.latency(),
      firstMismatches: this.#ledger?.mismatches ?? [],
    });
  }

  stats(): LoadStats {
    const errors: Record<string, number> = {};
    let errorCount = 0;
    this.#errors.forEach((count, status) => {
      if (count === 0) return;
      errors[ioStatusCode(status)] = count;
      errorCount += count;
    });
    const reads = this.#readLatency.count;
    const writes = this.#writeLatency.count;
    return {
      phase: this.#phase,
      elapsedNs: (this.#stopping ? this.#endedNs : Bun.nanoseconds()) - this.#startedNs,
      reads,
      writes,
      readBytes: reads * this.#bytes,
      writeBytes: writes * this.#bytes,
      errors,
      errorCount,
      finalErrors: this.#finalErrors,
      unreadable: this.#unreadable,
      blocksVerified: this.#ledger?.blocksVerified ?? 0,
      mismatches: this.#ledger?.mismatchCount ?? 0,
    };
  }

  latency(): LatencySummary {
    const all = new Histogram();
    all.merge(this.#readLatency);
    all.merge(this.#writeLatency);
    return all.summary();
  }
}

/**
 * Starts a load on `options.bdev`, on the thread of its reactor. Throws `InvalidArgument` or
 * `ResourceExhausted` (buffers of all requests come from the reactor's arena).
 */
export function startLoad(options: LoadOptions): Load {
  return new LoadRun(options);
}
