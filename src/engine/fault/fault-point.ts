/**
 * Fault injection at one block device: requests that meet a rule fail, wait, or are torn.
 *
 * It stands in front of the device by taking the place of its `submit`, and is taken away again with
 * the last rule: a device without faults runs exactly as if this did not exist. A test aid; here, and
 * only here, requests cost allocations.
 */
import { assert } from "../../assert.ts";
import { IoStatus } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { Random } from "../bench/random.ts";
import { IoOp, type IoOwner, ioOpNames } from "../reactor/io-table.ts";
import type { Timer } from "../reactor/timers.ts";
import type { FaultRule, FaultStatus } from "../rpc/faults.ts";

type Intercepted = { -readonly [K in keyof Bdev]: Bdev[K] };

const statuses: Record<FaultStatus, IoStatus> = {
  "device-io": IoStatus.DEVICE_IO,
  "no-space": IoStatus.NO_SPACE,
  timeout: IoStatus.TIMEOUT,
  "device-gone": IoStatus.DEVICE_GONE,
  "reservation-conflict": IoStatus.RESERVATION_CONFLICT,
  aborted: IoStatus.ABORTED,
  unavailable: IoStatus.UNAVAILABLE,
};

/** A rule at work. */
export class InjectedFault {
  readonly rule: FaultRule;
  readonly random: Random;
  /** Requests that met the conditions of operation and range, and those that were affected. */
  matched = 0;
  injected = 0;
  /** Requests that it keeps, with the timers of those that are only delayed. */
  readonly held = new Map<number, Timer | null>();

  constructor(rule: FaultRule) {
    this.rule = rule;
    this.random = new Random(rule.seed);
  }
}

/** A torn write that is under way. */
interface Torn {
  readonly length: number;
  readonly status: IoStatus;
}

export class FaultPoint implements IoOwner {
  readonly bdev: Bdev;
  readonly #faults: InjectedFault[] = [];
  readonly #torn = new Map<number, Torn>();
  #restore: (() => void) | null = null;
  #submit: (slot: number) => void = () => {};

  constructor(bdev: Bdev) {
    this.bdev = bdev;
  }

  /** True when no rule is left: the device runs as it was. */
  get isIdle(): boolean {
    return this.#faults.length === 0;
  }

  /** Adds a rule. Rules are asked in the order in which they were added; the first that applies acts. */
  add(fault: InjectedFault): void {
    if (this.#restore === null) this.#attach();
    this.#faults.push(fault);
  }

  /** Takes a rule away; requests that it keeps go on. */
  remove(fault: InjectedFault): void {
    const at = this.#faults.indexOf(fault);
    assert(at >= 0, "a fault that is removed was injected");
    this.#faults.splice(at, 1);
    if (this.#faults.length === 0) {
      this.#restore?.();
      this.#restore = null;
    }
    // The faults that are left may apply to what it kept.
    this.#release(fault, (slot) => this.bdev.submit(slot));
  }

  #release(fault: InjectedFault, submit: (slot: number) => void): void {
    const slots = [...fault.held];
    fault.held.clear();
    for (const [slot, timer] of slots) {
      timer?.cancel();
      submit(slot);
    }
  }

  #attach(): void {
    const bdev = this.bdev as Intercepted;
    const { submit, close, synchronous } = bdev;
    const own = new Set(Object.keys(bdev));
    this.#submit = submit.bind(bdev);
    bdev.submit = (slot) => this.submit(slot);
    bdev.close = () => {
      for (const fault of this.#faults) this.#release(fault, this.#submit);
      return close.call(bdev);
    };
    // A request may end later now, so its data must not lie where the next one is received. Nothing
    // is under way at such a device between two requests: the change can be made at any time.
    if (synchronous) bdev.synchronous = false;
    this.#restore = () => {
      if (own.has("submit")) bdev.submit = submit;
      else Reflect.deleteProperty(bdev, "submit");
      if (own.has("close")) bdev.close = close;
      else Reflect.deleteProperty(bdev, "close");
      if (synchronous) bdev.synchronous = true;
    };
  }

  /** What the device's `submit` does as long as there are rules. */
  submit(slot: number): void {
    for (const fault of this.#faults) {
      if (this.#applies(fault, slot)) {
        this.#inject(fault, slot);
        return;
      }
    }
    this.#submit(slot);
  }

  #applies(fault: InjectedFault, slot: number): boolean {
    const { io } = this.bdev.reactor;
    const { ops, range, after, count, probability, action } = fault.rule;
    const op = io.op[slot]!;
    const name = ioOpNames[op];
    if (ops !== undefined && !ops.some((wanted) => wanted === name)) return false;
    if (action.kind === "torn-write" && op !== IoOp.WRITE) return false;
    if (range !== undefined && op !== IoOp.FLUSH) {
      const start = io.offset[slot]!;
      const end = start + io.length[slot]!;
      if (end <= range.offsetBytes || start >= range.offsetBytes + range.lengthBytes) return false;
    }
    fault.matched++;
    if (fault.matched <= after) return false;
    if (count !== undefined && fault.injected >= count) return false;
    if (fault.random.next() / 0x100000000 >= probability) return false;
    fault.injected++;
    return true;
  }

  #inject(fault: InjectedFault, slot: number): void {
    const { reactor } = this.bdev;
    const { io } = reactor;
    const { action } = fault.rule;
    switch (action.kind) {
      case "error":
        io.complete(slot, statuses[action.status]);
        return;
      case "delay": {
        const timer = reactor.after(action.delayMs, () => {
          fault.held.delete(slot);
          this.#submit(slot);
        });
        fault.held.set(slot, timer);
        return;
      }
      case "stall":
        fault.held.set(slot, null);
        return;
      case "torn-write":
        this.#tear(slot, action.keepBytes, statuses[action.status]);
    }
  }

  #tear(slot: number, keepBytes: number | undefined, status: IoStatus): void {
    const { io } = this.bdev.reactor;
    const { blockSize } = this.bdev;
    const length = io.length[slot]!;
    const keep = Math.min(keepBytes ?? length / 2, length - blockSize);
    const whole = Math.max(0, Math.floor(keep / blockSize) * blockSize);
    if (whole === 0) {
      io.complete(slot, status);
      return;
    }
    this.#torn.set(slot, { length, status });
    io.length[slot] = whole;
    io.push(slot, this);
    this.#submit(slot);
  }

  /** The part of a torn write that is kept has been written. */
  ioDone(slot: number): void {
    const { io } = this.bdev.reactor;
    const torn = this.#torn.get(slot);
    assert(torn !== undefined, "a torn write ends once");
    this.#torn.delete(slot);
    io.length[slot] = torn.length;
    io.complete(slot, torn.status);
  }
}
