/** The error log of one controller (Base 2.0, 5.16.1.2): a ring of the commands that failed last. */
import {
  ERROR_ENTRY_BYTES,
  ERROR_LOCATION_UNKNOWN,
  type ErrorEntry,
  putErrorEntry,
} from "../../nvme/log-pages.ts";
import { ERROR_LOG_ENTRIES } from "./limits.ts";

const RING_BYTES = ERROR_LOG_ENTRIES * ERROR_ENTRY_BYTES;

export class ErrorLog {
  /** Errors since the controller began. */
  count = 0;
  /** Made with the first error: most controllers never see one. */
  #ring: DataView | null = null;

  /** One entry, used again and again: a storm of errors makes no garbage. */
  readonly #entry: { -readonly [K in keyof ErrorEntry]: ErrorEntry[K] } = {
    count: 0,
    queueId: 0,
    commandId: 0,
    status: 0,
    location: ERROR_LOCATION_UNKNOWN,
    lba: 0,
    namespaceId: 0,
    result: 0,
  };

  /** Records a command that failed with `status` (SCT << 8 | SC, with Do Not Retry). */
  record(
    queueId: number,
    commandId: number,
    status: number,
    namespaceId: number,
    lba: number,
    result: number,
  ): void {
    this.#ring ??= new DataView(new ArrayBuffer(RING_BYTES));
    const at = (this.count % ERROR_LOG_ENTRIES) * ERROR_ENTRY_BYTES;
    this.count++;
    const entry = this.#entry;
    entry.count = this.count;
    entry.queueId = queueId;
    entry.commandId = commandId;
    entry.status = status;
    entry.namespaceId = namespaceId;
    entry.lba = lba;
    entry.result = result;
    putErrorEntry(this.#ring, at, entry);
  }

  /** The log page: newest entry first, zeroes behind the oldest. */
  encode(): Uint8Array {
    const bytes = new Uint8Array(RING_BYTES);
    if (this.#ring === null) return bytes;
    const ring = new Uint8Array(this.#ring.buffer);
    const kept = Math.min(this.count, ERROR_LOG_ENTRIES);
    for (let i = 0; i < kept; i++) {
      const from = ((this.count - 1 - i) % ERROR_LOG_ENTRIES) * ERROR_ENTRY_BYTES;
      bytes.set(ring.subarray(from, from + ERROR_ENTRY_BYTES), i * ERROR_ENTRY_BYTES);
    }
    return bytes;
  }
}
