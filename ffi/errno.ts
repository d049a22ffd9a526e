/** Linux errno values that the product tells apart (asm-generic/errno-base.h, errno.h). */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ENOSYS: 38,
  ENODATA: 61,
  ETIME: 62,
  EREMOTEIO: 121,
  EDQUOT: 122,
  EBADE: 52,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
  ECANCELED: 125,
  EOWNERDEAD: 130,
} as const;

const names = new Map<number, string>(
  Object.entries(Errno).map(([name, value]) => [value as number, name]),
);

/** Name of an errno (its sign does not matter), e.g. `ENOSPC`; unknown ones read `errno 200`. */
export function errnoName(errno: number): string {
  const value = Math.abs(errno);
  return names.get(value) ?? `errno ${value}`;
}

/** A failed native call: which call, the errno, and what it was about. */
export class NativeError extends Error {
  readonly call: string;
  readonly errno: number;
  constructor(call: string, errno: number, about = "") {
    super(`${call}${about === "" ? "" : ` ${about}`}: ${errnoName(errno)}`);
    this.name = "NativeError";
    this.call = call;
    this.errno = Math.abs(errno);
  }
}
