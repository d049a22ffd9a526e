/** Bounds of the executor. */

/** Works at a time, over all subjects. */
export const WORKS_MAX = 64;
/** Works at a time that call one engine, so that a slow one does not keep the others from theirs. */
export const WORKS_PER_NODE_MAX = 16;
/** A call of an engine without answer for so long has failed; what it did is found out by looking. */
export const CALL_TIMEOUT_MS = 30_000;
/** Opening and closing pools and nexuses takes longer: disks are read, hosts' requests awaited. */
export const LONG_CALL_TIMEOUT_MS = 120_000;
/** A transaction of the store without outcome for so long has failed. */
export const TRANSACT_TIMEOUT_MS = 10_000;
/** Wait after the first failure of a subject; doubles from failure to failure. */
export const RETRY_MIN_MS = 200;
export const RETRY_MAX_MS = 10_000;
/** A work that succeeds and is planned again all the same is begun ever later, too. */
export const REPEAT_MIN_MS = 100;
export const REPEAT_MAX_MS = 30_000;
/** Repetitions that are not slowed down. */
export const REPEATS_FREE = 2;
/** Everything is planned anew after this long even if nothing is known to have happened. */
export const FULL_PLAN_MS = 10_000;
/** Least time between two plans of everything. */
export const FULL_PLAN_GAP_MS = 200;
/** Failures that are remembered for operations that wait; the oldest go first. */
export const FAILURES_MAX = 4_096;
/** Events of engines are gathered for so long and written together; beyond so many they are dropped. */
export const EVENTS_GATHER_MS = 200;
export const EVENTS_WAITING_MAX = 1_000;
/** Ended rebuilds that are kept per volume. */
export const HISTORY_PER_VOLUME_MAX = 64;
