/** Assertions that stay on in production. Imports nothing. */

/** A broken invariant of ours. Nothing catches it: the process ends and its unit starts it again. */
export class AssertionError extends Error {
  constructor(what: string) {
    super(what);
    this.name = "AssertionError";
  }
}

/** Throws unless `condition` holds. `what` states what should have been true. */
export function assert(condition: boolean, what: string): asserts condition {
  if (!condition) throw new AssertionError(`assertion failed: ${what}`);
}

/** For the default branch of an exhaustive switch. */
export function unreachable(value: never): never {
  throw new AssertionError(`unexpected value ${String(value)}`);
}
