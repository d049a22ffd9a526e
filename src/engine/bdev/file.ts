/**
 * Files and block devices through io_uring: `uring://`, `aio://` and plain paths.
 *
 * Opened with O_DIRECT where the file system allows it (else buffered, with the same flush rules),
 * and exclusively: a block device that is mounted or otherwise claimed, and a file that another
 * engine holds, are refused. Reads and writes use the reactor's registered arena.
 */
import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import {
  blockDeviceBytes,
  blockDeviceLogicalBytes,
  closeFd,
  copyMemory,
  Errno,
  errnoName,
  FallocateMode,
  FSYNC_DATASYNC,
  NativeError,
  Op,
  OpenFlag,
  openFd,
  RWF_DSYNC,
  tryLockFd,
} from "../../../ffi/index.ts";
import { assert } from "../../assert.ts";
import { IoStatus, TrilithError } from "../../errors.ts";
import { IoFlag, IoOp, type IoTable } from "../reactor/io-table.ts";
import { BUFFER_BYTES_MAX } from "../reactor/limits.ts";
import type { CqeHandler, Reactor } from "../reactor/reactor.ts";
import { type Bdev, type BdevListener, BdevListeners } from "./bdev.ts";
import { rangeStatus } from "./range.ts";
import type { FileUri } from "./uri.ts";

const DIRECT_ALIGN = 512;
const NONE = -1;
const FLUSHING = -2;

/** How ranges are zeroed, from the best to what always works. */
const ZERO_MODES = [
  FallocateMode.ZERO_RANGE | FallocateMode.KEEP_SIZE,
  FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE,
] as const;
const PUNCH_MODE = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE;

interface Opened {
  readonly fd: number;
  readonly isBlockDevice: boolean;
  readonly direct: boolean;
}

function openError(path: string, error: unknown): TrilithError {
  const errno = error instanceof NativeError ? error.errno : 0;
  const code = (error as { code?: string }).code;
  if (errno === Errno.ENOENT || code === "ENOENT") {
    return new TrilithError("NotFound", `device ${path} does not exist`, "see `lsblk` for disks");
  }
  if (errno === Errno.EBUSY) {
    return new TrilithError(
      "InUse",
      `device ${path} is in use (mounted, part of a volume group, or held by another program)`,
      `see \`lsblk ${path}\` and \`fuser -v ${path}\``,
    );
  }
  if (errno === Errno.EACCES || errno === Errno.EPERM || errno === Errno.EROFS) {
    return new TrilithError("PermissionDenied", `device ${path} cannot be opened for writing`);
  }
  if (errno === Errno.ENXIO || errno === Errno.ENODEV) {
    return new TrilithError("DeviceGone", `device ${path} has no medium or driver behind it`);
  }
  const text = error instanceof Error ? error.message : String(error);
  return new TrilithError("DeviceIo", `device ${path} cannot be opened: ${text}`);
}

function openExclusive(path: string): Opened {
  let stat: ReturnType<typeof statSync>;
  try {
    stat = statSync(path);
  } catch (error) {
    throw openError(path, error);
  }
  const isBlockDevice = stat.isBlockDevice();
  if (!isBlockDevice && !stat.isFile()) {
    throw new TrilithError("InvalidArgument", `${path} is neither a file nor a block device`);
  }
  const flags = OpenFlag.RDWR | (isBlockDevice ? OpenFlag.EXCL : 0);
  let fd: number;
  let direct = true;
  try {
    fd = openFd(path, flags | OpenFlag.DIRECT);
  } catch (error) {
    if (!(error instanceof NativeError) || error.errno !== Errno.EINVAL) {
      throw openError(path, error);
    }
    direct = false; // The file system has no direct I/O.
    try {
      fd = openFd(path, flags);
    } catch (second) {
      throw openError(path, second);
    }
  }
  if (!tryLockFd(fd)) {
    closeFd(fd);
    throw new TrilithError(
      "InUse",
      `${path} is held by another engine`,
      `see \`fuser -v ${path}\``,
    );
  }
  return { fd, isBlockDevice, direct };
}

