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
