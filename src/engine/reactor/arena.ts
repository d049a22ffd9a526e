/**
 * The memory of one reactor: one mapping, registered with the ring, that every buffer comes from.
 *
 * A buffer is an integer: its byte offset in the mapping. Pieces are powers of two from 4 KiB to
 * 1 MiB, handed out by a buddy allocator over typed arrays, aligned to 4 KiB at least, so that
 * direct I/O needs no bounce. Freed pieces are first kept as they are (a stack per size) and
 * merged only when a larger piece is wanted.
 */
import { type MappedMemory, mapMemory, unmapMemory } from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { ARENA_BYTES_MAX, ARENA_BYTES_MIN, BUFFER_BYTES_MAX, BUFFER_BYTES_MIN } from "./limits.ts";

const PAGE_SHIFT = 12;
const ORDERS = 9; // 4 KiB << 0 .. 4 KiB << 8 = 1 MiB
const TOP_ORDER = ORDERS - 1;
const KEPT_PER_ORDER = 128;
const NONE = -1;

const STATE_INSIDE = 0; // not the first page of a piece
const STATE_FREE = 1; // first page of a free piece
const STATE_USED = 2; // first page of a piece handed out
const STATE_KEPT = 3; // first page of a piece on a keep stack

/** Who is told when memory or slots were given back. */
export interface Waiter {
  /** Called once at the end of a turn in which something was freed. */
  resume(): void;
}

/** Order (0 = 4 KiB) of the smallest piece that holds `byteLength`. */
function orderFor(byteLength: number): number {
  return byteLength <= BUFFER_BYTES_MIN ? 0 : 32 - Math.clz32((byteLength - 1) >> PAGE_SHIFT);
}

export class Arena {
  readonly memory: MappedMemory;
  readonly byteLength: number;
  /** Address of offset 0. */
  readonly address: number;
  readonly u8: Uint8Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  /** Bytes not handed out. */
  freeBytes: number;
  /** Set when something was freed since the reactor last looked. */
  freed = false;

  readonly #state: Uint8Array;
  readonly #order: Uint8Array;
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  readonly #head = new Int32Array(ORDERS).fill(NONE);
  readonly #kept = new Int32Array(ORDERS * KEPT_PER_ORDER);
  readonly #keptCount = new Int32Array(ORDERS);

  constructor(byteLength: number) {
    assert(
      byteLength >= ARENA_BYTES_MIN &&
        byteLength <= ARENA_BYTES_MAX &&
        byteLength % (2 << 20) === 0,
      `arena size ${byteLength} is a multiple of 2 MiB within its limits`,
    );
    this.memory = mapMemory(byteLength, { huge: true });
    this.byteLength = byteLength;
    this.address = this.memory.address;
    this.u8 = this.memory.u8;
    this.i32 = this.memory.i32;
    this.u32 = this.memory.u32;
    this.freeBytes = byteLength;
    const pages = byteLength >> PAGE_SHIFT;
    this.#state = new Uint8Array(pages);
    this.#order = new Uint8Array(pages);
    this.#next = new Int32Array(pages).fill(NONE);
    this.#prev = new Int32Array(pages).fill(NONE);
    const step = 1 << TOP_ORDER;
    for (let page = pages - step; page >= 0; page -= step) this.#push(page, TOP_ORDER);
  }

  /**
   * Takes a piece of at least `byteLength` (1 .. 1 MiB) bytes. Returns its offset, or -1 when there
   * is none or fewer than `keepFree` bytes would stay free.
   */
  alloc(byteLength: number, keepFree: number): number {
    assert(byteLength > 0 && byteLength <= BUFFER_BYTES_MAX, "buffer size within limits");
    const order = orderFor(byteLength);
    const size = BUFFER_BYTES_MIN << order;
    if (this.freeBytes - size < keepFree) return NONE;
    let page: number;
    const kept = this.#keptCount[order]!;
    if (kept > 0) {
      this.#keptCount[order] = kept - 1;
      page = this.#kept[order * KEPT_PER_ORDER + kept - 1]!;
    } else {
      page = this.#take(order);
      if (page === NONE) {
        this.#mergeKept();
        page = this.#take(order);
        if (page === NONE) return NONE;
      }
    }
    this.#state[page] = STATE_USED;
    this.#order[page] = order;
    this.freeBytes -= size;
    return page << PAGE_SHIFT;
  }

  /** Size in bytes of the piece at `offset`. */
  sizeOf(offset: number): number {
    return BUFFER_BYTES_MIN << this.#order[offset >> PAGE_SHIFT]!;
  }

  /** Gives a piece back. Freeing anything else is a defect. */
  free(offset: number): void {
    const page = offset >> PAGE_SHIFT;
    assert(
      this.#state[page] === STATE_USED && page << PAGE_SHIFT === offset,
      "freed buffer was handed out",
    );
    const order = this.#order[page]!;
    this.freeBytes += BUFFER_BYTES_MIN << order;
    this.freed = true;
    const kept = this.#keptCount[order]!;
    if (kept < KEPT_PER_ORDER && order < TOP_ORDER) {
      this.#state[page] = STATE_KEPT;
      this.#kept[order * KEPT_PER_ORDER + kept] = page;
      this.#keptCount[order] = kept + 1;
    } else {
      this.#merge(page, order);
    }
  }

  /** Unmaps the memory. No buffer may be in use. */
  close(): void {
    unmapMemory(this.memory);
  }

  #push(page: number, order: number): void {
    const head = this.#head[order]!;
    this.#state[page] = STATE_FREE;
    this.#order[page] = order;
    this.#next[page] = head;
    this.#prev[page] = NONE;
    if (head !== NONE) this.#prev[head] = page;
    this.#head[order] = page;
  }

  #unlink(page: number, order: number): void {
    const next = this.#next[page]!;
    const prev = this.#prev[page]!;
    if (prev === NONE) this.#head[order] = next;
    else this.#next[prev] = next;
    if (next !== NONE) this.#prev[next] = prev;
    this.#state[page] = STATE_INSIDE;
  }

  /** Takes a free piece of exactly `order`, splitting a larger one if need be. */
  #take(order: number): number {
    let from = order;
    while (from < ORDERS && this.#head[from] === NONE) from++;
    if (from === ORDERS) return NONE;
    const page = this.#head[from]!;
    this.#unlink(page, from);
    while (from > order) {
      from--;
      this.#push(page + (1 << from), from);
    }
    return page;
  }

  #merge(startPage: number, startOrder: number): void {
    let page = startPage;
    let order = startOrder;
    this.#state[page] = STATE_INSIDE;
    while (order < TOP_ORDER) {
      const buddy = page ^ (1 << order);
      if (this.#state[buddy] !== STATE_FREE || this.#order[buddy] !== order) break;
      this.#unlink(buddy, order);
      page &= ~(1 << order);
      order++;
    }
    this.#push(page, order);
  }

  #mergeKept(): void {
    for (let order = 0; order < TOP_ORDER; order++) {
      const count = this.#keptCount[order]!;
      for (let i = 0; i < count; i++) this.#merge(this.#kept[order * KEPT_PER_ORDER + i]!, order);
      this.#keptCount[order] = 0;
    }
  }
}
