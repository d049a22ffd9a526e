/** Every bound of the metrics, and what happens when it is reached. */

/** An answer may be so old; scrapes that come sooner get the same one. */
export const SCRAPE_CACHE_MS = 1_000;
/** An engine that does not answer by then counts as away in this scrape. */
export const ENGINE_TIMEOUT_MS = 5_000;
/** Answers shorter than this are not compressed. */
export const GZIP_BYTES_MIN = 4_096;
/** Label values that one instrument keeps apart; more of them are counted under `other`. */
export const SERIES_MAX = 512;
