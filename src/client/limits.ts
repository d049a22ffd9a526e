/** Bounds of the client of the HTTP API. */

/** Volumes asked for at a time (mayastor.md 2). */
export const VOLUMES_PER_PAGE = 200;
/** Snapshots asked for at a time (mayastor.md 2). */
export const SNAPSHOTS_PER_PAGE = 100;
/** Host nodes asked for at a time. */
export const APP_NODES_PER_PAGE = 200;
/** Pages after which a listing that never ends is given up: one million volumes. */
export const PAGES_MAX = 5_000;

/** How long one request may take unless said otherwise. */
export const TIMEOUT_DEFAULT_MS = 10_000;
/**
 * The least that a request which changes something is given: the server's own limit is 59 s plus
 * one (mayastor.md 1.3), and whoever hangs up before it answers does not learn what came of it.
 */
export const CHANGE_TIMEOUT_MIN_MS = 60_000;

/** Largest answer that is read. 10,000 volumes are about 20 MB. */
export const ANSWER_BYTES_MAX = 256 << 20;
/** Longest line of an event stream. */
export const STREAM_LINE_MAX = 1 << 20;
/** How often a request is sent again when the connection breaks or no leader is known. */
export const ATTEMPTS_MAX = 4;
/** Pause before the first repetition; it doubles from one to the next. */
export const RETRY_PAUSE_MS = 250;
