/** Lets so many through at a time, in the order of coming. */
import { TrilithError } from "../../errors.ts";
import { withinTime } from "../store/lock.ts";

export interface Turns {
  /** Resolves with the function that ends the turn. `Aborted` when it does not come in time. */
  take(limit: number): Promise<() => void>;
  readonly taken: number;
}

export interface TurnsOptions {
  /** What there are too many of. */
  readonly what: string;
  readonly patienceMs: number;
  readonly queueMax: number;
}

export function makeTurns(options: TurnsOptions): Turns {
  let taken = 0;
  let limitNow = 0;
  const queue: (() => void)[] = [];
  const tooMany = () =>
    new TrilithError("Aborted", `Too many ${options.what} in progress`, "repeat it later");

  const next = () => {
    while (taken < limitNow) {
      const begin = queue.shift();
      if (begin === undefined) return;
      begin();
    }
  };
  const beginTurn = () => {
    taken++;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      taken--;
      next();
    };
  };
  return {
    get taken() {
      return taken;
    },
    async take(limit) {
      limitNow = limit;
      if (taken < limit && queue.length === 0) return beginTurn();
      if (queue.length >= options.queueMax) throw tooMany();
      const { promise, resolve } = Promise.withResolvers<() => void>();
      const begin = () => resolve(beginTurn());
      queue.push(begin);
      try {
        return await withinTime(promise, options.patienceMs, tooMany);
      } catch (error) {
        const at = queue.indexOf(begin);
        // It came in the same moment: hand it on.
        if (at === -1) void promise.then((end) => end());
        else queue.splice(at, 1);
        throw error;
      }
    },
  };
}
