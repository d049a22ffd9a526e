/**
 * The one list of errors, and what each becomes at every border: NVMe status, HTTP status, gRPC
 * code, CLI exit status. Imports nothing.
 *
 * Two forms exist. On the I/O path an error is a small integer (`IoStatus`); everywhere else it is
 * a `TrilithError` with a code of the closed list, what happened, and what to do about it.
 */

/** How one error code shows at each border. `nvme` is SCT << 8 | SC (NVMe base 2.0, 3.3.3.2.1). */
interface ErrorFaces {
  readonly http: number;
  readonly grpc: number;
  readonly exit: number;
  readonly nvme: number;
}

const errorTable = {
  /** A value, URI, parameter or body is wrong; the message names it. */
  InvalidArgument: { http: 400, grpc: 3, exit: 2, nvme: 0x002 },
  /** A body that is not JSON, or not of the schema. */
  Deserialize: { http: 400, grpc: 3, exit: 2, nvme: 0x002 },
  /** What is asked for cannot be had of this thing, whatever its state (a smaller size). */
  NotAcceptable: { http: 406, grpc: 9, exit: 6, nvme: 0x002 },
  /** The thing named does not exist. */
  NotFound: { http: 404, grpc: 5, exit: 4, nvme: 0x00b },
  /** The thing exists already, equal to what was asked. */
  AlreadyExists: { http: 422, grpc: 6, exit: 5, nvme: 0x006 },
  /** The thing exists already with other parameters. */
  Conflict: { http: 409, grpc: 6, exit: 5, nvme: 0x006 },
  /** Somebody else uses it. */
  InUse: { http: 409, grpc: 9, exit: 5, nvme: 0x006 },
  /** The thing is being deleted. */
  Deleting: { http: 409, grpc: 9, exit: 5, nvme: 0x006 },
  /** The state does not allow the request now. */
  FailedPrecondition: { http: 412, grpc: 9, exit: 6, nvme: 0x006 },
  /** The volume is not published, and has to be. */
  NotPublished: { http: 412, grpc: 9, exit: 6, nvme: 0x006 },
  /** The volume is published, elsewhere or otherwise than asked. */
  AlreadyPublished: { http: 412, grpc: 9, exit: 6, nvme: 0x006 },
  /** The thing is not served over the network, and has to be. */
  NotShared: { http: 412, grpc: 9, exit: 6, nvme: 0x006 },
  /** The thing is served over the network otherwise than asked. */
  AlreadyShared: { http: 412, grpc: 9, exit: 6, nvme: 0x006 },
  /** The disk carries somebody else's data. */
  ForeignDisk: { http: 412, grpc: 9, exit: 6, nvme: 0x006 },
  /** What is on the disk fails its checksums or contradicts itself. */
  Corrupted: { http: 500, grpc: 15, exit: 7, nvme: 0x281 },
  /** A named limit is reached. */
  ResourceExhausted: { http: 507, grpc: 8, exit: 8, nvme: 0x081 },
  /** The pool has no free cluster. */
  NoSpace: { http: 507, grpc: 8, exit: 8, nvme: 0x081 },
  /** What may be promised of a pool or cluster is promised. */
  CapacityLimitExceeded: { http: 507, grpc: 8, exit: 8, nvme: 0x081 },
  /** The cluster's store could not take it down; nothing has changed. */
  FailedPersist: { http: 507, grpc: 14, exit: 9, nvme: 0x006 },
  /** An address, size or number lies outside of what is there or allowed. */
  OutOfRange: { http: 416, grpc: 11, exit: 2, nvme: 0x080 },
  /** The device reported an error. */
  DeviceIo: { http: 500, grpc: 13, exit: 7, nvme: 0x281 },
  /** The device is no longer there. */
  DeviceGone: { http: 503, grpc: 14, exit: 9, nvme: 0x082 },
  /** A peer cannot be reached or answered wrongly. */
  Unavailable: { http: 503, grpc: 14, exit: 9, nvme: 0x300 },
  /** No answer within the time limit. */
  Timeout: { http: 408, grpc: 4, exit: 10, nvme: 0x006 },
  /** The caller's own time limit has passed. */
  DeadlineExceeded: { http: 504, grpc: 4, exit: 10, nvme: 0x006 },
  /** Given up because something else ended it. */
  Aborted: { http: 503, grpc: 10, exit: 9, nvme: 0x007 },
  /** Another host holds a reservation. */
  ReservationConflict: { http: 409, grpc: 9, exit: 6, nvme: 0x083 },
  /** A newer epoch of the volume is active elsewhere. */
  Superseded: { http: 412, grpc: 9, exit: 6, nvme: 0x083 },
  /** The caller is not admitted. */
  PermissionDenied: { http: 401, grpc: 7, exit: 11, nvme: 0x286 },
  /** The caller has not said who it is, or not proven it. */
  Unauthenticated: { http: 401, grpc: 16, exit: 11, nvme: 0x286 },
  /** The caller is known and may not do this. */
  Unauthorized: { http: 401, grpc: 7, exit: 11, nvme: 0x286 },
  /** The device or this build cannot do it. */
  Unimplemented: { http: 501, grpc: 12, exit: 12, nvme: 0x001 },
  /** Compared data differs. */
  Miscompare: { http: 412, grpc: 9, exit: 13, nvme: 0x285 },
  /** A defect of ours. */
  Internal: { http: 500, grpc: 13, exit: 1, nvme: 0x006 },
} as const satisfies Record<string, ErrorFaces>;

