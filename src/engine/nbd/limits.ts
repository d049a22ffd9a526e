/** Every bound of the NBD front end, and what happens when it is reached. */

/** Largest piece of one request: what devices take at once, and what clients are told. */
export const PIECE_BYTES_MAX = 1 << 20;
/**
 * Longest write that is taken from a client that does not keep to `PIECE_BYTES_MAX`; it is carried
 * out in pieces. A longer one ends the connection: what follows it cannot be told from garbage.
 * Reads of any length are answered in pieces.
 */
export const WRITE_BYTES_MAX = 32 << 20;
/** Range of a trim or a write of zeroes that is given to a device at once; longer ones go in turns. */
export const RANGE_PIECE_BYTES_MAX = 32 << 20;
/** Block size that clients are advised to use. */
export const BLOCK_BYTES_PREFERRED = 4096;

/** Requests of a connection that are not answered yet. More are not read until one is. */
export const REQUESTS_MAX = 256;
/** Memory that unanswered requests of a connection hold. More are not read until some is free. */
export const REQUEST_BYTES_MAX = 8 << 20;
/** Reads up to this size are gathered into the send chunk; larger ones are sent from where they lie. */
export const GATHER_BYTES_MAX = 16 << 10;
/** Writes up to this size are waited for in the receive buffer. */
export const WHOLE_WRITE_BYTES_MAX = 16 << 10;
/** Payload of at least this size still to come is received straight into its buffer. */
export const RECEIVE_INTO_BYTES_MIN = 4 << 10;
/** Extents of one answer to BLOCK_STATUS. The client asks on from where they end. */
export const EXTENTS_MAX = 128;
/** Clusters looked at for one run of allocated or free ones. A longer run is found in several. */
export const CLUSTERS_PER_RUN_MAX = 1024;

/** Option data that is looked at. More is skipped and answered with "too big". */
export const OPTION_BYTES_MAX = 32 << 10;
/** Option data that is skipped. More ends the connection. */
export const OPTION_SKIP_BYTES_MAX = 1 << 20;
/** A connection that has sent no whole option for so long is closed. */
export const HANDSHAKE_TIMEOUT_MS = 30_000;

/** Connections of one reactor. One more is accepted and closed at once. */
export const CONNECTIONS_MAX = 1024;
/** Exports of one reactor. One more is refused. */
export const EXPORTS_MAX = 4096;
/** Length of an export's name and description in bytes of UTF-8. */
export const EXPORT_NAME_BYTES_MAX = 255;
export const DESCRIPTION_BYTES_MAX = 255;
