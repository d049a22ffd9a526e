/** Time as raft sees it: passed in, so that a simulation can put its own in place. */

export interface RaftClock {
  /** Milliseconds since some moment; only differences count. Never goes back. */
  nowMs(): number;
  /** Calls again and again; what is returned ends it. */
  every(intervalMs: number, call: () => void): () => void;
  /** Calls once what is under way now has ended: many proposals become one transaction that way. */
  soon(call: () => void): void;
}

/** The real one. */
export const systemClock: RaftClock = {
  nowMs: () => performance.now(),
  every(intervalMs, call) {
    const timer = setInterval(call, intervalMs);
    return () => clearInterval(timer);
  },
  soon(call) {
    setImmediate(call);
  },
};
