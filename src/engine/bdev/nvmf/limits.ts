/** Every bound of the NVMe/TCP initiator, and what happens when it is reached. */

/** Commands of one I/O queue, by default. Requests beyond it wait in order. */
export const QUEUE_DEPTH_DEFAULT = 128;
/** Most commands of one queue: command ids are ten bits of index and six of generation. */
export const QUEUE_DEPTH_MAX = 1023;
/** Commands of the admin queue. Control work beyond it waits in order. */
export const ADMIN_DEPTH = 31;
/** I/O queues of a device, by default and at most. */
export const IO_QUEUES_DEFAULT = 1;
export const IO_QUEUES_MAX = 128;

/** Data up to this size is copied behind its header; larger data is sent from where it lies. */
export const COPY_BYTES_MAX = 8192;
/** Read data of at least this size still to come is received straight into its buffer. */
export const RECEIVE_INTO_BYTES_MIN = 8192;
/** Reads, and data PDUs, of at least this size are worth a receive of their own. */
export const LARGE_READ_BYTES_MIN = 64 << 10;
/** R2Ts that a controller may have outstanding for one command. More end the connection. */
export const R2T_PER_COMMAND_MAX = 4;
/** How long a termination request may take to leave before the connection is closed anyway. */
export const TERM_LINGER_MS = 100;
/** Smallest MAXH2CDATA that a controller may announce (TCP transport, 3.6.2.2). */
export const H2C_DATA_BYTES_MIN = 4096;

/** Blocks of one Write Zeroes command: its block count is sixteen bits, 0-based. */
export const WRITE_ZEROES_BLOCKS_MAX = 65536;
/** Bytes of one Dataset Management range; a longer discard is sent in several commands. */
export const DISCARD_BYTES_MAX = 1 << 30;
/** Dataset Management commands of a device in flight; further discards wait. Eight bits number them. */
export const DISCARDS_MAX = 256;
/** Zeroes written by one command when the controller has no Write Zeroes. */
export const ZERO_BYTES = 64 << 10;
/** Bytes of data that one control command (vendor, report, log page) may move. */
export const CONTROL_BYTES_MAX = 1 << 20;
/** Data of admin and Fabrics commands that every controller takes in the capsule. */
export const ADMIN_IN_CAPSULE_BYTES = 8192;
/** Groups of an ANA log page that are read. */
export const ANA_GROUPS_MAX = 1024;
/** Registrants of a reservation report. */
export const REGISTRANTS_MAX = 1024;

/** Wait between looks at CSTS while a controller becomes ready or shuts down. */
export const READY_POLL_MS = 5;
/** Longest wait for CSTS.RDY when CAP.TO announces none (CAP.TO counts 500 ms). */
export const READY_TIMEOUT_MS_MIN = 1_000;
/** Longest wait for an orderly shutdown before the connections are closed anyway. */
export const SHUTDOWN_TIMEOUT_MS = 2_000;
/** How often commands are looked through for those out of time: this share of the shortest limit. */
export const TIMEOUT_SCAN_SHARE = 8;
/** ... within these bounds. */
export const TIMEOUT_SCAN_MS_MIN = 5;
export const TIMEOUT_SCAN_MS_MAX = 1_000;
