/**
 * The read leases that a replica has granted to nexuses on other nodes, and when they are over. Why there
 * are such, and why this suffices, is said in nexus/read-lease.ts.
 */
import { READ_LEASE_HELD_MS } from "../nexus/index.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { Association } from "../target/vendor.ts";

interface Granted {
  /** Reservation key of the nexus. */
  readonly key: bigint;
  untilNs: number;
}

export class ReadLeases {
  readonly #reactor: Reactor;
  /** Leases that an earlier process may have granted are over then. */
  readonly #unknownUntilNs: number;
  readonly #granted = new Map<Association, Granted>();
  /** Whoever waits for leases to be over; each looks again by itself. */
  #waiting: (() => void)[] = [];

  /** `mayHaveGranted`: an earlier process may have granted some a moment ago. */
  constructor(reactor: Reactor, mayHaveGranted: boolean) {
    this.#reactor = reactor;
    this.#unknownUntilNs = mayHaveGranted ? reactor.now + READ_LEASE_HELD_MS * 1e6 : 0;
  }

  /** Grants the lease of the nexus with this reservation key anew, over an association. */
  grant(association: Association, key: bigint): void {
    const untilNs = this.#reactor.now + READ_LEASE_HELD_MS * 1e6;
    const before = this.#granted.get(association);
    if (before?.key === key) {
      before.untilNs = untilNs;
      return;
    }
    this.#granted.set(association, { key, untilNs });
    if (before !== undefined) return;
    association.onEnd((isByHost) => {
      // Else it runs out by itself: the nexus may not have noticed.
      if (!isByHost) return;
      this.#granted.delete(association);
      for (const look of this.#waiting.splice(0)) look();
    });
  }

  /** Resolves when no lease but that of the nexus with this key can be valid any more. */
  async othersOver(key: bigint): Promise<void> {
    for (;;) {
      let untilNs = this.#unknownUntilNs;
      for (const [association, granted] of this.#granted) {
        if (granted.untilNs <= this.#reactor.now) this.#granted.delete(association);
        else if (granted.key !== key) untilNs = Math.max(untilNs, granted.untilNs);
      }
      const leftMs = (untilNs - this.#reactor.now) / 1e6;
      if (leftMs <= 0) return;
      await new Promise<void>((resolve) => {
        const timer = this.#reactor.after(leftMs, resolve);
        this.#waiting.push(() => {
          timer.cancel();
          resolve();
        });
      });
    }
  }
}
