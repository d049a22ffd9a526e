/** Every bound of the engine's HTTP API, and what happens when it is reached. */

/** Bytes of a request's body. A longer one is refused with `InvalidArgument`. */
export const RPC_BODY_BYTES_MAX = 1 << 20;
/** Events kept for those who ask late; older ones are counted as lost. */
export const EVENTS_KEPT = 4096;
