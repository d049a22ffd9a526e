/** Sizes and durations of the benchmarks of the control plane. */

/** The large cluster. */
export const LARGE_NODES = 100;
export const LARGE_POOLS = 1_000;
export const LARGE_VOLUMES = 10_000;
/** Replicas of each of its volumes, and how many of the volumes are published. */
export const LARGE_REPLICAS = 3;
export const LARGE_PUBLISHED = 2_000;

/** Decisions that are timed one by one, and placements in what stands for a pass after a node's loss. */
export const DECISIONS = 101;
export const PLACEMENTS = 300;

/** Passes of the planner and listings that are timed. */
export const LARGE_ROUNDS = 11;
/** Time for filling a store with the large cluster, and for opening it. */
export const FILL_TIMEOUT_MS = 300_000;
/** Records per transaction when filling. */
export const FILL_BATCH = 2_000;
/** The process is left alone for so long before its memory is looked at. */
export const SETTLE_MS = 3_000;

/** Members of the clusters that commit, and clients that ask at a time where many do. */
export const MEMBERS = 3;
export const CLIENTS = 32;
/** How long both sides are used before anything counts: compiled code comes with use. */
export const COMMIT_WARMUP_SECONDS = 8;
/** Bytes of the value in one commit. */
export const VALUE_BYTES = 128;

/** Volumes that are made one after the other, and those before that are not counted. */
export const CREATES = 100;
export const CREATES_WARMUP = 10;
export const CREATE_BYTES = 64 << 20;
export const CREATE_POOL_BYTES = 64 * 2 ** 30;

/** Time for a cluster to be whole. */
export const CLUSTER_TIMEOUT_MS = 60_000;
