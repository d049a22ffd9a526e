/**
 * Shared libraries embedded in the executable, loaded from memory.
 *
 * liburing and libisal travel inside the executable (`ffi/native`, filled by `npm run setup` from
 * Debian's packages) and are opened through a memfd, so that nothing needs to be installed, no
 * writable directory is needed, and no other copy on the machine can be picked up instead.
 *
 * Rule: the main thread loads everything (by importing `ffi`) before it starts the first Worker, and
 * passes `libraries: libraryFds()` in the Worker's `workerData`, so that each library exists once in
 * the process. Concurrent first loads are what this avoids.
 */
import { dlopen, type FFIFunction, FFIType, type Pointer, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { Errno, NativeError } from "./errno.ts";
import libisalPath from "./native/libisal.so.2" with { type: "file" };
import liburingPath from "./native/liburing.so.2" with { type: "file" };

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

const loader = dlopen("libc.so.6", {
  memfd_create: { args: ["ptr", "u32"], returns: "i32" },
  write: { args: ["i32", "ptr", "usize"], returns: FFIType.i64_fast },
}).symbols;

/** File descriptors of the in-memory copies, by library. */
export interface LibraryFds {
  readonly liburing: number;
  readonly libisal: number;
}

let fds: LibraryFds | undefined = (workerData as { libraries?: LibraryFds } | null)?.libraries;

function copyToMemfd(name: string, path: string): number {
  const image = readFileSync(path);
  const cName = new Uint8Array(new ArrayBuffer(name.length + 1));
  cName.set(new TextEncoder().encode(name));
  const fd = loader.memfd_create(ptr(cName), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw new NativeError("memfd_create", Errno.ENOMEM, name);
  const bytes = new Uint8Array(new ArrayBuffer(image.byteLength));
  bytes.set(image);
  const start: number = ptr(bytes);
  let done = 0;
  while (done < bytes.byteLength) {
    const n = Number(loader.write(fd, (start + done) as Pointer, bytes.byteLength - done));
    if (n <= 0) throw new NativeError("write", Errno.EIO, `memfd of ${name}`);
    done += n;
  }
  return fd;
}

/** Makes the in-memory copies (first call of the process) and returns their descriptors. */
export function libraryFds(): LibraryFds {
  fds ??= {
    liburing: copyToMemfd("liburing", liburingPath),
    libisal: copyToMemfd("libisal", libisalPath),
  };
  return fds;
}

/** Opens one of the embedded libraries with the given symbols. */
export function openLibrary<Symbols extends Record<string, FFIFunction>>(
  name: keyof LibraryFds,
  symbols: Symbols,
) {
  return dlopen(`/proc/self/fd/${libraryFds()[name]}`, symbols).symbols;
}
