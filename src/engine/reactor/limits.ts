/** Every bound of a reactor, and what happens when it is reached. */

/** Submission entries of a ring. A full queue is handed to the kernel early. */
export const RING_ENTRIES = 1024;
/** Completion entries of a ring. Beyond it the kernel keeps completions back, none is lost. */
export const RING_COMPLETIONS = 8192;
/** Completions handled in one turn before deferred work and timers get their share. */
export const COMPLETIONS_PER_TURN = 2048;

/**
 * Request slots of a reactor. A host command is admitted only when the slots that all layers below
 * may need for it are free; until then its connection stops reading.
 */
export const IO_SLOTS = 16384;
/** Layers that may stand between whoever issued an I/O and the device that serves it. */
export const IO_DEPTH = 4;

/** Memory for data buffers, receive buffers and send chunks of one reactor, by default. */
export const ARENA_BYTES_DEFAULT = 64 << 20;
export const ARENA_BYTES_MIN = 16 << 20;
export const ARENA_BYTES_MAX = 1 << 30;
/** Smallest and largest piece of arena memory. The largest is also the largest single transfer. */
export const BUFFER_BYTES_MIN = 4096;
export const BUFFER_BYTES_MAX = 1 << 20;
/**
 * Arena memory that only work already begun may take (send chunks, copies inside a pool); host
 * commands are not admitted into it, so what is begun can finish.
 */
export const ARENA_RESERVE_BYTES = 8 << 20;

/** A receive buffer: what one receive can bring. */
export const RECV_BUFFER_BYTES = 256 << 10;
/** Share of the arena that is receive buffers. None free: connections wait, the kernel holds the bytes. */
export const RECV_ARENA_SHARE = 4;

/** A turn longer than this is a stall: counted, and logged with what the reactor was doing. */
export const STALL_NS = 20_000_000;

/** Longest spin before a reactor blocks, and how close wake-ups must follow for it to spin at all. */
export const SPIN_NS_MAX = 50_000;
export const SPIN_GAP_NS = 30_000;
/** A turn with more completions than this has enough to batch: spinning would cost throughput. */
export const SPIN_COMPLETIONS_MAX = 2;
/** Fruitless spins in a row after which a reactor stops spinning until wake-ups come closely again. */
export const SPIN_MISSES_MAX = 2;

/** Reactors by default: one per this many CPUs, at most `REACTORS_MAX`. */
export const CPUS_PER_REACTOR = 2;
export const REACTORS_DEFAULT_MAX = 4;
export const REACTORS_MAX = 64;

/** Things that can own completions in one reactor at a time (connections, devices, timers). */
export const HANDLERS_MAX = 65536;

/** Memory in which small responses are gathered; one send carries what a turn gathered. */
export const SEND_CHUNK_BYTES = 128 << 10;
/** Pieces of one send (each an iovec), and bytes queued, before a connection stops being served. */
export const SEND_SEGMENTS = 256;
export const SEND_QUEUE_BYTES_MAX = 4 << 20;
/** Left-over bytes are moved to the front of a receive buffer when less room than this remains. */
export const RECV_ROOM_MIN = 64 << 10;
/** How long a connection that is being refused may take to receive the reason. */
export const CLOSE_LINGER_MS = 5_000;

/** Calls under way from one end of a mailbox. One more is refused with `ResourceExhausted`. */
export const MAILBOX_CALLS_MAX = 1024;
/** Log lines of one reactor in a second; the rest are counted and left out. */
export const LOG_LINES_PER_SEC = 200;
/** Time the main thread gives a reactor to say that it runs. */
export const REACTOR_START_MS = 30_000;
/** How long a listener rests when accepting failed (out of descriptors, say). */
export const ACCEPT_RETRY_MS = 100;
/** Connections that wait to be accepted, per listening socket; the kernel turns further ones away. */
export const LISTEN_BACKLOG = 512;
