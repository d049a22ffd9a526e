/**
 * A host with several paths to one volume, in a process of its own: it does with them what Linux's native
 * multipath does, and judges what it is told. Started by `PathHost`; options come as JSON in the first argument,
 * reports go out as lines of JSON, and it ends when its standard input does.
 *
 * - A writer writes ascending numbers to one block, one write at a time, over whichever of its paths takes
 *   them: a path that fails is left for the next one, and the write is tried again there.
 * - A reader reads that block over one path. A read that was begun after a write was acknowledged must not
 *   return an older number, whatever path it came by.
 */
import { writeSync } from "node:fs";
import { type NvmfBdev, openNvmfBdev } from "../../src/engine/bdev/nvmf/nvmf-bdev.ts";
import { nvmfDefaults } from "../../src/engine/bdev/nvmf/options.ts";
import { parseBdevUri } from "../../src/engine/bdev/uri.ts";
import { IoOp } from "../../src/engine/reactor/io-table.ts";
import { ioPromise, Reactor } from "../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../src/errors.ts";

export interface PathHostOptions {
  /** Device URIs of the paths that are written over, in order of preference. */
  readonly writers: readonly string[];
  /** Paths that are read over, each by itself. */
  readonly readers: readonly string[];
  readonly hostNqn: string;
  readonly hostId: string;
  readonly keepAliveMs: number;
  /** Writes at a time, each to a block of its own. */
  readonly depth: number;
  /** The numbers written are above this. */
  readonly base: number;
}

/** What is reported every `REPORT_MS`, of the time since the last report. */
export interface PathHostReport {
  /** Writes acknowledged and reads answered so far. */
  readonly writes: number;
  readonly reads: readonly number[];
  /** Highest number acknowledged so far in each of `depth` blocks. */
  readonly acknowledged: readonly number[];
  /** What the readers found last in each of `depth` blocks. */
  readonly found: readonly number[];
  /** Longest time between two acknowledged writes since the last report, that which goes on included. */
  readonly gapMs: number;
  /** Reads so far that returned less than was acknowledged before they were begun. */
  readonly stale: number;
  /** The last of them, in words. */
  readonly staleText: string;
}

const BLOCK = 4096;
const ARENA_BYTES = 16 << 20;
const REPORT_MS = 50;
const RETRY_MS = 2;
const RECONNECT_MS = 20;

class Host {
  readonly reactor = new Reactor({ index: 0, arenaBytes: ARENA_BYTES });
  readonly #options: PathHostOptions;
  readonly #acknowledged: number[];
  readonly #found: number[];
  #writes = 0;
  readonly #reads: number[];
  #stale = 0;
  #staleText = "";
  #lastNs = 0;
  #gapNs = 0;

  constructor(options: PathHostOptions) {
    this.#options = options;
    this.#reads = options.readers.map(() => 0);
    this.#found = Array.from({ length: options.depth }, () => -1);
    this.#acknowledged = Array.from({ length: options.depth }, () => 0);
  }

