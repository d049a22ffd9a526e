/** Bounds of the client of Kubernetes' API. */

/** Objects asked for at a time; the API server cuts longer lists into pages. */
export const LIST_PAGE = 500;
/** Pages after which a list that never ends is given up: half a million objects. */
export const PAGES_MAX = 1_000;
/** How long one request may take; a watch has limits of its own. */
export const REQUEST_TIMEOUT_MS = 30_000;
/** The API server ends a watch after this time, so that clients spread over its replicas. */
export const WATCH_SECONDS = 240;
/** A watch that brings nothing, no bookmark either, for this long is on a dead connection. */
export const WATCH_SILENCE_MS = 300_000;
/** Longest line of a watch; etcd takes objects of up to 1.5 MiB. */
export const WATCH_LINE_MAX = 8 << 20;
/** Pauses between attempts, doubling from one to the next, with a random part. */
export const PAUSE_MIN_MS = 250;
export const PAUSE_MAX_MS = 30_000;
/** How often a change that met another change of the same object is made again. */
export const CONFLICT_ATTEMPTS = 5;
/** Largest kubeconfig that is read. */
export const KUBECONFIG_BYTES_MAX = 1 << 20;
/** How long a token read from a file is used before the file is looked at again. */
export const TOKEN_AGE_MAX_MS = 60_000;
