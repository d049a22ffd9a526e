/** Memory devices: `malloc` keeps its bytes in a mapping, `null` keeps nothing and reads zeroes. */
import { randomUUID } from "node:crypto";
import {
  copyMemory,
  fillMemory,
  type MappedMemory,
  mapMemory,
  unmapMemory,
} from "../../../ffi/index.ts";
import { IoStatus, TrilithError } from "../../errors.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { type Bdev, BdevListeners } from "./bdev.ts";
import { rangeStatus } from "./range.ts";
import type { MemoryUri } from "./uri.ts";

const HUGE_PAGE_BYTES = 2 << 20;

/** Canonical URI of a memory device. */
function memoryUri(uri: MemoryUri, uuid: string): string {
  const { driver, name, blockCount, blockSize } = uri;
  return `${driver}:///${name}?num_blocks=${blockCount}&blk_size=${blockSize}&uuid=${uuid}`;
}

/** Opens a memory device. Throws `ResourceExhausted` when the machine cannot map that much. */
export function openMemoryBdev(reactor: Reactor, uri: MemoryUri): Bdev {
  const uuid = uri.uuid ?? randomUUID();
  const { driver, name, blockSize, blockCount } = uri;
  const listeners = new BdevListeners();
  const io = reactor.io;
  const arenaAddress = reactor.arena.address;
  const bytes = blockSize * blockCount;
  let memory: MappedMemory | null = null;
  if (driver === "malloc") {
    const rounded = Math.ceil(bytes / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
    try {
      memory = mapMemory(rounded, { huge: true });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new TrilithError(
        "ResourceExhausted",
        `memory device ${name}: cannot map ${bytes} bytes (${text})`,
        "make it smaller",
      );
    }
  }
  const base = memory?.address ?? 0;
  let open = true;

  const bdev: Bdev = {
    name,
    uri: memoryUri(uri, uuid),
    driver,
    uuid,
    reactor,
    blockSize,
    blockCount,
    synchronous: true,
    slotsPerIo: 0,
    discardZeroes: true,
    volatileCache: false,

    submit(slot) {
      const op = io.op[slot]!;
      const status = open ? rangeStatus(io, slot, bytes, blockSize) : IoStatus.DEVICE_GONE;
      if (status === IoStatus.OK) {
        const length = io.length[slot]!;
        const buffer = arenaAddress + io.buffer[slot]!;
        const at = base + io.offset[slot]!;
        if (op === IoOp.READ) {
          if (base === 0) fillMemory(buffer, 0, length);
          else copyMemory(buffer, at, length);
        } else if (base !== 0) {
          if (op === IoOp.WRITE) copyMemory(at, buffer, length);
          else if (op !== IoOp.FLUSH) fillMemory(at, 0, length);
        }
      }
      io.complete(slot, status);
    },

    listen: (listener) => listeners.add(listener),

    close() {
      if (open && memory !== null) unmapMemory(memory);
      open = false;
      return Promise.resolve();
    },
  };
  return bdev;
}
