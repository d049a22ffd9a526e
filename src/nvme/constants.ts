/**
 * Numbers of the NVMe specifications: NVM Express Base 2.0c, NVM Command Set 1.0c, Fabrics (part of
 * Base 2.0). Section numbers are those documents'. Imports nothing.
 */

/** NVM command set opcodes on I/O queues (NVM Command Set 1.0c, figure 18; Base 2.0, 7). */
export const IoOpcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  WRITE_UNCORRECTABLE: 0x04,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
  VERIFY: 0x0c,
  RESERVATION_REGISTER: 0x0d,
  RESERVATION_REPORT: 0x0e,
  RESERVATION_ACQUIRE: 0x11,
  RESERVATION_RELEASE: 0x15,
  COPY: 0x19,
} as const;

/** Admin opcodes (Base 2.0, figure 138). */
export const AdminOpcode = {
  GET_LOG_PAGE: 0x02,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT_REQUEST: 0x0c,
  KEEP_ALIVE: 0x18,
} as const;

/** Log page identifiers (Base 2.0, figure 202). */
export const LogPageId = {
  SUPPORTED: 0x00,
  ERROR: 0x01,
  HEALTH: 0x02,
  FIRMWARE_SLOT: 0x03,
  CHANGED_NAMESPACES: 0x04,
  COMMAND_EFFECTS: 0x05,
  ANA: 0x0c,
  DISCOVERY: 0x70,
  RESERVATION_NOTIFICATION: 0x80,
} as const;

/** Feature identifiers (Base 2.0, figure 317). */
export const FeatureId = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  VOLATILE_WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENT_CONFIGURATION: 0x0b,
  KEEP_ALIVE_TIMER: 0x0f,
  HOST_BEHAVIOR: 0x16,
  HOST_IDENTIFIER: 0x81,
  RESERVATION_NOTIFICATION_MASK: 0x82,
  RESERVATION_PERSISTENCE: 0x83,
} as const;

/** All namespaces, in the NSID field (Base 2.0, 3.2.1.2). */
export const NSID_BROADCAST = 0xffffffff;

/** First opcode of vendor specific I/O commands (Base 2.0, figure 390). */
export const VENDOR_OPCODE_FIRST = 0xc0;

/** Opcode of every Fabrics command, and their types (Base 2.0, 6). */
export const FABRICS_OPCODE = 0x7f;
export const FabricsType = {
  PROPERTY_SET: 0x00,
  CONNECT: 0x01,
  PROPERTY_GET: 0x04,
  AUTH_SEND: 0x05,
  AUTH_RECEIVE: 0x06,
  DISCONNECT: 0x08,
} as const;

