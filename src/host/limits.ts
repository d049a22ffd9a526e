/** Bounds of the host agent. */

/** Making one connection: the kernel itself gives up a fabrics command after 60 s. */
export const CONNECT_CALL_MS = 40_000;
/** How long `connect` waits for a path that serves, and for its block device. */
export const CONNECT_PATIENCE_MS = 60_000;
/** Attempts at every path, all in vain, after which `connect` gives up before that. */
export const CONNECT_ATTEMPTS = 2;
/**
 * How often the kernel is looked at: it tells of controllers that come and go, not of those that lose their
 * connection. And while nothing is to be kept.
 */
export const POLL_MS = 1_000;
export const IDLE_POLL_MS = 15_000;
/** How often a wait for a block device or for the end of a controller looks. */
export const WAIT_POLL_MS = 50;
/** How long the kernel may take to end a controller whose connection still lives. */
export const DELETE_PATIENCE_MS = 30_000;
/** Pause before a path that could not be connected is tried again; doubles up to the greater one. */
export const RETRY_MIN_MS = 1_000;
export const RETRY_MAX_MS = 30_000;
/** A path that the cluster no longer names is left alone for so long: paths come back. */
export const SURPLUS_HOLD_MS = 15_000;
/** How often the cluster is asked for a volume's paths when no event tells of a change. */
export const PATHS_REFRESH_MS = 15_000;
/** The same while a path of the volume is missing or not live. */
export const PATHS_REFRESH_TROUBLED_MS = 2_000;
/** Connections that are being made at once. */
export const CONNECTS_AT_ONCE = 8;
/** Waiting for another process that changes the state file. */
export const STATE_LOCK_MS = 10_000;
/** Largest state file that is read: thousands of volumes. */
export const STATE_BYTES_MAX = 16 << 20;
/** How often a process that may keep the connections sees whether nobody else does. */
export const KEEPER_RETRY_MS = 5_000;
/** Users of a device that an error names. */
export const USERS_NAMED = 5;
/** How long a size is waited for that the kernel was told to look at; it may well stay what it is. */
export const RESCAN_WAIT_MS = 2_000;
/** Pause before a stream of events that has ended is asked for again. */
export const FOLLOW_AGAIN_MS = 5_000;
/** What stays lost is told again after this time; the cluster forgets after three times as long. */
export const REPORT_AGAIN_MS = 10_000;
/** The least from one report to the next. */
export const REPORT_RETRY_MS = 1_000;
