/** Every bound of what lives on one reactor, and what happens when it is reached. */

/** Faults injected at a time. One more is refused with `ResourceExhausted`. */
export const FAULTS_MAX = 256;
/** Devices opened by URI. One more is refused with `ResourceExhausted`. */
export const BDEVS_MAX = 1024;
/** Pools. One more is refused with `ResourceExhausted`. */
export const POOLS_MAX = 256;
/** Nexuses. One more is refused with `ResourceExhausted`. */
export const NEXUSES_MAX = 2048;
/** Standbys of volumes. One more is refused with `ResourceExhausted`. */
export const STANDBYS_MAX = 4096;

/**
 * Time for which ports and, after the start, disks that are in use are waited for: an engine that was
 * killed just before holds them until the kernel has taken its rings down.
 */
export const FORMER_ENGINE_MS = 5_000;
export const FORMER_ENGINE_POLL_MS = 50;

/** How often the disk of a pool is looked at though nobody uses it. */
export const DISK_CHECK_MS = 5_000;
/** A disk that has not answered a read for so long has failed. */
export const DISK_STALL_MS = 30_000;
/** How often the disk of a pool that has failed is asked whether it answers again. */
export const DISK_PROBE_MS = 1_000;
/** A disk that has answered for so long is steady; twice as long each time it has failed again. */
export const DISK_STEADY_MS = 10_000;
export const DISK_STEADY_MS_MAX = 600_000;
/** A failure that is so long ago does not count any more. */
export const FLAP_MEMORY_MS = 3_600_000;
