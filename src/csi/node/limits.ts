/** Every bound of the node service. A command that reaches its limit is killed, and the call fails. */

/** Looking at a device: signatures, sizes. */
export const PROBE_LIMIT_MS = 60_000;
/** Making a file system. It goes on when the caller gives up, so that nothing is left half made. */
export const FORMAT_LIMIT_MS = 600_000;
/** Checking and repairing before a mount: replaying a journal, at the worst all inodes. */
export const CHECK_LIMIT_MS = 3_600_000;
export const MOUNT_LIMIT_MS = 300_000;
/** Unmounting writes everything that is left in memory. */
export const UNMOUNT_LIMIT_MS = 600_000;
export const SYNC_LIMIT_MS = 600_000;
export const GROW_LIMIT_MS = 600_000;
/** Anything that answers from memory. */
export const QUICK_LIMIT_MS = 30_000;
/** From the end of an unmount until nobody holds the device any more. */
export const RELEASE_LIMIT_MS = 10_000;
/** Until a device that has grown shows its new size, and how often it is looked at. */
export const GROWN_LIMIT_MS = 20_000;
export const POLL_MS = 50;
/** What a command may print before it is cut off. */
export const OUTPUT_BYTES_MAX = 1 << 20;
/** How much of what a command said goes into an error. */
export const SAID_CHARS_MAX = 1_000;
/** Bytes at the beginning of a device that have to be zeroes before it counts as blank. */
export const BLANK_HEAD_BYTES = 1 << 20;
/** Asking a file system for its figures; one that hangs is reported, not waited for. */
export const STATISTICS_LIMIT_MS = 5_000;
/** Processes that an error names as holding a device. */
export const HOLDERS_NAMED_MAX = 5;
