/**
 * The C library calls the product makes: mappings, sockets, descriptors, affinity, device control.
 * Every function throws a `NativeError` with call and errno unless it says otherwise.
 */
import { dlopen, FFIType } from "bun:ffi";
import { Errno, NativeError } from "./errno.ts";
import { allocNative, cString, type NativeMemory, pointer, viewNative } from "./memory.ts";

const c = dlopen("libc.so.6", {
  __errno_location: { args: [], returns: "ptr" },
  mmap: { args: ["ptr", "usize", "i32", "i32", "i32", FFIType.i64_fast], returns: "ptr" },
  munmap: { args: ["ptr", "usize"], returns: "i32" },
  madvise: { args: ["ptr", "usize", "i32"], returns: "i32" },
  mlock: { args: ["ptr", "usize"], returns: "i32" },
  memcpy: { args: ["ptr", "ptr", "usize"], returns: "void" },
  memset: { args: ["ptr", "i32", "usize"], returns: "void" },
  memcmp: { args: ["ptr", "ptr", "usize"], returns: "i32" },
  open: { args: ["ptr", "i32", "u32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  dup: { args: ["i32"], returns: "i32" },
  ioctl: { args: ["i32", FFIType.u64_fast, "ptr"], returns: "i32" },
  flock: { args: ["i32", "i32"], returns: "i32" },
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
  listen: { args: ["i32", "i32"], returns: "i32" },
  shutdown: { args: ["i32", "i32"], returns: "i32" },
  sendto: { args: ["i32", "ptr", "usize", "i32", "ptr", "u32"], returns: FFIType.i64_fast },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
  getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  getpeername: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  eventfd: { args: ["u32", "i32"], returns: "i32" },
  write: { args: ["i32", "ptr", "usize"], returns: FFIType.i64_fast },
  sched_setaffinity: { args: ["i32", "usize", "ptr"], returns: "i32" },
  syscall: { args: [FFIType.i64_fast], returns: FFIType.i64_fast },
}).symbols;

const SYS_GETTID = 186;
const errnoWord = viewNative(Number(c.__errno_location()), 4).i32;

/** errno of the calling thread, valid right after a failed call. */
function errno(): number {
  return errnoWord[0]!;
}

function check(call: string, result: number | bigint, about = ""): number {
  const value = Number(result);
  if (value < 0) throw new NativeError(call, errno(), about);
  return value;
}

// ---------------------------------------------------------------------------------------- memory

const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_NORESERVE = 0x4000;
const MAP_POPULATE = 0x8000;
const MAP_HUGETLB = 0x40000;
/** Addresses above this are not user space: MAP_FAILED reads as about 2^64. */
const USER_SPACE_END = 2 ** 47;
const MADV_HUGEPAGE = 14;
const MADV_POPULATE_WRITE = 23;
const HUGE_PAGE_BYTES = 2 << 20;

/** A mapping, and whether reserved huge pages back it. */
export interface MappedMemory extends NativeMemory {
  readonly hugePages: "reserved" | "transparent" | "none";
}

function mapFailed(result: number): boolean {
  return result <= 0 || result >= USER_SPACE_END;
}

/**
 * Maps `byteLength` bytes of zeroed memory. With `huge`, reserved 2 MiB pages are used when the
 * machine has enough of them free, else ordinary pages with a request for transparent huge pages;
 * without it, plain pages. Pages are touched lazily unless reserved ones back the mapping.
 */
export function mapMemory(byteLength: number, options: { huge: boolean }): MappedMemory {
  if (options.huge && byteLength % HUGE_PAGE_BYTES === 0) {
    const flags = MAP_PRIVATE_ANONYMOUS | MAP_HUGETLB;
    const at = Number(c.mmap(null, byteLength, PROT_READ_WRITE, flags, -1, 0));
    if (!mapFailed(at)) {
      // A mapping may succeed whose pages are not there after all (a limit of the control group, a
      // pool that shrinks meanwhile): touching those would end the process.
      if (c.madvise(pointer(at), byteLength, MADV_POPULATE_WRITE) === 0) {
        return { ...viewNative(at, byteLength), hugePages: "reserved" };
      }
      check("munmap", c.munmap(pointer(at), byteLength));
    }
  }
  const flags = MAP_PRIVATE_ANONYMOUS | MAP_NORESERVE;
  const at = Number(c.mmap(null, byteLength, PROT_READ_WRITE, flags, -1, 0));
  if (mapFailed(at)) throw new NativeError("mmap", errno(), `${byteLength} bytes`);
  let hugePages: MappedMemory["hugePages"] = "none";
  if (options.huge && c.madvise(pointer(at), byteLength, MADV_HUGEPAGE) === 0) {
    hugePages = "transparent";
  }
  return { ...viewNative(at, byteLength), hugePages };
}

/** Maps part of a file or of a ring descriptor, shared and writable. */
export function mapFd(fd: number, byteLength: number, offset: number): NativeMemory {
  const flags = MAP_SHARED | MAP_POPULATE;
  const at = Number(c.mmap(null, byteLength, PROT_READ_WRITE, flags, fd, offset));
  if (mapFailed(at)) throw new NativeError("mmap", errno(), `fd ${fd}`);
  return viewNative(at, byteLength);
}

/** Unmaps what `mapMemory` or `mapFd` returned; its views must not be used any more. */
export function unmapMemory(memory: NativeMemory): void {
  check("munmap", c.munmap(pointer(memory.address), memory.byteLength));
}

/** Copies between two addresses that do not overlap. On the I/O path: about 7 ns plus the copy. */
export function copyMemory(to: number, from: number, byteLength: number): void {
  c.memcpy(pointer(to), pointer(from), byteLength);
}

/** Fills memory with one byte value. */
export function fillMemory(at: number, value: number, byteLength: number): void {
  c.memset(pointer(at), value, byteLength);
}

/** True when both ranges hold the same bytes. */
export function equalMemory(a: number, b: number, byteLength: number): boolean {
  return c.memcmp(pointer(a), pointer(b), byteLength) === 0;
}

// ----------------------------------------------------------------------------------- descriptors

/** open(2) flags (asm-generic/fcntl.h, x86-64 values). */
export const OpenFlag = {
  RDONLY: 0,
  RDWR: 2,
  CREAT: 0x40,
  EXCL: 0x80,
  DIRECT: 0x4000,
  CLOEXEC: 0x80000,
} as const;

/** Opens a file or device; `mode` only matters with CREAT. */
export function openFd(path: string, flags: number, mode = 0o600): number {
  const name = cString(path);
  return check("open", c.open(pointer(name.address), flags | OpenFlag.CLOEXEC, mode), path);
}

/** Closes a descriptor. Errors are reported, the descriptor is gone in any case. */
export function closeFd(fd: number): void {
  check("close", c.close(fd), `fd ${fd}`);
}

/** Takes an exclusive advisory lock without waiting; false when somebody else holds it. */
export function tryLockFd(fd: number): boolean {
  const LOCK_EX_NB = 2 | 4;
  if (c.flock(fd, LOCK_EX_NB) === 0) return true;
  if (errno() === Errno.EAGAIN) return false;
  throw new NativeError("flock", errno(), `fd ${fd}`);
}

/** A counter that wakes a ring which has a read of it outstanding. Non-blocking, close-on-exec. */
export function eventFd(): number {
  const EFD_CLOEXEC_NONBLOCK = 0x80000 | 0x800;
  return check("eventfd", c.eventfd(0, EFD_CLOEXEC_NONBLOCK));
}

const oneWord = allocNative(8);
oneWord.u32[0] = 1;

/** Adds one to an eventfd. A full counter (EAGAIN) already means "woken" and is no error. */
export function wakeEventFd(fd: number): void {
  const n = Number(c.write(fd, pointer(oneWord.address), 8));
  if (n !== 8 && errno() !== Errno.EAGAIN) throw new NativeError("write", errno(), "eventfd");
}

// ---------------------------------------------------------------------------------------- devices

const BLKGETSIZE64 = 0x80081272;
const BLKSSZGET = 0x1268;
const BLKPBSZGET = 0x127b;
const BLKDISCARD = 0x1277;

function ioctlWord(fd: number, request: number, name: string): number {
  const word = allocNative(8);
  check(name, c.ioctl(fd, request, pointer(word.address)), `fd ${fd}`);
  return Number(word.view.getBigUint64(0, true));
}

/** Size of a block device in bytes. */
export function blockDeviceBytes(fd: number): number {
  return ioctlWord(fd, BLKGETSIZE64, "ioctl(BLKGETSIZE64)");
}

/** Logical sector size of a block device in bytes: the unit of addressing and of alignment. */
export function blockDeviceLogicalBytes(fd: number): number {
  return ioctlWord(fd, BLKSSZGET, "ioctl(BLKSSZGET)") & 0xffffffff;
}

/** Physical sector size of a block device in bytes: what it can write without a read. */
export function blockDevicePhysicalBytes(fd: number): number {
  return ioctlWord(fd, BLKPBSZGET, "ioctl(BLKPBSZGET)") & 0xffffffff;
}

/** Discards a byte range of a block device; blocks until done. False when it cannot discard. */
export function discardBlockDevice(fd: number, offset: number, byteLength: number): boolean {
  const range = allocNative(16);
  range.view.setBigUint64(0, BigInt(offset), true);
  range.view.setBigUint64(8, BigInt(byteLength), true);
  if (c.ioctl(fd, BLKDISCARD, pointer(range.address)) === 0) return true;
  if (errno() === Errno.EOPNOTSUPP) return false;
  throw new NativeError("ioctl(BLKDISCARD)", errno(), `fd ${fd}`);
}

// ---------------------------------------------------------------------------------------- threads

/** Kernel thread id of the calling thread. */
export function threadId(): number {
  return Number(c.syscall(SYS_GETTID));
}

/** Binds the calling thread to the given CPUs (0-based, below 1024). */
export function setAffinity(cpus: readonly number[]): void {
  const mask = allocNative(128);
  for (const cpu of cpus) {
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= 1024) {
      throw new NativeError("sched_setaffinity", Errno.EINVAL, `cpu ${cpu}`);
    }
    mask.u8[cpu >> 3] = mask.u8[cpu >> 3]! | (1 << (cpu & 7));
  }
  check("sched_setaffinity", c.sched_setaffinity(0, 128, pointer(mask.address)), cpus.join(","));
}

// ---------------------------------------------------------------------------------------- sockets

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC_NONBLOCK = 0x80000 | 0x800;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_USER_TIMEOUT = 18;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

/** An IP address and TCP port. Addresses are numeric: `127.0.0.1`, `::1`. */
export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

const SOCKADDR_MAX_BYTES = 28;

function parseIpv4(text: string): number[] | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  const bytes = parts.map((p) => (/^\d{1,3}$/.test(p) ? Number(p) : 256));
  return bytes.every((b) => b <= 255) ? bytes : undefined;
}

