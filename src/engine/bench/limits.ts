/** Every bound of the load generator, and what happens when it is reached. */

/** Requests in flight: queue depth times jobs. More is refused. */
export const WORKERS_MAX = 8192;
/** Units that a verifying load keeps track of (nine bytes each). A larger range is refused. */
export const VERIFY_UNITS_MAX = 1 << 26;
/** Mismatches kept with their details; all are counted. */
export const MISMATCHES_KEPT = 16;
/** Requests issued in a row before the reactor's other work gets its turn. */
export const ISSUES_PER_TURN = 256;
/** After a failed request its worker pauses, so that a device that fails at once is not hammered. */
export const ERROR_PAUSE_MS = 10;
/** With a rate: how often requests held back are looked at. */
export const RATE_TICK_MS = 1;
/**
 * Reads of a unit in the final pass before it counts as unreadable. From then on the others are read
 * once, until one of them succeeds: the device is gone, and a large range would take for ever.
 */
export const FINAL_READS_MAX = 100;
/** Memory of noise that payloads are cut from. */
export const NOISE_BYTES = 64 << 10;
