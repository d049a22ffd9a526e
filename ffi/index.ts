/**
 * The native edge: everything that knows a C struct, a system call number or a pointer.
 * Imports nothing of the rest of the project; the rest never calls `ptr()`.
 */
export * from "./crc32c.ts";
export * from "./errno.ts";
export * from "./libc.ts";
export * from "./library.ts";
export * from "./liburing.ts";
export * from "./memory.ts";
export * from "./probe.ts";
