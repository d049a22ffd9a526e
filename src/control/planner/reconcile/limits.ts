/** Bounds of what reconciliation waits for and keeps. */

/** A resource that could not be created for so long is given up, and what was made of it removed. */
export const CREATE_PATIENCE_MS = 30_000;
/** A call while a volume is paused, which its hosts feel, is not waited for longer. */
export const PAUSED_CALL_MS = 5_000;
/** Standbys of a published volume. */
export const STANDBYS_PER_VOLUME = 2;
/** A call about a standby is not waited for longer: others are better standbys then. */
export const STANDBY_CALL_MS = 5_000;
/** How long a node has to be Offline before volumes are served elsewhere where hosts are connected. */
export const HOLD_DOWN_MS = 300;
/** The same where no host is known to be connected: they may know the way to the node alone. */
export const REPUBLISH_WAIT_MS = 30_000;
/** How long a target that was moved waits for a host before it goes to where hosts are connected. */
export const FOLLOW_WAIT_MS = 10_000;
/**
 * How long hosts have to say that they have lost the target's node, which answers the leader, before the
 * target goes where they are connected: a connection that was only cut is made again within that time.
 */
export const HOSTS_LOST_HOLD_MS = 3_000;
/** A target that was made less than so long ago is not moved because hosts cannot reach it. */
export const HOSTS_LOST_GAP_MS = 30_000;
/** A pool that is so full, of thin volumes that may grow, is warned of (percent). */
export const POOL_FULL_PERCENT = 90;
/**
 * A volume whose replicas at hand may all lack acknowledged writes waits so long for one that does not,
 * counted from the start of the last of their engines.
 */
export const WHOLE_REPLICA_WAIT_MS = 30_000;
/** Unit of the replicas' write-intent logs (DESIGN 6.4). */
export const INTENT_REGION_BYTES = 4 << 20;
/** Children that a nexus can have. */
export const CHILDREN_MAX = 8;
/** Where a running scrub is goes into the store so often; found differences at once. */
export const SCRUB_CHECKPOINT_MS = 30_000;
