/**
 * Calls about one thing, one after the other. A second call waits for the first instead of being turned
 * away with `ABORTED`: callers repeat with pauses that double, so a refusal costs seconds of a pod's
 * start, and waiting ends with the caller's own deadline.
 */
import { TrilithError } from "../errors.ts";
import { LANE_QUEUE_MAX } from "./limits.ts";

export interface Lanes {
  /**
   * Runs `act` after every earlier call with the same key has ended, and resolves as it does. Who leaves
   * (`signal`) while it waits is passed over: its `act` never begins. `Aborted` when too many wait.
   */
  run<T>(key: string, signal: AbortSignal, act: () => Promise<T>): Promise<T>;
  /** Keys that somebody works on. */
  readonly busy: number;
}

interface Lane {
  last: Promise<unknown>;
  length: number;
}

export function makeLanes(): Lanes {
  const lanes = new Map<string, Lane>();
  return {
    get busy() {
      return lanes.size;
    },
    async run(key, signal, act) {
      const lane = lanes.get(key) ?? { last: Promise.resolve(), length: 0 };
      if (lane.length > LANE_QUEUE_MAX) {
        throw new TrilithError(
          "Aborted",
          `${lane.length} calls about ${key} are under way`,
          "repeat it later",
        );
      }
      lanes.set(key, lane);
      lane.length += 1;
      const before = lane.last;
      const { promise, resolve: leave } = Promise.withResolvers<void>();
      lane.last = promise;
      try {
        await before;
        signal.throwIfAborted();
        return await act();
      } finally {
        lane.length -= 1;
        if (lane.length === 0) lanes.delete(key);
        leave();
      }
    },
  };
}
