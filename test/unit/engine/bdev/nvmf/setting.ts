/** A fake target, the initiator's device on it, and ways to wait: what the initiator's tests share. */

import type { NvmfBdev } from "../../../../../src/engine/bdev/nvmf/nvmf-bdev.ts";
import type { NvmfSettings } from "../../../../../src/engine/bdev/nvmf/options.ts";
import { openBdev } from "../../../../../src/engine/bdev/open.ts";
import { IoOp, type IoOwner } from "../../../../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../../../../src/engine/reactor/reactor.ts";
import { withReactor } from "../../../../support/reactor.ts";
import { FakeTarget } from "./fake-target.ts";

/** Longest that a test waits for something that must happen. It decides nothing but a failure. */
const PATIENCE_MS = 20_000;

export const HOST = {
  nqn: "nqn.2019-05.io.openebs:node-name:test",
  id: "11111111-2222-3333-4444-555555555555",
};

/** Time-outs that never strike in a test that is not about them. */
const CALM: Partial<NvmfSettings> = { keepAliveMs: 0, reconnectDelayMs: 1 };

/** A request in flight. */
export interface Pending {
  readonly slot: number;
  /** Undefined until it has ended. */
  status: number | undefined;
  readonly bytes: () => Uint8Array;
  /** Spoils the buffer, as its next user would. */
  overwrite(): void;
  free(): void;
}

export class Setting {
  readonly reactor: Reactor;
  readonly target: FakeTarget;
  /** What the initiator logged. */
  readonly logs: string[] = [];

  constructor(reactor: Reactor) {
    this.reactor = reactor;
    this.target = new FakeTarget(reactor);
  }

  /** Opens the device; `parameters` are appended to the URI. */
  async open(settings: Partial<NvmfSettings> = {}, parameters = ""): Promise<NvmfBdev> {
    const uri = this.target.uri + parameters;
    const log = (_level: string, message: string) => this.logs.push(message);
    const nvmf = { ...CALM, log, ...settings };
    return (await openBdev(this.reactor, uri, { host: HOST, nvmf })) as NvmfBdev;
  }

  /** The error that `open` rejects with. */
  async openError(settings: Partial<NvmfSettings> = {}, parameters = ""): Promise<unknown> {
    try {
      await this.open(settings, parameters);
    } catch (error) {
      return error;
    }
    throw new Error("the device opened");
  }

  /** Waits until `condition` holds. */
  async until(what: string, condition: () => boolean): Promise<void> {
    const untilNs = this.reactor.now + PATIENCE_MS * 1e6;
    while (!condition()) {
      if (this.reactor.now > untilNs) {
        throw new Error(`never happened: ${what}; log: ${this.logs.slice(-20).join("; ")}`);
      }
      await this.reactor.sleep(1);
    }
  }

  /** Starts a request without waiting; its buffer lives until `free`. */
  start(bdev: NvmfBdev, op: number, offset: number, data: number | Uint8Array, flags = 0): Pending {
    const { io, arena } = this.reactor;
    const length = typeof data === "number" ? data : data.byteLength;
    const moves = op === IoOp.READ || op === IoOp.WRITE;
    const buffer = moves ? arena.alloc(length, 0) : -1;
    if (typeof data !== "number") arena.u8.set(data, buffer);
    if (!io.promise(1)) throw new Error("request slots are used up");
    const slot = io.take(op, offset, length, buffer, flags, this.reactor.now);
    const pending: Pending = {
      slot,
      status: undefined,
      bytes: () => arena.u8.slice(buffer, buffer + length),
      overwrite: () => arena.u8.fill(0xee, buffer, buffer + length),
      free: () => {
        if (buffer >= 0) arena.free(buffer);
      },
    };
    const owner: IoOwner = {
      ioDone(done) {
        if (pending.status !== undefined) throw new Error("a request ended twice");
        pending.status = io.status[done]!;
        io.give(done);
        io.release(1);
      },
    };
    io.push(slot, owner);
    bdev.submit(slot);
    return pending;
  }

  /** Carries a request out and returns its status and what its buffer holds then. */
  async run(
    bdev: NvmfBdev,
    op: number,
    offset: number,
    data: number | Uint8Array,
    flags = 0,
  ): Promise<{ status: number; bytes: Uint8Array }> {
    const pending = this.start(bdev, op, offset, data, flags);
    await this.until("the request ends", () => pending.status !== undefined);
    const bytes = op === IoOp.READ ? pending.bytes() : new Uint8Array(0);
    pending.free();
    return { status: pending.status!, bytes };
  }
}

/** Runs `body` with a reactor and a fake target on it; nothing may be left over afterwards. */
export function withFakeTarget(body: (s: Setting) => Promise<void>): void {
  withReactor(async (reactor) => {
    const s = new Setting(reactor);
    const free = reactor.io.free;
    try {
      await body(s);
    } finally {
      await s.target.stop();
    }
    await s.until("every handler is given back", () => reactor.handlerCount === 0);
    if (reactor.io.free !== free) throw new Error("request slots were lost");
  });
}

/** Bytes that differ from those of another seed, and from place to place. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + seed * 101) & 0xff;
  return bytes;
}
