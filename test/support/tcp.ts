/** Connected TCP sockets on the loopback, made through a reactor's ring. */
import {
  closeFd,
  encodeSockaddr,
  listenTcp,
  localAddress,
  Op,
  tcpSocket,
} from "../../ffi/index.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";

/** Both ends of a new connection, as descriptors that the caller closes. */
export async function connectedPair(reactor: Reactor): Promise<[number, number]> {
  const listener = listenTcp({ address: "127.0.0.1", port: 0 }, 8);
  const client = tcpSocket("127.0.0.1", { nonBlocking: false });
  const { memory, byteLength } = encodeSockaddr(localAddress(listener));
  const accepted = reactor.submit(Op.ACCEPT, listener, 0, 0, 0, 0);
  // The length of the address travels in the offset field of a connect entry.
  const connected = await reactor.submit(Op.CONNECT, client, memory.address, 0, byteLength, 0);
  // Memory that the kernel reads must be alive until it has: it is named again here.
  if (connected < 0 || memory.byteLength === 0) throw new Error(`no connection: ${connected}`);
  const server = await accepted;
  closeFd(listener);
  if (server < 0) throw new Error(`no connection is accepted: ${server}`);
  return [client, server];
}
