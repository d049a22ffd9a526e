/** The checks that every device makes of a request before it touches anything. */
import { IoStatus } from "../../errors.ts";
import { IoOp, type IoTable } from "../reactor/io-table.ts";
import { BUFFER_BYTES_MAX } from "../reactor/limits.ts";

/**
 * OK, or why a request must be refused: INVALID when offset or length is not whole blocks or the
 * transfer is too long, OUT_OF_RANGE when it leaves the device, UNSUPPORTED for unknown operations.
 */
export function rangeStatus(
  io: IoTable,
  slot: number,
  deviceBytes: number,
  blockSize: number,
): IoStatus {
  const op = io.op[slot]!;
  if (op === IoOp.FLUSH) return IoStatus.OK;
  if (op === IoOp.NONE || op > IoOp.DISCARD) return IoStatus.UNSUPPORTED;
  const offset = io.offset[slot]!;
  const length = io.length[slot]!;
  if (!(length > 0) || offset < 0 || offset + length > deviceBytes) return IoStatus.OUT_OF_RANGE;
  const isTransfer = op === IoOp.READ || op === IoOp.WRITE;
  if (isTransfer && length > BUFFER_BYTES_MAX) return IoStatus.INVALID;
  // Block sizes are powers of two; blocks are counted below 2^53, so the quotients are exact.
  if (offset % blockSize !== 0 || length % blockSize !== 0) return IoStatus.INVALID;
  return IoStatus.OK;
}
