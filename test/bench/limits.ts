/** Durations, sizes and bounds of the benchmarks. */

/** How long and how often things are measured. */
export interface Pace {
  /** Rounds of a row; every side is measured once in each. */
  readonly repetitions: number;
  /** Duration of one measurement, in whole seconds. */
  readonly seconds: number;
  /** Duration of the first, discarded measurement of each side in a row. */
  readonly warmupSeconds: number;
  readonly enduranceSeconds: number;
  readonly idleSeconds: number;
  /** Starts that are timed. */
  readonly starts: number;
  /** Size of the file that file devices are measured on. */
  readonly fileMib: number;
}

export const fullPace: Pace = {
  repetitions: 5,
  seconds: 2,
  warmupSeconds: 1,
  enduranceSeconds: 60,
  idleSeconds: 30,
  starts: 7,
  fileMib: 2048,
};

export const quickPace: Pace = {
  repetitions: 3,
  seconds: 1,
  warmupSeconds: 1,
  enduranceSeconds: 10,
  idleSeconds: 5,
  starts: 3,
  fileMib: 512,
};

/** Size of a memory device that is measured alone, and of each child of a mirror. */
export const MEMORY_MIB = 256;
export const CHILD_MIB = 128;
/** Copies of a mirror. */
export const COPIES = 3;

/** Replicas of the idle engine, the size of each and of the file their pool is in. */
export const IDLE_REPLICAS = 100;
export const IDLE_REPLICA_MIB = 64;
export const IDLE_POOL_MIB = 8192;

/** Time for a server to begin to serve, and to end when it is asked to. */
export const START_TIMEOUT_MS = 30_000;
export const STOP_TIMEOUT_MS = 5_000;
/** How often a condition is looked at. */
export const POLL_MS = 20;
/** What a load may take beyond its duration: connecting, setting up, reporting. */
export const LOAD_GRACE_MS = 60_000;
/** Lines of a failed program's output that are shown. */
export const LINES_QUOTED = 12;

/** Memory of one `spdk_nvme_perf`. */
export const PERF_MIB = 256;
/**
 * Memory reserved as huge pages beyond what SPDK is given: for the engine beside it, which takes
 * huge pages when there are any, and for others on the machine that do.
 */
export const HUGE_SPARE_MIB = 2048;
/** Memory that stays free of huge pages. With less, SPDK runs on ordinary pages. */
export const MEMORY_KEPT_MIB = 4096;

/** How long a round waits for the cores to be near each other, when that is asked for. */
export const NEAR_TIMEOUT_MS = 120_000;
export const NEAR_POLL_MS = 1_000;
/** Rounds that are begun at most for each that is to count. */
export const ROUNDS_PER_REPETITION = 3;

/** Round trips of a cache line between two cores: batches, of which the fastest counts. */
export const PING_BATCHES = 40;
export const PINGS_PER_BATCH = 2_000;
