/** Every bound of a nexus, and what happens when it is reached. */

/** Children of a nexus: adding one more is refused. Masks of children fit 8 bits. */
export const CHILDREN_MAX = 8;
/** Unit of the write-intent log: the same as the replicas'. */
export const REGION_BYTES = 4 << 20;
/** Regions marked ahead when writes move forward, so that a sequential stream seldom waits. */
export const REGIONS_AHEAD = 4;
/** Regions named in one mark or clear; more go in several. */
export const REGIONS_PER_CALL_MAX = 4096;
/** How often idle dirty regions are looked for, and for how many such periods one must be idle. */
export const CLEAN_PERIOD_MS = 2_000;
export const CLEAN_IDLE_PERIODS = 5;
/** Dirty regions that may stay although idle: re-marking the same few would cost more than it gives. */
export const DIRTY_REGIONS_KEPT = 8;

/** Bytes copied in one piece while host writes to it wait, by default and at most. */
export const SEGMENT_BYTES_DEFAULT = 512 << 10;
export const SEGMENT_BYTES_MIN = 64 << 10;
export const SEGMENT_BYTES_MAX = 1 << 20;
/** Segments under way at once in one rebuild. */
export const SEGMENTS_PARALLEL = 4;
/** Finished rebuilds remembered per nexus; the oldest is forgotten. */
export const REBUILD_HISTORY_MAX = 32;

/** Pause between attempts to reach the recorder, or a lost last child, again. */
export const RETRY_MS = 500;
/** Time a child has to answer when a nexus is opened or a child is added. */
export const CHILD_OPEN_TIMEOUT_MS = 10_000;
/** Share of a reactor's arena that rebuilds may use (one part in this many). */
export const REBUILD_ARENA_SHARE = 8;
