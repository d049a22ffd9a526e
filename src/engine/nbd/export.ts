/** An export: a block device under a name that NBD clients ask for. */
import type { Bdev } from "../bdev/bdev.ts";
import { IoStatistics } from "../reactor/io-statistics.ts";
import type { NbdConnection } from "./connection.ts";
import type { AllocationSource } from "./extents.ts";
import { BLOCK_BYTES_PREFERRED, PIECE_BYTES_MAX } from "./limits.ts";
import { type ExportInfo, TransmissionFlag } from "./protocol.ts";

export interface NbdExportOptions {
  /** 1 to 255 bytes of UTF-8. */
  readonly name: string;
  /** Lives on the reactor of the server it is exported by. */
  readonly bdev: Bdev;
  readonly readOnly?: boolean;
  /** For humans; clients show it in lists. */
  readonly description?: string;
  /** Writing zeroes is quicker than writing data. Left out: true for memory devices only. */
  readonly fastZeroes?: boolean;
  /** Left out: everything is reported as data. */
  readonly allocation?: AllocationSource;
}

export class NbdExport {
  readonly name: string;
  readonly bdev: Bdev;
  readonly readOnly: boolean;
  readonly description: string;
  readonly fastZeroes: boolean;
  readonly allocation: AllocationSource | undefined;
  readonly statistics = new IoStatistics();
  /** Connections in their transmission phase, and those that still have requests under way. */
  readonly connections = new Set<NbdConnection>();
  #onEmpty: (() => void) | null = null;

  constructor(options: NbdExportOptions) {
    const { bdev } = options;
    this.name = options.name;
    this.bdev = bdev;
    this.readOnly = options.readOnly ?? false;
    this.description = options.description ?? "";
    this.fastZeroes = options.fastZeroes ?? (bdev.driver === "malloc" || bdev.driver === "null");
    this.allocation = options.allocation;
  }

  /**
   * What clients are told. A flush covers what was written over any connection, because all of them
   * end at one device; so several may be used at once.
   */
  info(structured: boolean): ExportInfo {
    const { blockSize, blockCount } = this.bdev;
    const flag = TransmissionFlag;
    let flags = flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.CAN_MULTI_CONN;
    if (this.readOnly) flags |= flag.READ_ONLY;
    else flags |= flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO;
    if (structured) flags |= flag.SEND_DF;
    return {
      name: this.name,
      description: this.description,
      sizeBytes: blockSize * blockCount,
      transmissionFlags: flags,
      blockBytesMin: blockSize,
      blockBytesPreferred: Math.max(BLOCK_BYTES_PREFERRED, blockSize),
      payloadBytesMax: PIECE_BYTES_MAX,
    };
  }

  attach(connection: NbdConnection): void {
    this.connections.add(connection);
  }

  /** A connection has ended and nothing of it is under way any more. */
  detach(connection: NbdConnection): void {
    this.connections.delete(connection);
    if (this.connections.size === 0) this.#onEmpty?.();
  }

  /** Ends every connection once its requests are answered. Resolves when all are gone. */
  disconnect(reason: string): Promise<void> {
    if (this.connections.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onEmpty = resolve;
      for (const connection of [...this.connections]) connection.drain(reason);
    });
  }
}