/** Status codes as SCT << 8 | SC (Base 2.0, 3.3.3.2.1; NVM Command Set, 3.1.2). */
export const Status = {
  SUCCESS: 0x000,
  INVALID_OPCODE: 0x001,
  INVALID_FIELD: 0x002,
  COMMAND_ID_CONFLICT: 0x003,
  DATA_TRANSFER_ERROR: 0x004,
  INTERNAL_ERROR: 0x006,
  ABORT_REQUESTED: 0x007,
  ABORTED_SQ_DELETION: 0x008,
  ABORTED_MISSING_FUSED: 0x00a,
  INVALID_NAMESPACE: 0x00b,
  COMMAND_SEQUENCE_ERROR: 0x00c,
  DATA_SGL_LENGTH_INVALID: 0x00f,
  SGL_DESCRIPTOR_TYPE_INVALID: 0x011,
  SGL_OFFSET_INVALID: 0x016,
  HOST_ID_INCONSISTENT: 0x018,
  KEEP_ALIVE_EXPIRED: 0x019,
  KEEP_ALIVE_INVALID: 0x01a,
  PREEMPTED: 0x01b,
  SANITIZE_IN_PROGRESS: 0x01d,
  COMMAND_INTERRUPTED: 0x021,
  TRANSIENT_TRANSPORT_ERROR: 0x022,
  LBA_OUT_OF_RANGE: 0x080,
  CAPACITY_EXCEEDED: 0x081,
  NAMESPACE_NOT_READY: 0x082,
  RESERVATION_CONFLICT: 0x083,
  INVALID_QUEUE_ID: 0x101,
  INVALID_QUEUE_SIZE: 0x102,
  ABORT_LIMIT_EXCEEDED: 0x103,
  ASYNC_EVENT_LIMIT_EXCEEDED: 0x105,
  INVALID_LOG_PAGE: 0x109,
  FEATURE_NOT_SAVEABLE: 0x10d,
  FEATURE_NOT_CHANGEABLE: 0x10e,
  FEATURE_NOT_NAMESPACE_SPECIFIC: 0x10f,
  /** Fabrics command specific (Base 2.0, figure 395). */
  CONNECT_INCOMPATIBLE_FORMAT: 0x180,
  CONNECT_CONTROLLER_BUSY: 0x181,
  CONNECT_INVALID_PARAMETERS: 0x182,
  CONNECT_RESTART_DISCOVERY: 0x183,
  CONNECT_INVALID_HOST: 0x184,
  DISCOVERY_RESTART: 0x190,
  AUTHENTICATION_REQUIRED: 0x191,
  WRITE_FAULT: 0x280,
  UNRECOVERED_READ_ERROR: 0x281,
  COMPARE_FAILURE: 0x285,
  ACCESS_DENIED: 0x286,
  INTERNAL_PATH_ERROR: 0x300,
  ANA_PERSISTENT_LOSS: 0x301,
  ANA_INACCESSIBLE: 0x302,
  ANA_TRANSITION: 0x303,
} as const;

/** Do Not Retry, as a bit beside the status code: the same command would fail again. */
export const STATUS_DNR = 0x4000;

/** SGL identifiers (type << 4 | subtype) that occur over TCP (Base 2.0, 4.1.2; TCP transport, 3.3). */
export const SglId = {
  /** Data block with an offset into the capsule. */
  DATA_BLOCK_OFFSET: 0x01,
  /** Transport data block: the data moves in data PDUs. */
  TRANSPORT_DATA_BLOCK: 0x5a,
} as const;

/** Controller properties (Base 2.0, 3.1.3). */
export const Property = {
  CAP: 0x00,
  VS: 0x08,
  CC: 0x14,
  CSTS: 0x1c,
  NSSR: 0x20,
} as const;

/** Second byte of a command that is not fused and uses an SGL (Base 2.0, figure 88: FUSE, PSDT). */
export const FLAGS_SGL = 0x40;

/** Byte offsets inside a 64-byte submission queue entry. */
export const SqeAt = {
  OPCODE: 0,
  FUSE_PSDT: 1,
  CID: 2,
  NSID: 4,
  SGL_ADDRESS: 24,
  SGL_LENGTH: 32,
  SGL_ID: 39,
  CDW10: 40,
  CDW11: 44,
  CDW12: 48,
  CDW13: 52,
  CDW14: 56,
  CDW15: 60,
} as const;

/** Bytes of a submission queue entry. */
export const SQE_BYTES = 64;

/** Well-known NQN of discovery subsystems (Base 2.0, 4.5.1.1). */
export const DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery";

/** Longest NQN in bytes, without the terminating zero. */
export const NQN_BYTES_MAX = 223;

/** NVMe version reported: 2.0.0. */
export const NVME_VERSION = 0x00020000;

/** Asymmetric namespace access states (Base 2.0, 8.1). */
export const AnaState = {
  OPTIMIZED: 1,
  NON_OPTIMIZED: 2,
  INACCESSIBLE: 3,
  PERSISTENT_LOSS: 4,
  CHANGE: 15,
} as const;
export type AnaState = (typeof AnaState)[keyof typeof AnaState];
