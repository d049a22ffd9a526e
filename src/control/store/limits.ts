/** Named limits of the store, and what happens when one is reached. */

/** Newest events that are kept; older ones go as new ones come. */
export const EVENTS_KEPT = 10_000;

/** How long an idempotency key is remembered, by the clock of the leader. */
export const REQUEST_KEPT_MS = 24 * 60 * 60_000;
/** Keys remembered at most; beyond it the oldest are forgotten early. */
export const REQUESTS_KEPT = 100_000;
/** Keys forgotten per transaction at most: a long pause is made up for bit by bit. */
export const REQUESTS_PRUNED_AT_ONCE = 64;

/** Times a transaction is decided anew because others changed what it touches; then `Conflict`. */
export const TRANSACT_ATTEMPTS_MAX = 16;
/** Time limit of a transaction without one of its own; then `Timeout`. */
export const TRANSACT_TIMEOUT_MS = 10_000;
/** Time limit of a read that waits for what was acknowledged before; then `Unavailable`. */
export const READ_TIMEOUT_MS = 5_000;
/** How long a new leader waits before it tries again to catch up with its log. */
export const READY_RETRY_MS = 50;
/** Changes, checks and events of one transaction; more is refused with `ResourceExhausted`. */
export const TRANSACTION_PARTS_MAX = 10_000;
/** Characters of a record's key; a longer one is a defect of who made it. */
export const KEY_LENGTH_MAX = 8 * 1024;
/** Characters of any other text of a record. */
export const TEXT_LENGTH_MAX = 64 * 1024;
/** Characters of a setting's value, which may be a list. */
export const SETTING_LENGTH_MAX = 1024 * 1024;
/** Characters of an event's message; the rest is cut off. */
export const MESSAGE_LENGTH_MAX = 4 * 1024;
/** Bytes of one encoded command; more is refused with `ResourceExhausted`. */
export const COMMAND_BYTES_MAX = 4 * 1024 * 1024;
/** Events handed out by one call. */
export const EVENTS_PER_CALL_MAX = 10_000;
/** How long to wait before a migration is proposed again that was not possible. */
export const MIGRATION_RETRY_MS = 30_000;
