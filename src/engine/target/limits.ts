/** Every bound of the target, and what happens when it is reached. */

/** Data that may travel inside a command capsule (IOCCSZ). Larger writes are asked for by R2T. */
export const IN_CAPSULE_BYTES = 8192;
/** Largest data PDU that a host may send (MAXH2CDATA), by default. */
export const H2C_DATA_BYTES_DEFAULT = 1 << 20;
export const H2C_DATA_BYTES_MIN = 4096;
/** Entries of an I/O queue (CAP.MQES + 1) and of an admin queue. More: Connect fails. */
export const IO_QUEUE_ENTRIES_MAX = 1024;
export const ADMIN_QUEUE_ENTRIES_MAX = 128;
/** I/O queues of a controller. A host asking for more is granted these. */
export const IO_QUEUES_MAX = 128;
/** Largest transfer of one command in bytes, by default and at most (MDTS). */
export const TRANSFER_BYTES_MAX = 1 << 20;
/** Reads up to this size are gathered into the send chunk; larger ones are sent from where they lie. */
export const GATHER_BYTES_MAX = 16 << 10;
/** Payload of at least this size still to come is received straight into its buffer. */
export const RECEIVE_INTO_BYTES_MIN = 4 << 10;
/**
 * While host data of at least this size is awaited, a receive takes so little that a header and what
 * comes close behind it fit, and most of the data goes straight to its place.
 */
export const LARGE_DATA_BYTES = 32 << 10;
export const RECEIVE_BYTES_BEFORE_DATA = 2 << 10;
/**
 * Of the arena that commands may use, and of the request slots, one part in this many may wait for
 * host data that was asked for. Further commands are parked until some of it has come.
 */
export const HOST_DATA_SHARE = 2;
/** Arena bytes that reads of one connection may hold before it stops receiving. */
export const READ_BYTES_MAX = 8 << 20;
/**
 * A connection that holds memory and makes no progress for this long is closed when others wait for
 * memory: a host that takes no data, sends none that it was asked for, or stops within a PDU.
 */
export const STALLED_MS = 10_000;
/** How often within `STALLED_MS` such connections are looked for, while there are any at all. */
export const STALL_SCANS = 10;
/** Connections that have not finished Connect. One more ends the oldest of them. */
export const HANDSHAKES_MAX = 512;
/** Reactors that a connection may be passed through before its Connect is refused. */
export const HAND_OVERS_MAX = 2;
/** Async Event Requests a controller may have outstanding (AERL + 1). */
export const ASYNC_EVENTS_MAX = 4;
/** Keep-alive time-out granularity (KAS, units of 100 ms). Time-outs are rounded up to it. */
export const KEEP_ALIVE_GRANULARITY = 10;
/** A discovery controller without a keep-alive time-out ends after this long without a command. */
export const DISCOVERY_IDLE_MS = 120_000;
/** A controller that is disabled and not enabled again by then is ended. */
export const DISABLED_TIMEOUT_MS = 120_000;
/** Entries of a controller's error log; older ones are overwritten. */
export const ERROR_LOG_ENTRIES = 64;
/** Reservation notifications kept for a controller; older ones are dropped. */
export const RESERVATION_NOTICES_MAX = 64;
/** Registrants of a namespace's reservations. One more: "capacity exceeded". */
export const REGISTRANTS_MAX = 128;
/** Vendor commands of one namespace in progress. One more is answered "command interrupted". */
export const VENDOR_COMMANDS_MAX = 256;
/** Connections of one reactor. One more is accepted and closed at once. */
export const CONNECTIONS_MAX = 4096;
/** A connection that has not finished Connect by then is closed. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Controllers of one subsystem. One more: Connect answers "controller busy". */
export const CONTROLLERS_MAX = 1024;
/** Ready time-out reported in CAP.TO, in units of 500 ms. */
export const READY_TIMEOUT = 20;
