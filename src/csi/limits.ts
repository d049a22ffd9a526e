/** Bounds of the CSI services. */

/** Largest message that a call may carry, either way. */
export const MESSAGE_BYTES_MAX = 4 << 20;
/** How long calls that run may go on when the server stops. */
export const STOP_GRACE_MS = 5_000;
/** Longest path of a unix socket (`sun_path` without its end, unix(7)). */
export const SOCKET_PATH_BYTES_MAX = 107;
/** Longest message of an error: Kubernetes cuts events at 1,024 characters. */
export const ERROR_TEXT_MAX = 900;