  async run(): Promise<void> {
    const { writers, readers } = this.#options;
    for (const [index, uri] of readers.entries()) this.reactor.background(this.#read(uri, index));
    if (writers.length > 0) this.reactor.background(this.#writeAll(writers));
    this.#lastNs = this.reactor.now;
    for (;;) {
      await this.reactor.sleep(REPORT_MS);
      this.#report();
    }
  }

  #report(): void {
    const gapNs = Math.max(this.#gapNs, this.reactor.now - this.#lastNs);
    this.#gapNs = 0;
    const report: PathHostReport = {
      writes: this.#writes,
      reads: this.#reads,
      acknowledged: this.#acknowledged,
      found: this.#found,
      gapMs: gapNs / 1e6,
      stale: this.#stale,
      staleText: this.#staleText,
    };
    // Ends this process when nobody listens any more.
    writeSync(1, `${JSON.stringify(report)}\n`);
  }

  /** Opens a path, as often as it takes. */
  async #open(uri: string): Promise<NvmfBdev> {
    const { hostNqn, hostId, keepAliveMs } = this.#options;
    const parsed = parseBdevUri(uri);
    if (parsed.driver !== "nvmf") throw new Error(`${uri} is no NVMe path`);
    const settings = {
      ...nvmfDefaults,
      keepAliveMs,
      adminTimeoutMs: keepAliveMs,
      reconnectDelayMs: RECONNECT_MS,
      reconnectDelayMaxMs: 1_000,
    };
    for (;;) {
      try {
        return await openNvmfBdev(this.reactor, parsed, { nqn: hostNqn, id: hostId }, settings);
      } catch (error) {
        if (!(error instanceof TrilithError)) throw error;
        await this.reactor.sleep(RECONNECT_MS);
      }
    }
  }

  async #io(bdev: NvmfBdev, op: number, block: number, buffer: number): Promise<number> {
    const { io } = this.reactor;
    if (!io.promise(1 + bdev.slotsPerIo)) throw new Error("request slots are used up");
    const slot = io.take(op, block * BLOCK, BLOCK, buffer, 0, this.reactor.now);
    const status = await ioPromise(this.reactor, slot, (taken) => bdev.submit(taken));
    io.release(1 + bdev.slotsPerIo);
    return status;
  }

  async #writeAll(uris: readonly string[]): Promise<void> {
    const paths: NvmfBdev[] = [];
    const opening = uris.map(async (uri, index) => {
      const path = await this.#open(uri);
      paths[index] = path;
    });
    await Promise.race(opening);
    const blocks = Array.from({ length: this.#options.depth }, (_, block) => block);
    await Promise.all(blocks.map((block) => this.#write(paths, uris.length, block)));
  }

  async #write(paths: readonly NvmfBdev[], count: number, block: number): Promise<void> {
    const { reactor } = this;
    let next = this.#options.base + 1;
    const buffer = reactor.arena.alloc(BLOCK, 0);
    let at = 0;
    for (;;) {
      const path = paths[at % count];
      if (path?.state !== "live") {
        at++;
        if (at % count === 0) await reactor.sleep(RETRY_MS);
        continue;
      }
      reactor.arena.u8.fill(0, buffer, buffer + BLOCK);
      reactor.arena.i32[buffer >> 2] = next;
      const status = await this.#io(path, IoOp.WRITE, block, buffer);
      if (status !== IoStatus.OK) {
        at++;
        await reactor.sleep(RETRY_MS);
        continue;
      }
      this.#acknowledged[block] = next;
      next++;
      this.#writes++;
      const { now } = reactor;
      this.#gapNs = Math.max(this.#gapNs, now - this.#lastNs);
      this.#lastNs = now;
    }
  }

  async #read(uri: string, index: number): Promise<void> {
    const { reactor } = this;
    const buffer = reactor.arena.alloc(BLOCK, 0);
    const path = await this.#open(uri);
    const { depth } = this.#options;
    for (let block = 0; ; block = (block + 1) % depth) {
      const known = this.#acknowledged[block]!;
      const status = path.state === "live" ? await this.#io(path, IoOp.READ, block, buffer) : -1;
      if (status !== IoStatus.OK) {
        await reactor.sleep(RETRY_MS);
        continue;
      }
      this.#reads[index] = this.#reads[index]! + 1;
      const found = reactor.arena.i32[buffer >> 2]!;
      this.#found[block] = found;
      if (found < known) {
        this.#stale++;
        this.#staleText = `${uri} returned ${found} when ${known} had been acknowledged`;
      }
      // Writes over other paths are to get on as well.
      await reactor.sleep(RETRY_MS / 2);
    }
  }
}

if (import.meta.main) {
  const host = new Host(JSON.parse(process.argv[2]!) as PathHostOptions);
  host.reactor.runUntil(host.run());
}
