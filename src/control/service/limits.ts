/** Named limits of the service, and what happens when one is reached. */

/**
 * How long an operation waits for what it began (mayastor.md 1.3: the minimum per kind of work, capped
 * at 59 s). Then it rejects with `Timeout`, and what was begun goes on.
 */
const WAIT_MAX_MS = 59_000;
const REPLICA_MS = 15_000;
const NEXUS_MS = 30_000;
export const WAIT_MS = {
  pool: 20_000,
  /** An import reads the pool's metadata, and whoever creates one may find it there. */
  poolImport: WAIT_MAX_MS,
  replica: REPLICA_MS,
  nexus: NEXUS_MS,
  volume: WAIT_MAX_MS,
  publish: WAIT_MAX_MS,
  unpublish: NEXUS_MS + REPLICA_MS,
  replicaCount: NEXUS_MS + REPLICA_MS,
  resize: NEXUS_MS + REPLICA_MS,
  snapshot: NEXUS_MS,
} as const;

/** How long a creation waits for its turn when `maxVolumeCreates` are under way; then `Aborted`. */
export const CREATE_TURN_MS = 3_000;
/** Creations that wait for their turn; further ones are `Aborted` at once. */
export const CREATE_QUEUE_MAX = 1_000;

/** Time limit of one call of a watch; then it counts as failed, which is logged. */
export const WATCH_CALL_MS = 5_000;
/** Watches that are called at a time; others wait, and several changes become one call. */
export const WATCH_CALLS_AT_ONCE = 8;

/**
 * How long a new leader's first operations wait for news of every node; then they are decided on what is
 * known. Longer than the deadline of nodes, after which a silent one is Offline.
 */
export const FIRST_NEWS_MS = 5_000;
/** Characters of an idempotency key. More is `InvalidArgument`. */
export const IDEMPOTENCY_KEY_MAX = 256;
