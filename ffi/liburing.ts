/**
 * One io_uring as typed arrays over its mapped memory.
 *
 * Set-up and the two system calls go through liburing; what liburing does inline (taking a
 * submission entry, reading a completion) is done here on the shared arrays, with `Atomics` as the
 * barriers, because a call across the native edge per entry would cost more than the entry.
 *
 * Layout of a submission entry (io_uring_sqe, 64 bytes, as sixteen 32-bit words):
 * | word  | holds                                                        |
 * |-------|--------------------------------------------------------------|
 * | 0     | opcode (bits 0-7), entry flags (8-15), ioprio (16-31)        |
 * | 1     | file descriptor                                              |
 * | 2-3   | file offset, or second address                               |
 * | 4-5   | address                                                      |
 * | 6     | length                                                       |
 * | 7     | flags of the operation (rw, msg, fsync, fallocate, ...)      |
 * | 8-9   | user data: token, handler                                    |
 * | 10    | buffer index or buffer group (bits 0-15), personality        |
 * | 11    | file index                                                   |
 * | 12-15 | third address, padding                                       |
 *
 * A completion (io_uring_cqe, 16 bytes): words 0-1 user data, word 2 result, word 3 flags.
 */
import { NativeError } from "./errno.ts";
import { closeFd, mapFd, unmapMemory } from "./libc.ts";
import { openLibrary } from "./library.ts";
import { allocNative, type NativeMemory, pointer } from "./memory.ts";
import { explainSetupFailure } from "./probe.ts";

const uring = openLibrary("liburing", {
  io_uring_setup: { args: ["u32", "ptr"], returns: "i32" },
  io_uring_enter2: { args: ["u32", "u32", "u32", "u32", "ptr", "usize"], returns: "i32" },
  io_uring_register: { args: ["u32", "u32", "ptr", "u32"], returns: "i32" },
});

/** Operation codes (enum io_uring_op). */
export const Op = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  POLL_ADD: 6,
  POLL_REMOVE: 7,
  SENDMSG: 9,
  RECVMSG: 10,
  TIMEOUT: 11,
  ACCEPT: 13,
  ASYNC_CANCEL: 14,
  CONNECT: 16,
  FALLOCATE: 17,
  OPENAT: 18,
  CLOSE: 19,
  STATX: 21,
  READ: 22,
  WRITE: 23,
  SEND: 26,
  RECV: 27,
  SHUTDOWN: 34,
  MSG_RING: 40,
  SEND_ZC: 47,
} as const;

/** Set-up flags (IORING_SETUP_*). */
export const SetupFlag = {
  CQSIZE: 1 << 3,
  CLAMP: 1 << 4,
  SUBMIT_ALL: 1 << 7,
  COOP_TASKRUN: 1 << 8,
  SINGLE_ISSUER: 1 << 12,
  DEFER_TASKRUN: 1 << 13,
} as const;

/** Flags of a submission entry (IOSQE_*), already shifted to their place in word 0. */
export const SqeFlag = {
  FIXED_FILE: 1 << 8,
  DRAIN: 1 << 9,
  LINK: 1 << 10,
  ASYNC: 1 << 12,
  BUFFER_SELECT: 1 << 13,
} as const;

/** ioprio bits of receive and send (IORING_RECVSEND_*), shifted to their place in word 0. */
export const RecvSendFlag = {
  POLL_FIRST: 1 << 16,
  MULTISHOT: 1 << 17,
} as const;

/** ioprio bit of accept, shifted. */
export const ACCEPT_MULTISHOT = 1 << 16;

/** Completion flags (IORING_CQE_F_*). */
export const CqeFlag = {
  BUFFER: 1,
  MORE: 2,
  SOCK_NONEMPTY: 4,
  NOTIF: 8,
} as const;

/** Bit position of the buffer id in the completion flags. */
export const CQE_BUFFER_SHIFT = 16;

