/** Limits of HTTP over mutual TLS. */

/** A connection must have shown itself by then, TCP and TLS. */
export const CONNECT_TIMEOUT_MS = 5_000;
/** How often an idle or busy connection is asked whether the other end is there. */
export const PING_INTERVAL_MS = 2_000;
/** Without an answer to a ping for so long, the connection is given up. */
export const PING_TIMEOUT_MS = 5_000;
/** Header fields of a request or answer, together. Beyond it: refused by the HTTP layer. */
export const HEADER_BYTES_MAX = 32 * 1024;
/** Connections without a certificate of the cluster, at a time. Beyond it: closed at once. */
export const STRANGERS_MAX = 32;
/** A connection without a certificate of the cluster lives no longer. */
export const STRANGER_LIFE_MS = 30_000;
/** Body of a request by a stranger. Beyond it: 413. */
export const STRANGER_BODY_BYTES_MAX = 64 * 1024;
/** Streams of one connection at a time. Beyond it: refused by the HTTP layer. */
export const STREAMS_MAX = 1_000;
