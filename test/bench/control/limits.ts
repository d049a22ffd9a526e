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

/** Times that each fault strikes whose pause is measured; the median counts. */
export const PAUSE_ROUNDS = 3;
export const PAUSE_VOLUME_BYTES = 96 << 20;
export const PAUSE_POOL_BYTES = 256 << 20;
/** Writes that have to be acknowledged before and after a fault. */
export const PAUSE_WRITES = 200;

/** The volume whose copies are made anew, and what is written while one of them is away. */
export const HEAL_VOLUME_BYTES = 1 << 30;
export const HEAL_POOL_BYTES = 2 * 2 ** 30;
export const HEAL_WRITTEN_BYTES = 32 << 20;
/** How long a load is measured without a rebuild, and at most beside one. */
export const HEAL_IDLE_SECONDS = 5;

/** Volumes that there are while one of them is attached again and again. */
export const ATTACH_VOLUMES = [1, 100, 1_000] as const;
export const ATTACHES = 60;
export const ATTACHES_WARMUP = 5;
export const ATTACH_BYTES = 16 << 20;
export const ATTACH_CREATES_AT_ONCE = 8;