function parseIpv6(text: string): number[] | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groups = (half: string): number[] | undefined => {
    if (half === "") return [];
    const out: number[] = [];
    for (const part of half.split(":")) {
      const v4 = part.includes(".") ? parseIpv4(part) : undefined;
      if (v4 !== undefined) out.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!);
      else if (/^[0-9a-fA-F]{1,4}$/.test(part)) out.push(Number.parseInt(part, 16));
      else return undefined;
    }
    return out;
  };
  const head = groups(halves[0]!);
  const tail = halves.length === 2 ? groups(halves[1]!) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...new Array<number>(missing).fill(0), ...tail];
  return all.flatMap((g) => [g >> 8, g & 255]);
}

/** True when `text` is a numeric IPv4 or IPv6 address. */
export function isIpAddress(text: string): boolean {
  return parseIpv4(text) !== undefined || parseIpv6(text) !== undefined;
}

/** A `struct sockaddr_in` or `sockaddr_in6` for the address. Throws EINVAL when not numeric. */
export function encodeSockaddr(at: SocketAddress): { memory: NativeMemory; byteLength: number } {
  const memory = allocNative(SOCKADDR_MAX_BYTES);
  memory.view.setUint16(2, at.port, false);
  const v4 = parseIpv4(at.address);
  if (v4 !== undefined) {
    memory.view.setUint16(0, AF_INET, true);
    memory.u8.set(v4, 4);
    return { memory, byteLength: 16 };
  }
  const v6 = parseIpv6(at.address);
  if (v6 === undefined) throw new NativeError("address", Errno.EINVAL, `"${at.address}"`);
  memory.view.setUint16(0, AF_INET6, true);
  memory.u8.set(v6, 8);
  return { memory, byteLength: 28 };
}

