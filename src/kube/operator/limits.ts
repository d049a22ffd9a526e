/** Bounds of the operator of pools. */

/** How often everything is looked at, whether or not something was heard of it. */
export const RESYNC_MS = 10_000;
/** Pause after something was done, before its outcome is looked at. */
export const SETTLE_MS = 500;
/** Objects that are worked on at a time: a node that does not answer holds up one of them. */
export const WORKERS = 8;
/** Longest message of an event; Kubernetes cuts them at 1,024 characters. */
export const MESSAGE_CHARS_MAX = 1_000;