/** Cancel flags (IORING_ASYNC_CANCEL_*). */
export const CancelFlag = { ALL: 1, FD: 2, ANY: 4 } as const;

/** recv/send flags. */
export const MsgFlag = { WAITALL: 0x100, NOSIGNAL: 0x4000, ZEROCOPY: 0x4000000 } as const;

/** fsync flag: data and what is needed to read it back. */
export const FSYNC_DATASYNC = 1;
/** rw flag: the write is on stable storage when it completes (O_DSYNC for one call). */
export const RWF_DSYNC = 2;
/** fallocate modes. */
export const FallocateMode = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;

const ENTER_GETEVENTS = 1;
const ENTER_EXT_ARG = 8;
const ENTER_REGISTERED_RING = 16;
const REGISTER_BUFFERS = 0;
const REGISTER_PROBE = 8;
const REGISTER_RING_FDS = 20;
const REGISTER_PBUF_RING = 22;
const UNREGISTER_PBUF_RING = 23;
const OFF_SQ_RING = 0;
const OFF_SQES = 0x10000000;
const FEAT_SINGLE_MMAP = 1;
const SQE_WORDS_LOG2 = 4;
const CQE_WORDS_LOG2 = 2;
const OP_SUPPORTED = 1;
const PROBE_OPS_MAX = 256;
const TWO_32 = 4294967296;

/** What a ring is asked for. `entries` and `completions` are powers of two. */
export interface RingOptions {
  readonly entries: number;
  readonly completions: number;
  /** Completions run only inside `enter`, on the one thread that created the ring. */
  readonly deferTaskrun: boolean;
}

/**
 * A ring. All methods belong to the thread that created it.
 * Throws a `NativeError` whose message says what forbids io_uring when set-up fails.
 */
export class Ring {
  readonly fd: number;
  readonly features: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
  /** Submission entries as signed words: `sqe << 4` is the index of an entry's first word. */
  readonly sqes: Int32Array;
  /** Completions as signed words: user data low, high, result, flags. */
  readonly cqes: Int32Array;
  /** Index of the next completion to read, not masked. */
  cqHead = 0;

  readonly #rings: NativeMemory;
  readonly #sqeMemory: NativeMemory;
  readonly #sqHeadWord: Int32Array;
  readonly #sqTailWord: Int32Array;
  readonly #cqHeadWord: Int32Array;
  readonly #cqTailWord: Int32Array;
  readonly #sqMask: number;
  readonly #cqMask: number;
  readonly #eventsArg = allocNative(24);
  readonly #timespec = allocNative(16);
  #tail = 0;
  #submitted = 0;
  #enterFd: number;
  #enterFlags: number;

  constructor(options: RingOptions) {
    const params = allocNative(120);
    let flags = SetupFlag.CQSIZE | SetupFlag.SUBMIT_ALL;
    if (options.deferTaskrun) flags |= SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN;
    params.u32[1] = options.completions;
    params.u32[2] = flags;
    const fd = uring.io_uring_setup(options.entries, pointer(params.address));
    if (fd < 0) throw explainSetupFailure(-fd);
    this.fd = fd;
    this.sqEntries = params.u32[0]!;
    this.cqEntries = params.u32[1]!;
    this.features = params.u32[5]!;
    if ((this.features & FEAT_SINGLE_MMAP) === 0) throw explainSetupFailure(22);
    // struct io_sqring_offsets starts at word 10, io_cqring_offsets at word 20.
    const p = params.u32;
    const [sqHead, sqTail, sqArray] = [p[10]!, p[11]!, p[16]!];
    const [cqHead, cqTail, cqesOff] = [p[20]!, p[21]!, p[25]!];
    const ringBytes = Math.max(sqArray + this.sqEntries * 4, cqesOff + this.cqEntries * 16);
    this.#rings = mapFd(fd, ringBytes, OFF_SQ_RING);
    this.#sqeMemory = mapFd(fd, this.sqEntries * 64, OFF_SQES);
    const shared = this.#rings.u8.buffer;
    this.#sqHeadWord = new Int32Array(shared, sqHead, 1);
    this.#sqTailWord = new Int32Array(shared, sqTail, 1);
    this.#cqHeadWord = new Int32Array(shared, cqHead, 1);
    this.#cqTailWord = new Int32Array(shared, cqTail, 1);
    const order = new Uint32Array(shared, sqArray, this.sqEntries);
    for (let i = 0; i < this.sqEntries; i++) order[i] = i;
    this.sqes = this.#sqeMemory.i32;
    this.cqes = new Int32Array(shared, cqesOff, this.cqEntries * 4);
    this.#sqMask = this.sqEntries - 1;
    this.#cqMask = this.cqEntries - 1;
    // struct io_uring_getevents_arg: no signal mask, address of the time-out at byte 16.
    this.#eventsArg.view.setBigUint64(16, BigInt(this.#timespec.address), true);
    this.#enterFd = fd;
    this.#enterFlags = ENTER_GETEVENTS;
    this.#registerOwnFd();
  }