function decodeSockaddr(memory: NativeMemory): SocketAddress {
  const port = memory.view.getUint16(2, false);
  if (memory.view.getUint16(0, true) === AF_INET) {
    return { address: [...memory.u8.subarray(4, 8)].join("."), port };
  }
  const groups: string[] = [];
  for (let i = 0; i < 8; i++) groups.push(memory.view.getUint16(8 + i * 2, false).toString(16));
  const mapped = groups.slice(0, 6).join(":") === "0:0:0:0:0:ffff";
  if (mapped) return { address: [...memory.u8.subarray(20, 24)].join("."), port };
  return { address: groups.join(":"), port };
}

function setSocketOption(fd: number, level: number, option: number, value: number): void {
  const word = allocNative(4);
  word.i32[0] = value;
  check("setsockopt", c.setsockopt(fd, level, option, pointer(word.address), 4), `fd ${fd}`);
}

/** A TCP socket for the family of `address`; with `nonBlocking` for use outside a ring. */
export function tcpSocket(address: string, options: { nonBlocking: boolean }): number {
  const family = parseIpv4(address) !== undefined ? AF_INET : AF_INET6;
  const flags = options.nonBlocking ? SOCK_CLOEXEC_NONBLOCK : 0x80000;
  return check("socket", c.socket(family, SOCK_STREAM | flags, 0));
}

