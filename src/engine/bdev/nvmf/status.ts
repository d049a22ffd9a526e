/** NVMe status codes as the rest of the engine sees them: one table, and the errors made from it. */
import { type ErrorCode, IoStatus, ioStatusCode, TrilithError } from "../../../errors.ts";
import { Status } from "../../../nvme/constants.ts";

/** SCT (three bits) and SC (eight bits) of a status: what the table is indexed by. */
export const STATUS_CODE_MASK = 0x7ff;

/** Status codes whose I/O status is not that of their type. */
const byStatus: readonly (readonly [number, IoStatus])[] = [
  [Status.SUCCESS, IoStatus.OK],
  [Status.INVALID_OPCODE, IoStatus.UNSUPPORTED],
  [Status.INVALID_FIELD, IoStatus.INVALID],
  // The initiator aborts nothing but what has timed out.
  [Status.ABORT_REQUESTED, IoStatus.TIMEOUT],
  [Status.ABORTED_SQ_DELETION, IoStatus.UNAVAILABLE],
  [Status.INVALID_NAMESPACE, IoStatus.DEVICE_GONE],
  [Status.DATA_SGL_LENGTH_INVALID, IoStatus.INVALID],
  [Status.SGL_DESCRIPTOR_TYPE_INVALID, IoStatus.INVALID],
  [Status.LBA_OUT_OF_RANGE, IoStatus.OUT_OF_RANGE],
  [Status.CAPACITY_EXCEEDED, IoStatus.NO_SPACE],
  [Status.NAMESPACE_NOT_READY, IoStatus.DEVICE_GONE],
  [Status.RESERVATION_CONFLICT, IoStatus.RESERVATION_CONFLICT],
  [Status.COMPARE_FAILURE, IoStatus.MISCOMPARE],
];

/** I/O status per status code type (Base 2.0, figure 92). */
function statusOfType(type: number): IoStatus {
  const PATH_RELATED = 3;
  return type === PATH_RELATED ? IoStatus.UNAVAILABLE : IoStatus.DEVICE_IO;
}

/** I/O status per NVMe status (SCT << 8 | SC). */
export const nvmeIoStatus: Uint8Array = (() => {
  const table = Uint8Array.from({ length: STATUS_CODE_MASK + 1 }, (_, i) => statusOfType(i >> 8));
  for (const [status, ioStatus] of byStatus) table[status] = ioStatus;
  return table;
})();

const names = new Map<number, string>(
  Object.entries(Status).map(([name, value]) => [value, name.toLowerCase().replaceAll("_", " ")]),
);

/** A status in words, e.g. `reservation conflict (0x083)`. */
export function describeStatus(status: number): string {
  const code = status & STATUS_CODE_MASK;
  const number = `0x${code.toString(16).padStart(3, "0")}`;
  const name = names.get(code);
  return name === undefined ? `status ${number}` : `${name} (${number})`;
}

/** The error for a control command that ended with `status`; `what` names command and device. */
export function nvmeError(status: number, what: string): TrilithError {
  const code = ioStatusCode(nvmeIoStatus[status & STATUS_CODE_MASK]!);
  return new TrilithError(code, `${what}: ${describeStatus(status)}`);
}

/**
 * The error for a refused Connect. `dword0` tells which field was invalid (Base 2.0, figure 383):
 * its offset, and in bit 16 whether it lies in the data.
 */
export function connectError(status: number, dword0: number, what: string): TrilithError {
  const SUBNQN_IN_DATA = (1 << 16) | 256;
  const code = status & STATUS_CODE_MASK;
  const make = (kind: ErrorCode, why: string, remedy: string): TrilithError =>
    new TrilithError(kind, `${what}: ${why}`, remedy);
  switch (code) {
    case Status.CONNECT_INVALID_HOST:
      return make(
        "PermissionDenied",
        "the host is not admitted",
        "publish the volume to this host",
      );
    case Status.AUTHENTICATION_REQUIRED:
      return make("PermissionDenied", "authentication is required", "publish it without a secret");
    case Status.CONNECT_CONTROLLER_BUSY:
      return make("Unavailable", "the controller is busy", "try again");
    case Status.CONNECT_INVALID_PARAMETERS:
      if ((dword0 & 0x1ffff) === SUBNQN_IN_DATA) {
        return make("NotFound", "there is no such subsystem", "check the NQN and the node");
      }
      return make("InvalidArgument", `field ${dword0 & 0xffff} of Connect is refused`, "");
    default:
      return make("Unavailable", describeStatus(status), "see the log of the node that serves it");
  }
}
