/**
 * The share of a reactor's memory and slots that may wait for hosts to send data they were asked
 * for. What waits for hosts is bounded apart from the rest, so that reads and writes whose data came
 * with them always find room again, whatever hosts do.
 */
import { assert } from "../../assert.ts";
import type { IoTable } from "../reactor/io-table.ts";
import {
  ARENA_RESERVE_BYTES,
  BUFFER_BYTES_MIN,
  IO_SLOTS,
  RECV_ARENA_SHARE,
} from "../reactor/limits.ts";
import { HOST_DATA_SHARE } from "./limits.ts";

function nextPowerOfTwo(n: number): number {
  return 1 << (32 - Math.clz32(n - 1));
}

export class HostData {
  readonly #io: IoTable;
  readonly #bytesMax: number;
  readonly #slotsMax = IO_SLOTS / HOST_DATA_SHARE;
  #bytes = 0;
  #slots = 0;

  constructor(io: IoTable, arenaBytes: number) {
    const usable = arenaBytes - arenaBytes / RECV_ARENA_SHARE - ARENA_RESERVE_BYTES;
    this.#io = io;
    this.#bytesMax = usable / HOST_DATA_SHARE;
  }

  /** Bytes of the buffers that wait for host data. */
  get bytes(): number {
    return this.#bytes;
  }

  /** True when `length` more bytes may be asked for. */
  admits(length: number, slots: number): boolean {
    const bytes = length <= BUFFER_BYTES_MIN ? BUFFER_BYTES_MIN : nextPowerOfTwo(length);
    return this.#bytes + bytes <= this.#bytesMax && this.#slots + slots <= this.#slotsMax;
  }

  /** A buffer of `bytes` begins to wait. */
  begin(bytes: number, slots: number): void {
    this.#bytes += bytes;
    this.#slots += slots;
  }

  /** Its data has come, or will not come any more. */
  end(bytes: number, slots: number): void {
    this.#bytes -= bytes;
    this.#slots -= slots;
    assert(this.#bytes >= 0 && this.#slots >= 0, "host data ends once");
    // Whoever waits for room may have waited for this share of it.
    this.#io.freed = true;
  }
}