/** A listening TCP socket. Port 0 takes a free one (see `localAddress`). */
export function listenTcp(at: SocketAddress, backlog: number): number {
  const fd = tcpSocket(at.address, { nonBlocking: false });
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (at.address.includes(":")) setSocketOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    const { memory, byteLength } = encodeSockaddr(at);
    const about = `${at.address}:${at.port}`;
    check("bind", c.bind(fd, pointer(memory.address), byteLength), about);
    check("listen", c.listen(fd, backlog), about);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** No delay for small segments, and a dead peer noticed by the kernel after about 30 s. */
export function tuneConnection(fd: number): void {
  setSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setSocketOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
  setSocketOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30_000);
}

function nameOf(call: "getsockname" | "getpeername", fd: number): SocketAddress {
  const memory = allocNative(SOCKADDR_MAX_BYTES);
  const length = allocNative(4);
  length.u32[0] = SOCKADDR_MAX_BYTES;
  check(call, c[call](fd, pointer(memory.address), pointer(length.address)), `fd ${fd}`);
  return decodeSockaddr(memory);
}

/** The address a socket is bound to. */
export function localAddress(fd: number): SocketAddress {
  return nameOf("getsockname", fd);
}

/** The address of a connected socket's other end. */
export function peerAddress(fd: number): SocketAddress {
  return nameOf("getpeername", fd);
}

/** Ends both directions of a connection: outstanding receives complete, the peer sees the end. */
export function shutdownSocket(fd: number): void {
  const SHUT_RDWR = 2;
  // ENOTCONN means the peer was faster, which is what was wanted.
  if (c.shutdown(fd, SHUT_RDWR) < 0 && errno() !== Errno.ENOTCONN) {
    throw new NativeError("shutdown", errno(), `fd ${fd}`);
  }
}

/**
 * A socket on which the kernel tells of devices that come, go and change: one datagram per event, of
 * `action@path` and `NAME=value` texts, each ended by NUL (netlink(7), NETLINK_KOBJECT_UEVENT). Non-blocking.
 */
export function ueventSocket(): number {
  const AF_NETLINK = 16;
  const SOCK_DGRAM_CLOEXEC_NONBLOCK = 2 | SOCK_CLOEXEC_NONBLOCK;
  const NETLINK_KOBJECT_UEVENT = 15;
  const SO_RCVBUF = 8;
  /** Devices come in hundreds at once; what does not fit is lost, and the reader is told. */
  const RECEIVE_BYTES = 1 << 20;
  const fd = check(
    "socket",
    c.socket(AF_NETLINK, SOCK_DGRAM_CLOEXEC_NONBLOCK, NETLINK_KOBJECT_UEVENT),
  );
  try {
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BYTES);
    // struct sockaddr_nl: family, padding, port (0: the kernel chooses), groups (1: the kernel's own).
    const name = allocNative(12);
    name.view.setUint16(0, AF_NETLINK, true);
    name.view.setUint32(8, 1, true);
    check("bind", c.bind(fd, pointer(name.address), 12), "netlink");
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/**
 * Sends `text` as one datagram to the unix socket at `path` (`@` first: an abstract name). False
 * when nobody takes it.
 */
export function sendUnixDatagram(path: string, text: string): boolean {
  const AF_UNIX = 1;
  const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
  const MSG_NOSIGNAL_DONTWAIT = 0x4000 | 0x40;
  const PATH_BYTES_MAX = 107;
  const name = new TextEncoder().encode(path);
  if (name.byteLength > PATH_BYTES_MAX) return false;
  const isAbstract = path.startsWith("@");
  if (isAbstract) name[0] = 0;
  const to = allocNative(2 + PATH_BYTES_MAX + 1);
  to.view.setUint16(0, AF_UNIX, true);
  to.u8.set(name, 2);
  const message = cString(text);
  const fd = check("socket", c.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0));
  const toBytes = 2 + name.byteLength + (isAbstract ? 0 : 1);
  const length = new TextEncoder().encode(text).byteLength;
  const sent = Number(
    c.sendto(
      fd,
      pointer(message.address),
      length,
      MSG_NOSIGNAL_DONTWAIT,
      pointer(to.address),
      toBytes,
    ),
  );
  closeFd(fd);
  return sent === length;
}
