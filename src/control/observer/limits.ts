/** Bounds of what the leader asks of engines, and how often. */

/** Time between two heartbeats of a node. */
export const HEARTBEAT_MS = 500;
/** How often nodes are looked through for those that are silent for too long. */
export const SILENCE_CHECK_MS = 100;
/** A heartbeat without answer for so long has failed; the next one follows. */
export const HEARTBEAT_TIMEOUT_MS = 1_000;
/** One list of an engine takes no longer than this, or the whole read has failed. */
export const READ_TIMEOUT_MS = 10_000;
/** Everything is read again after this long even if nothing seems to have happened (space in use). */
export const FULL_READ_MS = 5_000;
/** How long an engine may let a request for events wait. */
export const EVENTS_WAIT_MS = 20_000;
/** Events that are taken over at a time. */
export const EVENTS_LIMIT = 500;
/** Time between two requests for events when one has failed. */
export const EVENTS_RETRY_MS = 1_000;
/** Full reads of engines at a time, over all nodes. */
export const READS_MAX = 32;
