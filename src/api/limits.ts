/** Bounds of the HTTP API, and what happens beyond each. */

/** Largest body of a request: 413 beyond it. */
export const BODY_BYTES_MAX = 1024 * 1024;
/** Longest path with its query: 414 beyond it. */
export const TARGET_CHARS_MAX = 16 * 1024;
/** Longest `Idempotency-Key`: 400 beyond it. */
export const IDEMPOTENCY_KEY_CHARS_MAX = 255;
/** Most events of one answer, and of one turn of an event stream. */
export const EVENTS_PAGE_MAX = 1_000;
export const EVENTS_PAGE_DEFAULT = 100;
/** A silent event stream carries a comment this often, so that proxies keep it open. */
export const EVENT_STREAM_BEAT_MS = 15_000;
/** Event streams at a time: 503 beyond it. */
export const EVENT_STREAMS_MAX = 256;
/** Volumes that `/v0/status` names; it counts all. */
export const STATUS_VOLUMES_MAX = 100;
/** Rebuilds that `/v0/status` names; it counts all. */
export const STATUS_REBUILDS_MAX = 100;
/** Longest life of a token. */
export const TOKEN_VALID_SECONDS_MAX = 365 * 24 * 3600;
export const TOKEN_VALID_SECONDS_DEFAULT = 24 * 3600;
/** Labels of one resource, and characters of a key or a value (as the CLI's, mayastor.md 2). */
export const LABELS_MAX = 64;