  #register(opcode: number, arg: NativeMemory | null, count: number, what: string): number {
    const at = arg === null ? null : pointer(arg.address);
    const result = uring.io_uring_register(this.fd, opcode, at, count);
    if (result < 0) throw new NativeError(`io_uring_register(${what})`, -result);
    return result;
  }

  /** Registers the ring's own descriptor, which spares each `enter` a descriptor look-up. */
  #registerOwnFd(): void {
    const update = allocNative(16);
    update.u32[0] = 0xffffffff;
    update.u32[2] = this.fd;
    const result = uring.io_uring_register(this.fd, REGISTER_RING_FDS, pointer(update.address), 1);
    if (result !== 1) return; // Only an optimisation: without it the plain descriptor is used.
    this.#enterFd = update.u32[0]!;
    this.#enterFlags |= ENTER_REGISTERED_RING;
  }

  /** Opcodes that the kernel supports, by number. */
  supportedOps(): Set<number> {
    const probe = allocNative(16 + PROBE_OPS_MAX * 8);
    this.#register(REGISTER_PROBE, probe, PROBE_OPS_MAX, "PROBE");
    const supported = new Set<number>();
    const count = probe.u8[1]!;
    for (let i = 0; i < count; i++) {
      const at = 16 + i * 8;
      if ((probe.view.getUint16(at + 2, true) & OP_SUPPORTED) !== 0) supported.add(probe.u8[at]!);
    }
    return supported;
  }

  /** Registers one memory range as fixed buffer 0, for READ_FIXED and WRITE_FIXED. */
  registerBuffer(address: number, byteLength: number): void {
    const iovec = allocNative(16);
    iovec.view.setBigUint64(0, BigInt(address), true);
    iovec.view.setBigUint64(8, BigInt(byteLength), true);
    this.#register(REGISTER_BUFFERS, iovec, 1, "BUFFERS");
  }

  /**
   * Registers a ring of provided buffers (struct io_uring_buf, 16 bytes each) at `address`, which
   * must be page-aligned, for `group`; `entries` is a power of two.
   */
  registerBufferRing(address: number, entries: number, group: number): void {
    const reg = allocNative(40);
    reg.view.setBigUint64(0, BigInt(address), true);
    reg.u32[2] = entries;
    reg.view.setUint16(12, group, true);
    this.#register(REGISTER_PBUF_RING, reg, 1, "PBUF_RING");
  }

  /** Takes a provided-buffer ring away again. */
  unregisterBufferRing(group: number): void {
    const reg = allocNative(40);
    reg.view.setUint16(12, group, true);
    this.#register(UNREGISTER_PBUF_RING, reg, 1, "unregister PBUF_RING");
  }

  /**
   * Queues one submission entry and returns the index of its first word in `sqes`, for fields that
   * the arguments do not cover. When the queue is full it is submitted first, without waiting.
   *
   * `token` and `handler` come back in words 0 and 1 of the completion. `opAndFlags` holds the
   * opcode, `SqeFlag` and ioprio bits.
   */
  prep(
    opAndFlags: number,
    fd: number,
    address: number,
    length: number,
    offset: number,
    opFlags: number,
    token: number,
    handler: number,
  ): number {
    if (((this.#tail - Atomics.load(this.#sqHeadWord, 0)) | 0) >= this.sqEntries) this.#makeRoom();
    const at = (this.#tail & this.#sqMask) << SQE_WORDS_LOG2;
    this.#tail = (this.#tail + 1) | 0;
    const s = this.sqes;
    s[at] = opAndFlags;
    s[at + 1] = fd;
    s[at + 2] = offset; // ToInt32 keeps the low word
    s[at + 3] = offset / TWO_32;
    s[at + 4] = address;
    s[at + 5] = address / TWO_32;
    s[at + 6] = length;
    s[at + 7] = opFlags;
    s[at + 8] = token;
    s[at + 9] = handler;
    s[at + 10] = 0;
    s[at + 11] = 0;
    s[at + 12] = 0;
    s[at + 13] = 0;
    s[at + 14] = 0;
    s[at + 15] = 0;
    return at;
  }

  /** Hands a full queue over. An entry is never overwritten: throws when the kernel takes none. */
  #makeRoom(): void {
    const result = this.enter(0, 0);
    if (this.unsubmitted >= this.sqEntries) {
      throw new NativeError("io_uring_enter", -result, "(the submission queue is full)");
    }
  }

  /** Entries queued and not yet handed to the kernel. */
  get unsubmitted(): number {
    return (this.#tail - this.#submitted) | 0;
  }

  /** Hands queued entries to the kernel without waiting for completions. */
  submit(): void {
    this.enter(0, 0);
  }

  /**
   * Submits everything queued and waits for at least `waitFor` completions, at most `timeoutNs`
   * (0 = no limit). Returns the number submitted, or a negative errno: -ETIME, -EINTR, -EAGAIN and
   * -EBUSY are ordinary here; the caller tells them apart.
   */
  enter(waitFor: number, timeoutNs: number): number {
    const count = (this.#tail - this.#submitted) | 0;
    Atomics.store(this.#sqTailWord, 0, this.#tail);
    let result: number;
    if (timeoutNs > 0) {
      const ts = this.#timespec.u32;
      const seconds = Math.floor(timeoutNs / 1e9);
      ts[0] = seconds;
      ts[2] = timeoutNs - seconds * 1e9;
      result = uring.io_uring_enter2(
        this.#enterFd,
        count,
        waitFor,
        this.#enterFlags | ENTER_EXT_ARG,
        pointer(this.#eventsArg.address),
        24,
      );
    } else {
      result = uring.io_uring_enter2(this.#enterFd, count, waitFor, this.#enterFlags, null, 8);
    }
    // The kernel moved its head past what it took; that, not the return value (which is the error
    // of the wait when there was one), says how much is submitted.
    this.#submitted = Atomics.load(this.#sqHeadWord, 0);
    return result;
  }

  /** Index after the last completion that the kernel has published, not masked. */
  cqTail(): number {
    return Atomics.load(this.#cqTailWord, 0);
  }

  /** Word index in `cqes` of the completion with unmasked index `head`. */
  cqeAt(head: number): number {
    return (head & this.#cqMask) << CQE_WORDS_LOG2;
  }

  /** Gives completions before `head` back to the kernel. */
  advance(head: number): void {
    this.cqHead = head;
    Atomics.store(this.#cqHeadWord, 0, head);
  }

  /** Closes the ring; the kernel cancels what is outstanding. */
  close(): void {
    unmapMemory(this.#sqeMemory);
    unmapMemory(this.#rings);
    closeFd(this.fd);
  }
}