/** The closed list of error codes. */
export type ErrorCode = keyof typeof errorTable;

/** All codes, for schemas and tests. */
export const errorCodes = Object.keys(errorTable) as readonly ErrorCode[];

/** What a code becomes at each border. */
export function facesOf(code: ErrorCode): ErrorFaces {
  return errorTable[code];
}

/** An error with a code, what happened, and what the operator can do about it. */
export class TrilithError extends Error {
  readonly code: ErrorCode;
  readonly remedy: string;
  constructor(code: ErrorCode, what: string, remedy = "") {
    super(what);
    this.name = "TrilithError";
    this.code = code;
    this.remedy = remedy;
  }
}

/** An error for a failure of something below, which stays known (`wasRefused`). */
export function causedBy(error: TrilithError, cause: unknown): TrilithError {
  error.cause = cause;
  return error;
}

/** Codes by which Node's sockets and Bun's `fetch` say that nobody listens at an address. */
const refusals: ReadonlySet<unknown> = new Set(["ECONNREFUSED", "ConnectionRefused"]);

/** True when the other machine has answered that nobody listens there: whatever did has ended. */
export function wasRefused(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (refusals.has((at as { code?: unknown }).code)) return true;
  }
  return false;
}

/** The plain form of an error, as it crosses threads and HTTP. */
export interface ErrorBody {
  readonly kind: ErrorCode;
  readonly message: string;
  readonly details: string;
}

/** Any thrown value as a body; what is not ours becomes `Internal` with its text. */
export function toErrorBody(error: unknown): ErrorBody {
  if (error instanceof TrilithError) {
    return { kind: error.code, message: error.message, details: error.remedy };
  }
  const message = error instanceof Error ? error.message : String(error);
  const details = error instanceof Error && error.stack !== undefined ? error.stack : "";
  return { kind: "Internal", message, details };
}

/** The error that a body stands for. */
export function fromErrorBody(body: ErrorBody): TrilithError {
  return new TrilithError(body.kind, body.message, body.details);
}

/**
 * Status of one I/O on the data path. 0 is success; the numbers are internal to one process and
 * may change.
 */
export const IoStatus = {
  OK: 0,
  DEVICE_IO: 1,
  NO_SPACE: 2,
  OUT_OF_RANGE: 3,
  INVALID: 4,
  UNSUPPORTED: 5,
  TIMEOUT: 6,
  DEVICE_GONE: 7,
  RESERVATION_CONFLICT: 8,
  ABORTED: 9,
  MISCOMPARE: 10,
  CORRUPTED: 11,
  SUPERSEDED: 12,
  UNAVAILABLE: 13,
} as const;
export type IoStatus = (typeof IoStatus)[keyof typeof IoStatus];

const ioStatusCodes: readonly ErrorCode[] = [
  "Internal",
  "DeviceIo",
  "NoSpace",
  "OutOfRange",
  "InvalidArgument",
  "Unimplemented",
  "Timeout",
  "DeviceGone",
  "ReservationConflict",
  "Aborted",
  "Miscompare",
  "Corrupted",
  "Superseded",
  "Unavailable",
];

/** The error code of a failed I/O status. */
export function ioStatusCode(status: number): ErrorCode {
  return ioStatusCodes[status] ?? "Internal";
}

/** NVMe status (SCT << 8 | SC) per I/O status, index 0 being success. */
export const ioStatusNvme: Int32Array = Int32Array.from(ioStatusCodes, (code, status) =>
  status === 0 ? 0 : errorTable[code].nvme,
);

/** The error for a failed I/O: `what` says which operation on what. */
export function ioError(status: number, what: string): TrilithError {
  const code = ioStatusCode(status);
  const remedies: Partial<Record<ErrorCode, string>> = {
    DeviceIo: "check the disk's health (smartctl, dmesg) and replace it if errors recur",
    DeviceGone: "check that the disk or its node is still attached and powered",
    NoSpace: "grow the pool, or delete or move replicas or snapshots",
    Timeout: "check the load on and the path to the device",
    Corrupted: "run `trilith pool check` on the disk; rebuild the replica from a healthy copy",
  };
  return new TrilithError(code, `${what}: ${describeIoStatus(status)}`, remedies[code] ?? "");
}

function describeIoStatus(status: number): string {
  const texts = [
    "success",
    "the device reported an I/O error",
    "no free space",
    "outside the device",
    "malformed request",
    "not supported by the device",
    "timed out",
    "the device is gone",
    "reservation conflict",
    "aborted",
    "the data differs",
    "checksum mismatch",
    "superseded by a newer epoch",
    "unreachable",
  ];
  return texts[status] ?? `status ${status}`;
}
