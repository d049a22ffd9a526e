/** Limits of membership, and its defaults. */

export const PEER_PORT_DEFAULT = 10126;
export const ENGINE_PORT_DEFAULT = 10124;

const DAY_MS = 24 * 3600_000;
/** A cluster's authority outlives the cluster: replacing it means that every node joins again. */
export const CA_LIFE_MS = 20 * 365 * DAY_MS;
export const NODE_LIFE_MS_DEFAULT = 90 * DAY_MS;
/** Share of a certificate's life after which it is replaced. */
export const RENEW_AT = 2 / 3;
/**
 * Certificates that end so soon are warned of: renewal, due with a third of the life left, has failed
 * for days. Half of it is critical.
 */
export const EXPIRY_WARNING_MS = 14 * DAY_MS;
/** How often a node looks whether its certificate is due. */
export const RENEW_CHECK_MS = 60_000;
/** Clocks of nodes may differ by so much when a certificate is made. */
export const CLOCK_SKEW_MS = 5 * 60_000;
/** A certificate names at most so many addresses. */
export const ADDRESSES_MAX = 16;
/** A request to sign is a few hundred bytes; far beyond it somebody plays tricks. */
export const CSR_CHARS_MAX = 8 * 1024;

export const TOKEN_LIFE_MS_DEFAULT = 3600_000;
export const TOKEN_LIFE_MS_MAX = 30 * DAY_MS;
/** Secret of a token; what is stored is its SHA-256. */
export const TOKEN_SECRET_BYTES = 32;

/** Raft messages that wait for one peer. Beyond it: dropped, raft sends again. */
export const QUEUED_MESSAGES_MAX = 4096;
/** Bytes of raft messages that wait for one peer. Beyond it: dropped. */
export const QUEUED_BYTES_MAX = 64 << 20;
/** One raft message; larger ones end the stream. Not less than raft's own limit. */
export const MESSAGE_BYTES_MAX = 32 << 20;
/** Pause before the next attempt to reach a peer: doubled from the least to the most. */
export const RETRY_MS_MIN = 50;
export const RETRY_MS_MAX = 500;
/** A snapshot that is larger is refused. */
export const SNAPSHOT_BYTES_MAX = 16 * 2 ** 30;
/** Snapshots that are received at a time. Beyond it: 503. */
export const SNAPSHOTS_INCOMING_MAX = 2;
/** A snapshot whose sender falls silent for so long is given up. */
export const SNAPSHOT_SILENCE_MS = 30_000;

/** How long `trilith join` waits for one answer. */
export const JOIN_TIMEOUT_MS = 30_000;
/** Pause between attempts to reach a node that has yet to hear of a new member. */
export const CONNECT_ATTEMPT_MS = 100;
/** How often the leader compares raft's members with the table of nodes, besides when that changes. */
export const KEEP_INTERVAL_MS = 1_000;
/** One change of raft's members must be through by then; else it is tried again. */
export const MEMBER_CHANGE_TIMEOUT_MS = 10_000;
/** A learner that is at most so many log entries behind becomes a voter. */
export const LEARNER_LAG_MAX = 100;

/** How long `trilith cluster recover` waits for another member to answer. */
export const RECOVERY_ASK_MS = 3_000;
/**
 * A recovered node goes on with the next multiple of this as its raft id: ids that lost members have
 * given out lie below.
 */
export const RECOVERY_RAFT_ID_STEP = 1_000_000;

/** Changes that a rebuild of the store puts into one transaction; one volume's are never split. */
export const REBUILD_CHANGES_MAX = 2_000;
