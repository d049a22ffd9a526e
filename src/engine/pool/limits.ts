/** Every bound of a pool, and what happens when it is reached. */

/** Cluster sizes: a power of two between these. Anything else is `InvalidArgument`. */
export const CLUSTER_BYTES_MIN = 64 << 10;
export const CLUSTER_BYTES_DEFAULT = 4 << 20;
export const CLUSTER_BYTES_MAX = 1 << 30;

/**
 * Clusters of a pool (about 4 bytes of memory each). A larger disk is refused with the advice to use
 * a larger cluster size.
 */
export const POOL_CLUSTERS_MAX = 1 << 26;
/** Clusters of one replica or snapshot (4 bytes of memory each). A larger one is refused. */
export const OBJECT_CLUSTERS_MAX = 1 << 26;
/** Replicas and snapshots of a pool together. One more is `ResourceExhausted`. */
export const OBJECTS_MAX = 4096;

/** Names of pools, replicas and snapshots, in bytes of UTF-8. */
export const NAME_BYTES_MAX = 128;
/** All attributes of one replica or snapshot together, encoded. More is `InvalidArgument`. */
export const ATTRIBUTE_BYTES_MAX = 48 << 10;
/** Host NQNs that a replica admits. */
export const ALLOWED_HOSTS_MAX = 64;
/** An NQN (NVMe base 2.0, 4.7). */
export const NQN_BYTES_MAX = 223;
/** The reservation state of a replica, as the target encodes it. */
export const RESERVATION_BYTES_MAX = 16 << 10;
/** Entity and transaction ids. */
export const ID_BYTES_MAX = 256;

/** Metadata areas are made of pieces of this size, aligned to it: a checkpoint page. */
export const GRANULE_BYTES = 64 << 10;
/** Pieces that the superblock can list. When they are used up, metadata cannot grow: `NoSpace`. */
export const EXTENTS_MAX = 200;

/** Size of the journal ring (and of its mirror): a power of two between these, by pool size. */
export const JOURNAL_BYTES_MIN = 512 << 10;
export const JOURNAL_BYTES_MAX = 16 << 20;
/** Share of the disk that each ring takes when it is not given. */
export const JOURNAL_DISK_SHARE = 2048;
/** Blocks of one commit. What is more waits for the next one. */
export const COMMIT_BLOCKS_MAX = 32;
/** Bytes of records that may wait for a commit. More is a defect: every source of records is bounded. */
export const JOURNAL_QUEUE_BYTES_MAX = 16 << 20;
/** A checkpoint is started when the newest one is this share of the ring behind. */
export const CHECKPOINT_RING_SHARE = 4;
/** Records that nobody waits for are committed after this time, or with the next commit. */
export const LAZY_COMMIT_MS = 1_000;

/** Entries of a cluster map that one record of a checkpoint carries. */
export const MAP_CHUNK_ENTRIES = 1024;
/** Bytes of a bitmap that one record of a checkpoint carries. */
export const BITMAP_CHUNK_BYTES = 4096;

/** Write-intent is kept per region of this size (design, section 6). */
export const INTENT_REGION_BYTES = 4 << 20;

/** Requests that the pool's own work (journal aside) has in flight. More wait. */
export const POOL_IOS = 12;
/** Pieces of one split request in flight. */
export const SPLIT_PIECES = 2;
/** Clusters being mapped, copied or unmapped at a time. Writes that need one more wait. */
export const CLUSTER_OPS_MAX = 128;
/** Clusters copied at a time; the others wait their turn. */
export const COPIES_MAX = 4;
/** A cluster is copied in steps of this size. */
export const COPY_BYTES = 512 << 10;
/** Clusters that one record unmaps: a longer discard goes in steps. */
export const UNMAP_CLUSTERS_MAX = 65536;

/** Free space kept zeroed ahead of demand, and what one write-zeroes covers. */
export const ZERO_AHEAD_BYTES = 512 << 20;
export const ZERO_RUN_BYTES = 32 << 20;
/** After an error while zeroing ahead, the next attempt waits this long (demand does not wait). */
export const ZERO_RETRY_MS = 1_000;
/** Clusters of a deleted replica given back in one turn. */
export const REAP_ENTRIES_PER_TURN = 65536;

/** What is read at the head of a disk to find foreign data, and at its tail. */
export const PROBE_HEAD_BYTES = (1 << 20) + (64 << 10);
export const PROBE_TAIL_BYTES = 1 << 20;
/** Transfers of import and check. */
export const LOAD_BYTES = 1 << 20;
/** Problems that a check lists; further ones are counted. */
export const CHECK_ERRORS_MAX = 100;
