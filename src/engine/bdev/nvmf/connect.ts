/** A TCP connection to an NVMe/TCP port, made on the reactor's ring. */
import {
  closeFd,
  Errno,
  encodeSockaddr,
  errnoName,
  isIpAddress,
  Op,
  type SocketAddress,
  tcpSocket,
  tuneConnection,
} from "../../../../ffi/index.ts";
import { TrilithError } from "../../../errors.ts";
import { cancelFd, type Reactor } from "../../reactor/reactor.ts";

/** A connection being made: `done` resolves with its descriptor; `cancel` ends the attempt. */
export interface Connecting {
  readonly done: Promise<number>;
  cancel(): void;
}

/** Throws `InvalidArgument` unless `address` is numeric: names are resolved by whoever calls. */
export function assertNumericAddress(address: string, uri: string): void {
  if (isIpAddress(address)) return;
  throw new TrilithError(
    "InvalidArgument",
    `device URI "${uri}": host "${address}" is not a numeric IP address`,
    "resolve the name first, e.g. with `getent hosts`, and give the address",
  );
}

/**
 * Begins to connect. `done` rejects with `Timeout` after `timeoutMs`, `Unavailable` when nobody
 * listens or the address is out of reach, `Aborted` when cancelled.
 */
export function connectTcp(reactor: Reactor, to: SocketAddress, timeoutMs: number): Connecting {
  const where = to.address.includes(":")
    ? `[${to.address}]:${to.port}`
    : `${to.address}:${to.port}`;
  let why: "timeout" | "cancel" | null = null;
  let isPending = false;
  let fd = -1;
  const end = (reason: "timeout" | "cancel"): void => {
    if (!isPending || why !== null) return;
    why = reason;
    cancelFd(reactor, fd).catch(() => {});
  };
  const run = async (): Promise<number> => {
    try {
      fd = tcpSocket(to.address, { nonBlocking: false });
      tuneConnection(fd);
    } catch (error) {
      if (fd >= 0) closeFd(fd);
      const text = error instanceof Error ? error.message : String(error);
      throw new TrilithError("ResourceExhausted", `${where}: no socket can be made (${text})`);
    }
    const { memory, byteLength } = encodeSockaddr(to);
    const timer = reactor.after(timeoutMs, () => end("timeout"));
    isPending = true;
    const result = await new Promise<number>((resolve) => {
      const handler = reactor.addHandler({
        // Not by promise: when the time runs out in the very turn of the completion, that counts.
        onCqe(_token, code) {
          isPending = memory.byteLength === 0; // False, and keeps the address until here.
          timer.cancel();
          reactor.removeHandler(handler);
          resolve(code);
        },
      });
      // The length of the address travels in the offset field.
      reactor.ring.prep(Op.CONNECT, fd, memory.address, 0, byteLength, 0, 0, handler);
    });
    if (result === 0 && why === null) return fd;
    closeFd(fd);
    if (why === "timeout") {
      throw new TrilithError("Timeout", `${where}: no connection within ${timeoutMs} ms`);
    }
    if (why === "cancel") throw new TrilithError("Aborted", `${where}: connecting was given up`);
    const refused = result === -Errno.ECONNREFUSED ? "nobody listens there" : errnoName(result);
    throw new TrilithError(
      "Unavailable",
      `${where}: cannot be connected to (${refused})`,
      "check that the node is up and its engine runs",
    );
  };
  return { done: run(), cancel: () => end("cancel") };
}
