/** Every bound of the planner's decisions, and what happens when it is reached. */

/** Replicas of a volume: what a nexus opens at once. More is `InvalidArgument`. */
export const REPLICAS_MAX = 8;
/** Size of a volume. What exceeds it is `InvalidArgument`: sums of sizes stay exact. */
export const VOLUME_BYTES_MAX = 2 ** 50;
/** Devices are whole blocks of the largest block size. A volume's device is its size rounded up to it. */
export const DEVICE_ALIGNMENT_BYTES = 4096;
/** Room that a pool has to have beside for a thin replica. */
export const THIN_FREE_BYTES_MIN = 16 << 20;

/** Characters of a label's key (of each part of it, when it has a prefix) and of its value. */
export const LABEL_CHARACTERS_MAX = 63;
/** Labels of one node, pool, volume or app node. One more is `InvalidArgument`. */
export const LABELS_MAX = 64;
/** Characters of the id of a node, pool, app node or affinity group, of a cordon label or an NQN. */
export const NAME_CHARACTERS_MAX = 223;
/** Cordon and drain labels of a node together. One more is `ResourceExhausted`. */
export const CORDON_LABELS_MAX = 32;
/** Hosts that one volume is published to. One more is `ResourceExhausted`. */
export const FRONTEND_NODES_MAX = 4;
/** Entries and bytes of a publish context. More is `InvalidArgument`. */
export const PUBLISH_CONTEXT_MAX = 32;
export const PUBLISH_CONTEXT_TEXT_MAX = 4096;
/** Watches of one volume. One more is `ResourceExhausted`. */
export const WATCHES_MAX = 32;
/** Attempts of one snapshot that may be open at a time. One more is `ResourceExhausted`. */
export const SNAPSHOT_ATTEMPTS_MAX = 5;

/** Ids of controllers: the largest that a subsystem gives out, and how many one node has for a volume. */
export const CONTROLLER_ID_MAX = 0xffef;
export const CONTROLLER_IDS_PER_NODE = 64;

/** Pools that an error names with the reason why each was not taken; the rest is counted by reason. */
export const REJECTIONS_NAMED = 20;
/** Steps of the search for pools that go together. A cluster where it is reached has too odd labels. */
export const SEARCH_STEPS_MAX = 20_000;
