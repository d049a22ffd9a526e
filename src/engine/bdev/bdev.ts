/**
 * The block device interface: what pools, nexuses, targets and tools stand on.
 *
 * A device belongs to one reactor and is used on its thread only. Requests are slots of the
 * reactor's `IoTable`: the caller takes a slot, pushes itself as owner, and calls `submit`; the
 * device ends it with `io.complete(slot, status)`, possibly before `submit` returns. Data lies in
 * the reactor's arena and must stay until the request ends.
 */
import type { Reactor } from "../reactor/reactor.ts";

/** Kinds of devices, as their URI schemes name them. */
export type BdevDriver =
  | "malloc"
  | "null"
  | "uring"
  | "aio"
  | "nvmf"
  | "replica"
  | "nexus"
  | "standby"
  | "fault";

/** Something happened to a device that its user must know. */
export type BdevEvent =
  | { readonly kind: "resized"; readonly blockCount: number }
  | { readonly kind: "removed"; readonly reason: string };

/** Called on the device's reactor. */
export type BdevListener = (event: BdevEvent) => void;

export interface Bdev {
  /** Unique in the engine; part of RPC paths. */
  readonly name: string;
  /** URI that opened it, in its canonical form. */
  readonly uri: string;
  readonly driver: BdevDriver;
  /** Lower-case UUID with dashes: becomes NGUID and UUID of a namespace over it. */
  readonly uuid: string;
  readonly reactor: Reactor;
  /** 512 or 4096. Offsets and lengths of requests are multiples of it. */
  readonly blockSize: number;
  /** May grow (`resized` tells). */
  readonly blockCount: number;
  /** Requests end inside `submit` and take data at any address: no copy needs to be made first. */
  readonly synchronous: boolean;
  /** Request slots that the layers below take for one request, the caller's own not counted. */
  readonly slotsPerIo: number;
  /** False when discarded blocks may return anything; true when they read as zeroes. */
  readonly discardZeroes: boolean;
  /** False when writes reach stable storage as they complete, and FLUSH is a formality. */
  readonly volatileCache: boolean;

  /**
   * Carries out the request in `slot`:
   * READ and WRITE: 1 block to 1 MiB from or to the arena; WRITE with FUA is durable when it ends.
   * FLUSH: everything that had ended before is durable. WRITE_ZEROES and DISCARD: any length.
   * Ends with OK, or DEVICE_IO, NO_SPACE, OUT_OF_RANGE, INVALID, UNSUPPORTED, TIMEOUT, DEVICE_GONE,
   * RESERVATION_CONFLICT, ABORTED.
   */
  submit(slot: number): void;

  /** Registers a listener; returns the function that takes it off. */
  listen(listener: BdevListener): () => void;

  /** Waits for outstanding requests, then releases the device. Further requests end DEVICE_GONE. */
  close(): Promise<void>;
}

/** Set of listeners, for implementations. */
export class BdevListeners {
  readonly #listeners = new Set<BdevListener>();

  add(listener: BdevListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  tell(event: BdevEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}

/** Size of a device in bytes. */
export function bdevBytes(bdev: Bdev): number {
  return bdev.blockCount * bdev.blockSize;
}
