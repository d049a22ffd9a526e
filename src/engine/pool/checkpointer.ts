/**
 * Writes checkpoints in the background, a page per turn, while I/O and the journal go on.
 *
 * The slots take turns. When a checkpoint is durable, the journal up to the one *before* it may be
 * overwritten: the newest checkpoint may be damaged and the older one still leads to the present.
 */

import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import type { Area } from "./area.ts";
import {
  type CheckpointHeader,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  PAGE_PAYLOAD_BYTES,
  sealPage,
} from "./checkpoint-format.ts";
import { CheckpointSource } from "./checkpoint-source.ts";
import type { PoolDevice } from "./device.ts";
import type { Journal } from "./journal.ts";
import { CHECKPOINT_RING_SHARE } from "./limits.ts";
import { RecordEncoder } from "./records.ts";
import type { Space } from "./space.ts";
import type { PoolState } from "./state.ts";

export interface CheckpointerOptions {
  readonly device: PoolDevice;
  readonly state: PoolState;
  readonly space: Space;
  readonly journal: Journal;
  readonly slots: readonly [Area, Area];
  readonly tag: number;
  /** The newest checkpoint on disk and the slot it is in. */
  readonly newest: CheckpointHeader;
  readonly newestSlot: 0 | 1;
  /** A checkpoint could not be written: the disk fails metadata writes. */
  readonly onFailure: (status: IoStatus) => void;
  /** Runs background work; its errors end the process unless they are the pool's own. */
  readonly spawn: (task: () => Promise<void>) => void;
}

export class Checkpointer {
  /** What is being written; must be told before maps and bitmaps change. */
  source: CheckpointSource | null = null;
  readonly #options: CheckpointerOptions;
  readonly #encoder = new RecordEncoder(PAGE_PAYLOAD_BYTES);
  #newest: CheckpointHeader;
  #newestSlot: 0 | 1;
  #running = false;
  #failed = false;
  #idle: (() => void)[] = [];
  /** Checkpoints written since the pool was opened. */
  count = 0;

  constructor(options: CheckpointerOptions) {
    this.#options = options;
    this.#newest = options.newest;
    this.#newestSlot = options.newestSlot;
  }

  /** True when the journal since the newest checkpoint has become long. */
  get isDue(): boolean {
    const { journal } = this.#options;
    const since = journal.blocksSince(this.#newest.position.seq);
    return since * CHECKPOINT_RING_SHARE >= journal.ringBlocks;
  }

  /** Starts a checkpoint in the background unless one is running. */
  start(): void {
    if (this.#running || this.#failed) return;
    this.#options.spawn(() => this.#run());
  }

  /** Writes a checkpoint of the state as it is now; waits for a running one first. */
  async take(): Promise<void> {
    while (this.#running) await this.idle();
    if (!this.#failed) await this.#run();
  }

  /** Resolves when the checkpoint being written has ended. */
  idle(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  async #run(): Promise<void> {
    assert(!this.#running, "one checkpoint is written at a time");
    this.#running = true;
    const { state, space, journal, onFailure } = this.#options;
    const header: CheckpointHeader = {
      number: this.#newest.number + 1,
      position: journal.position,
      incarnation: journal.incarnation,
    };
    this.source = new CheckpointSource(state, space.zeroedBitmap());
    const slot = this.#newestSlot === 0 ? 1 : 0;
    const status = await this.#write(header, slot, this.source);
    this.source = null;
    this.#running = false;
    if (status === IoStatus.OK) {
      const before = this.#newest;
      this.#newest = header;
      this.#newestSlot = slot;
      this.count++;
      journal.retainFrom(before.position.seq);
    } else {
      this.#failed = true;
      onFailure(status);
    }
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }

  /** Writes all pages and flushes them; the first failure ends it. */
  async #write(header: CheckpointHeader, slot: 0 | 1, source: CheckpointSource): Promise<IoStatus> {
    const { device } = this.#options;
    const { reactor } = device;
    const area = this.#options.slots[slot];
    const buffers = [await device.buffer(PAGE_BYTES), await device.buffer(PAGE_BYTES)];
    const writes: Promise<IoStatus>[] = [
      Promise.resolve(IoStatus.OK),
      Promise.resolve(IoStatus.OK),
    ];
    let status: IoStatus = IoStatus.OK;
    for (let page = 0, last = false; !last && status === IoStatus.OK; page++) {
      const buffer = buffers[page % 2]!;
      status = await writes[page % 2]!;
      if (status !== IoStatus.OK) break;
      assert((page + 1) * PAGE_BYTES <= area.bytes, "a checkpoint fits its slot");
      last = this.#encode(source, buffer, header, page);
      writes[page % 2] = device.write(area.offsetOf(page * PAGE_BYTES), PAGE_BYTES, buffer);
      // Other work gets its turn between pages, even over a device that ends requests at once.
      await reactor.sleep(0);
    }
    for (const write of writes) {
      const result = await write;
      if (status === IoStatus.OK) status = result;
    }
    for (const buffer of buffers) reactor.arena.free(buffer);
    return status === IoStatus.OK ? device.flush() : status;
  }

  #encode(
    source: CheckpointSource,
    buffer: number,
    header: CheckpointHeader,
    page: number,
  ): boolean {
    const { arena } = this.#options.device.reactor;
    const e = this.#encoder.reset();
    const last = source.fill(e);
    arena.u8.set(e.bytes.subarray(0, e.at), buffer + PAGE_HEADER_BYTES);
    sealPage(arena.u8, arena.memory.view, buffer, this.#options.tag, {
      ...header,
      page,
      length: e.at,
      last,
    });
    return last;
  }
}
