/**
 * Is a history of operations on a register explained by some order in which each took effect at one
 * moment between its call and its return? The search of Wing and Gong with the memory of Lowe ("Testing
 * for linearizability", 2017): a set of operations done and the value they led to is tried once.
 */

export interface RegisterOperation {
  readonly kind: "read" | "set" | "cas";
  /** What a `cas` expects. */
  readonly from?: string;
  /** What is written. */
  readonly value?: string;
  /** What a read returned, or whether a `cas` hit; undefined when it is not known. */
  readonly result?: string | boolean;
  readonly callAt: number;
  /** `Infinity`: the caller never learnt what became of it. It may take effect later, or never. */
  readonly returnAt: number;
}

/** The value after an operation; null when it could not have had its result in this state. */
function step(state: string, operation: RegisterOperation): string | null {
  switch (operation.kind) {
    case "read":
      return operation.result === state ? state : null;
    case "set":
      return operation.value!;
    default: {
      const isHit = state === operation.from;
      if (operation.result !== undefined && operation.result !== isHit) return null;
      return isHit ? operation.value! : state;
    }
  }
}

const never = Number.POSITIVE_INFINITY;

/**
 * True when the history of one register, which holds "" at first, is linearizable. Throws when that is
 * not found out within `stepsMax` steps.
 */
export function isLinearizable(
  history: readonly RegisterOperation[],
  stepsMax = 5_000_000,
): boolean {
  // A read that never returned says nothing. A write that did not may still have been.
  const operations = history
    .filter(({ kind, returnAt }) => kind !== "read" || returnAt !== never)
    .sort((a, b) => a.callAt - b.callAt);
  const count = operations.length;
  const done = new Uint8Array(count);
  const tried = new Set<string>();
  let steps = 0;
  const mustEnd = operations.filter(({ returnAt }) => returnAt !== never).length;

  /** `low`: everything before it is done. */
  const search = (low: number, state: string, ended: number): boolean => {
    if (ended === mustEnd) return true;
    if (++steps > stepsMax)
      throw new Error(`no verdict on ${count} operations in ${stepsMax} steps`);
    // The next one must have been called before any that is not done has returned.
    let firstReturn = never;
    for (let at = low; at < count; at++) {
      const operation = operations[at]!;
      if (operation.callAt > firstReturn) break;
      if (done[at] === 0) firstReturn = Math.min(firstReturn, operation.returnAt);
    }
    // Those that must have been come first: the others are tried where nothing else helps.
    return (
      tryAll(low, state, ended, firstReturn, true) || tryAll(low, state, ended, firstReturn, false)
    );
  };

  const tryAll = (
    low: number,
    state: string,
    ended: number,
    firstReturn: number,
    isEnded: boolean,
  ): boolean => {
    for (let at = low; at < count; at++) {
      const operation = operations[at]!;
      if (operation.callAt > firstReturn) break;
      if (done[at] === 1 || (operation.returnAt !== never) !== isEnded) continue;
      const next = step(state, operation);
      if (next === null) continue;
      done[at] = 1;
      let newLow = low;
      while (newLow < count && done[newLow] === 1) newLow++;
      const key = `${newLow} ${next} ${setKey(done, newLow)}`;
      if (!tried.has(key)) {
        tried.add(key);
        if (search(newLow, next, ended + (isEnded ? 1 : 0))) return true;
      }
      done[at] = 0;
    }
    return false;
  };
  return search(0, "", 0);
}

/** Those done after `low`, as a text. */
function setKey(done: Uint8Array, low: number): string {
  let key = "";
  for (let at = low; at < done.length; at++) if (done[at] === 1) key += `${at},`;
  return key;
}
