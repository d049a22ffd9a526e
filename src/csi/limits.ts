/** Bounds of the CSI services. */

/** Largest message that a call may carry, either way. */
export const MESSAGE_BYTES_MAX = 4 << 20;
/** How long calls that run may go on when the server stops. */
export const STOP_GRACE_MS = 5_000;
/** Longest path of a unix socket (`sun_path` without its end, unix(7)). */
export const SOCKET_PATH_BYTES_MAX = 107;
/** Longest message of an error: Kubernetes cuts events at 1,024 characters. */
export const ERROR_TEXT_MAX = 900;
/** Longest name of a volume or snapshot (CSI: 128 bytes unless said otherwise). */
export const NAME_BYTES_MAX = 128;
/** Calls about one volume that may wait for another. */
export const LANE_QUEUE_MAX = 32;
/** Size of a volume for which none is asked. */
export const VOLUME_BYTES_DEFAULT = 2 ** 30;
/** How often it is looked whether the kubelet still has the driver's socket: one `stat` each time. */
export const REGISTRATION_LOOK_MS = 2_000;
/** How often a node tells the cluster that it is there, and how soon after it could not (mayastor.md 3.3). */
export const KNOWN_AGAIN_MS = 300_000;
export const KNOWN_RETRY_MS = 5_000;