/** The I/O status that a kernel error stands for. */
function statusOfErrno(errno: number): IoStatus {
  switch (errno) {
    case Errno.ENOSPC:
    case Errno.EDQUOT:
      return IoStatus.NO_SPACE;
    case Errno.ENODEV:
    case Errno.ENXIO:
      return IoStatus.DEVICE_GONE;
    case Errno.ETIMEDOUT:
      return IoStatus.TIMEOUT;
    case Errno.EOPNOTSUPP:
      return IoStatus.UNSUPPORTED;
    case Errno.EBADE:
      return IoStatus.RESERVATION_CONFLICT;
    case Errno.EINVAL:
      return IoStatus.INVALID;
    case Errno.ECANCELED:
      return IoStatus.ABORTED;
    default:
      return IoStatus.DEVICE_IO;
  }
}

/** A file or block device. Per request: `deviceA` is what is done of it, `deviceB` a bounce or zero buffer. */
class FileBdev implements Bdev, CqeHandler {
  readonly name: string;
  readonly uri: string;
  readonly driver: "uring" | "aio";
  readonly uuid: string;
  readonly reactor: Reactor;
  readonly blockSize: number;
  readonly synchronous = false;
  readonly slotsPerIo = 0;
  readonly discardZeroes: boolean;
  readonly volatileCache = true;
  blockCount: number;

  readonly #fd: number;
  readonly #isBlockDevice: boolean;
  readonly #direct: boolean;
  readonly #path: string;
  readonly #io: IoTable;
  readonly #handler: number;
  readonly #listeners = new BdevListeners();
  #bytes: number;
  #outstanding = 0;
  #gone = false;
  #closed: (() => void) | null = null;
  #zeroMode = 0;
  #punches = true;

  constructor(reactor: Reactor, uri: FileUri, opened: Opened) {
    const bytes = opened.isBlockDevice ? blockDeviceBytes(opened.fd) : statSync(uri.path).size;
    const logical = opened.isBlockDevice ? blockDeviceLogicalBytes(opened.fd) : DIRECT_ALIGN;
    const blockSize = uri.blockSize ?? (logical === 4096 ? 4096 : 512);
    if (blockSize < logical) {
      throw new TrilithError(
        "InvalidArgument",
        `device ${uri.path}: parameter "blk_size" is ${blockSize}, its sectors have ${logical} bytes`,
        `use blk_size=${logical}`,
      );
    }
    const blockCount = Math.floor(bytes / blockSize);
    if (blockCount === 0) throw new TrilithError("InvalidArgument", `device ${uri.path} is empty`);
    this.reactor = reactor;
    this.name = uri.path;
    this.driver = uri.driver;
    this.uuid = uri.uuid ?? randomUUID();
    this.uri = `${uri.driver}://${uri.path}?blk_size=${blockSize}&uuid=${this.uuid}`;
    this.blockSize = blockSize;
    this.blockCount = blockCount;
    this.discardZeroes = !opened.isBlockDevice;
    this.#bytes = blockCount * blockSize;
    this.#fd = opened.fd;
    this.#isBlockDevice = opened.isBlockDevice;
    this.#direct = opened.direct;
    this.#path = uri.path;
    this.#io = reactor.io;
    this.#handler = reactor.addHandler(this);
  }

