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
/**
 * A rebuild works less when requests of hosts take longer than so many times what they took before it,
 * and more when they take less than the second number.
 */
export const PACE_FACTOR_MAX = 2;
export const PACE_FACTOR_CALM = 1.5;
/** How often that is looked at, over how many requests at least, and the least it works. */
export const PACE_INTERVAL_MS = 100;
export const PACE_OPS_MIN = 10;
export const PACE_SHARE_MIN = 0.02;
/** Finished rebuilds remembered per nexus; the oldest is forgotten. */
export const REBUILD_HISTORY_MAX = 32;

/**
 * How long after an exchange with every healthy child on another node a nexus may answer reads, by its
 * own clock. Shorter than it takes to call a node lost, so that a move seldom waits for it.
 */
export const READ_LEASE_MS = 2_000;
/** The same by the clock of whoever granted it: longer by far more than clocks drift apart. */
export const READ_LEASE_HELD_MS = 2_100;
/**
 * A child that leaves a renewal without answer for so many periods is lost. Periods are waited for one by one: time
 * in which this process itself stood still is one of them.
 */
export const CHILD_SILENT_PERIODS = 4;
export const CHILD_SILENT_PERIOD_MS = 1_000;
/**
 * A loss that cannot be recorded for so long: hosts are sent to other paths, for the volume may have moved
 * there, and come back when it is recorded.
 */
export const TURN_AWAY_MS = 5_000;
/** Pause between attempts to reach the recorder, or a lost last child, again. */
export const RETRY_MS = 500;
/** When every child was lost: how long one that may lack writes is passed over in favour of the others. */
export const WHOLE_CHILD_WAIT_MS = 30_000;
/** Time a child has to answer when a nexus is opened or a child is added. */
export const CHILD_OPEN_TIMEOUT_MS = 10_000;
/** Share of a reactor's arena that rebuilds may use (one part in this many). */
export const REBUILD_ARENA_SHARE = 8;

/** Bytes that a scrub reads from every child at a time, and locks when they differ. */
export const SCRUB_SEGMENT_BYTES = 256 << 10;
/** What is judged and repaired by itself. */
export const SCRUB_BLOCK_BYTES = 4096;
/** Blocks looked at while host writes to their segment wait; then these have a turn. */
export const SCRUB_BLOCKS_PER_LOCK = 16;
/** Range locks are taken off again after so many segments in a row without a difference. */
export const SCRUB_CALM_SEGMENTS = 256;
/** Findings kept with a scrub; of more only the bytes are counted. */
export const SCRUB_FINDINGS_MAX = 64;
/** Which clusters hold data is asked again after so long: what was written since may be skipped. */
export const SCRUB_MAPS_MS = 30_000;
/** Pause before what cannot be had now (memory, a range that is being made equal) is tried again. */
export const SCRUB_RETRY_MS = 10;
/** Segments skipped in a row before others have a turn. */
export const SCRUB_SKIPS_PER_TURN = 1024;

/** Host latency is judged over so long, and over so many requests at least. */
export const PRESSURE_WINDOW_MS = 100;
export const PRESSURE_REQUESTS_MIN = 8;
/** Background work gives way when the mean latency is this many times that of quiet times, and more. */
export const PRESSURE_FACTOR = 2;
export const PRESSURE_SLACK_NS = 200_000;
/** It stays away for so long, twice as long each time in a row, up to this. */
export const PRESSURE_PAUSE_MIN_MS = 100;
export const PRESSURE_PAUSE_MAX_MS = 3_200;
/** How often it stays away to learn the latency of quiet times anew. */
export const PRESSURE_LEARN_MS = 10_000;
