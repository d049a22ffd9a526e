/** Every bound of what lives on one reactor, and what happens when it is reached. */

/** Faults injected at a time. One more is refused with `ResourceExhausted`. */
export const FAULTS_MAX = 256;
/** Devices opened by URI. One more is refused with `ResourceExhausted`. */
export const BDEVS_MAX = 1024;
/** Pools. One more is refused with `ResourceExhausted`. */
export const POOLS_MAX = 256;
/** Nexuses. One more is refused with `ResourceExhausted`. */
export const NEXUSES_MAX = 2048;