  submit(slot: number): void {
    const io = this.#io;
    const status = this.#gone
      ? IoStatus.DEVICE_GONE
      : rangeStatus(io, slot, this.#bytes, this.blockSize);
    if (status !== IoStatus.OK) {
      io.complete(slot, status);
      return;
    }
    this.#outstanding++;
    io.deviceA[slot] = 0;
    io.deviceB[slot] = NONE;
    const op = io.op[slot]!;
    if (op === IoOp.READ || op === IoOp.WRITE) {
      if (this.#direct && (io.buffer[slot]! & (DIRECT_ALIGN - 1)) !== 0) this.#bounce(slot, op);
      else this.#transfer(slot, op);
    } else if (op === IoOp.FLUSH) {
      this.#flush(slot);
    } else if (op === IoOp.DISCARD) this.#discard(slot);
    else this.#writeZeroes(slot);
  }

  /** Queues what is left of a read or write. */
  #transfer(slot: number, op: number): void {
    const io = this.#io;
    const done = io.deviceA[slot]!;
    const bounce = io.deviceB[slot]!;
    const buffer = bounce === NONE ? io.buffer[slot]! : bounce;
    const opcode = op === IoOp.READ ? Op.READ_FIXED : Op.WRITE_FIXED;
    const rwFlags = op === IoOp.WRITE && (io.flags[slot]! & IoFlag.FUA) !== 0 ? RWF_DSYNC : 0;
    this.reactor.ring.prep(
      opcode,
      this.#fd,
      this.reactor.arena.address + buffer + done,
      io.length[slot]! - done,
      io.offset[slot]! + done,
      rwFlags,
      slot,
      this.#handler,
    );
  }

  #flush(slot: number): void {
    const { ring } = this.reactor;
    ring.prep(Op.FSYNC, this.#fd, 0, 0, 0, FSYNC_DATASYNC, slot, this.#handler);
  }

  #bounce(slot: number, op: number): void {
    const io = this.#io;
    const arena = this.reactor.arena;
    const length = io.length[slot]!;
    const bounce = arena.alloc(length, 0);
    if (bounce < 0) {
      this.reactor.waitForResources({ resume: () => this.#bounce(slot, op) });
      return;
    }
    if (op === IoOp.WRITE) {
      copyMemory(arena.address + bounce, arena.address + io.buffer[slot]!, length);
    }
    io.deviceB[slot] = bounce;
    this.#transfer(slot, op);
  }

  #fallocate(slot: number, mode: number): void {
    const io = this.#io;
    const length = io.length[slot]!;
    // fallocate's length travels in the address field, its mode in the length field.
    this.reactor.ring.prep(
      Op.FALLOCATE,
      this.#fd,
      length,
      mode,
      io.offset[slot]!,
      0,
      slot,
      this.#handler,
    );
  }

  #discard(slot: number): void {
    if (this.#punches) this.#fallocate(slot, PUNCH_MODE);
    else this.#finish(slot, IoStatus.OK); // Advice that the device cannot take.
  }

  #writeZeroes(slot: number): void {
    const unmap = (this.#io.flags[slot]! & IoFlag.UNMAP) !== 0;
    if (unmap && this.#punches) this.#fallocate(slot, PUNCH_MODE);
    else if (this.#zeroMode < ZERO_MODES.length) {
      this.#fallocate(slot, ZERO_MODES[this.#zeroMode]!);
    } else this.#zeroByWriting(slot);
  }

  /** Writes zeroes from a zeroed buffer, a piece at a time. */
  #zeroByWriting(slot: number): void {
    const io = this.#io;
    const arena = this.reactor.arena;
    if (io.deviceB[slot] === NONE) {
      const size = Math.min(BUFFER_BYTES_MAX, io.length[slot]!);
      const buffer = arena.alloc(size, 0);
      if (buffer < 0) {
        this.reactor.waitForResources({ resume: () => this.#zeroByWriting(slot) });
        return;
      }
      arena.u8.fill(0, buffer, buffer + size);
      io.deviceB[slot] = buffer;
    }
    const buffer = io.deviceB[slot]!;
    const done = io.deviceA[slot]! * this.blockSize;
    this.reactor.ring.prep(
      Op.WRITE_FIXED,
      this.#fd,
      arena.address + buffer,
      Math.min(arena.sizeOf(buffer), io.length[slot]! - done),
      io.offset[slot]! + done,
      (io.flags[slot]! & IoFlag.FUA) !== 0 ? RWF_DSYNC : 0,
      slot,
      this.#handler,
    );
  }

  onCqe(slot: number, result: number): void {
    if (result < 0) {
      this.#onError(slot, -result);
      return;
    }
    const io = this.#io;
    const op = io.op[slot]!;
    if (op === IoOp.READ || op === IoOp.WRITE) {
      const done = io.deviceA[slot]! + result;
      if (done === io.length[slot]!) this.#finish(slot, IoStatus.OK);
      else if (result === 0) this.#finish(slot, IoStatus.DEVICE_IO);
      else {
        io.deviceA[slot] = done;
        this.#transfer(slot, op);
      }
    } else if (op === IoOp.WRITE_ZEROES && io.deviceB[slot] !== NONE) {
      // Progress is counted in blocks: a range may be longer than an Int32 of bytes.
      const blocks = io.deviceA[slot]! + Math.floor(result / this.blockSize);
      io.deviceA[slot] = blocks;
      if (blocks * this.blockSize >= io.length[slot]!) this.#finish(slot, IoStatus.OK);
      else if (result < this.blockSize) this.#finish(slot, IoStatus.DEVICE_IO);
      else this.#zeroByWriting(slot);
    } else if (op === IoOp.WRITE_ZEROES && (io.flags[slot]! & IoFlag.FUA) !== 0) {
      // fallocate has no durable form, so a flush follows; its completion comes with deviceA set.
      if (io.deviceA[slot] === FLUSHING) this.#finish(slot, IoStatus.OK);
      else {
        io.deviceA[slot] = FLUSHING;
        this.#flush(slot);
      }
    } else this.#finish(slot, IoStatus.OK);
  }

  #onError(slot: number, errno: number): void {
    const io = this.#io;
    const op = io.op[slot]!;
    if (errno === Errno.EAGAIN || errno === Errno.EINTR) {
      if (op === IoOp.READ || op === IoOp.WRITE) this.#transfer(slot, op);
      else if (op === IoOp.DISCARD) this.#discard(slot);
      else if (op === IoOp.WRITE_ZEROES && io.deviceA[slot] !== FLUSHING) this.#writeZeroes(slot);
      else this.#flush(slot);
      return;
    }
    if (errno === Errno.EOPNOTSUPP && op === IoOp.DISCARD) {
      this.#punches = false;
      this.#finish(slot, IoStatus.OK);
      return;
    }
    const isZeroing =
      op === IoOp.WRITE_ZEROES && io.deviceB[slot] === NONE && io.deviceA[slot] !== FLUSHING;
    if (errno === Errno.EOPNOTSUPP && isZeroing) {
      if ((io.flags[slot]! & IoFlag.UNMAP) !== 0 && this.#punches) this.#punches = false;
      else this.#zeroMode++;
      this.#writeZeroes(slot);
      return;
    }
    const status = statusOfErrno(errno);
    if (status === IoStatus.DEVICE_GONE) this.#lose(errnoName(errno));
    this.#finish(slot, status);
  }

  #finish(slot: number, status: IoStatus): void {
    const io = this.#io;
    const extra = io.deviceB[slot]!;
    if (extra !== NONE) {
      const arena = this.reactor.arena;
      if (io.op[slot] === IoOp.READ && status === IoStatus.OK) {
        copyMemory(arena.address + io.buffer[slot]!, arena.address + extra, io.length[slot]!);
      }
      arena.free(extra);
    }
    this.#outstanding--;
    io.complete(slot, status);
    if (this.#outstanding === 0 && this.#closed !== null) this.#closed();
  }

  #lose(reason: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#listeners.tell({ kind: "removed", reason });
  }

  listen(listener: BdevListener): () => void {
    return this.#listeners.add(listener);
  }

  /** Looks at the size again; growth is told to listeners, shrinking is refused. */
  rescan(): number {
    const bytes = this.#isBlockDevice ? blockDeviceBytes(this.#fd) : statSync(this.#path).size;
    const blockCount = Math.floor(bytes / this.blockSize);
    if (blockCount < this.blockCount) {
      throw new TrilithError(
        "FailedPrecondition",
        `device ${this.#path} shrank from ${this.blockCount} to ${blockCount} blocks`,
        "restore its size: data beyond the new end is lost",
      );
    }
    if (blockCount > this.blockCount) {
      this.blockCount = blockCount;
      this.#bytes = blockCount * this.blockSize;
      this.#listeners.tell({ kind: "resized", blockCount });
    }
    return blockCount;
  }

  async close(): Promise<void> {
    this.#gone = true;
    if (this.#outstanding > 0) {
      await new Promise<void>((resolve) => {
        this.#closed = resolve;
      });
    }
    assert(this.#outstanding === 0, "a closed device has nothing outstanding");
    this.reactor.removeHandler(this.#handler);
    closeFd(this.#fd);
  }
}

/** A device whose size can be looked at again. */
export interface RescannableBdev extends Bdev {
  /** Returns the block count now; throws `FailedPrecondition` when the device shrank. */
  rescan(): number;
}

/**
 * Opens a file or block device. Errors: NotFound, InUse, PermissionDenied, InvalidArgument (empty,
 * not a device, block size below the sector size), DeviceGone, DeviceIo.
 */
export function openFileBdev(reactor: Reactor, uri: FileUri): RescannableBdev {
  const opened = openExclusive(uri.path);
  try {
    return new FileBdev(reactor, uri, opened);
  } catch (error) {
    closeFd(opened.fd);
    throw error;
  }
}
