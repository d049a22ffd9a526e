/** An NBD server on a test's own reactor, and the proof that it leaves nothing behind. */
import { expect } from "bun:test";
import type { Bdev } from "../../src/engine/bdev/bdev.ts";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import type { NbdExportOptions } from "../../src/engine/nbd/export.ts";
import { type NbdHandedOver, NbdServer } from "../../src/engine/nbd/server.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../src/engine/reactor/tcp-stream.ts";
import { GatedBdev } from "./gated-bdev.ts";
import { NbdClient } from "./nbd-client.ts";
import { withReactor } from "./reactor.ts";
import { connectedPair } from "./tcp.ts";

/** Size of the devices that tests export. */
export const MEMORY_BYTES = 128 << 20;

export class NbdFixture {
  readonly reactor: Reactor;
  readonly server: NbdServer;
  readonly log: string[] = [];
  /** Where connections to other reactors go; a test may put its own in. */
  handOver: (moved: NbdHandedOver) => void = () => {
    throw new Error("nothing is to be handed over");
  };
  readonly #clients: NbdClient[] = [];
  readonly #devices: Bdev[] = [];
  readonly #servers: NbdServer[] = [];

  constructor(reactor: Reactor) {
    this.reactor = reactor;
    this.server = this.anotherServer();
  }

  /** A second server, to stand for one on another reactor. */
  anotherServer(): NbdServer {
    const server = new NbdServer(this.reactor, recvBuffersOf(this.reactor), {
      log: (_level, text, fields) => this.log.push(`${text} ${JSON.stringify(fields)}`),
      handOver: (moved) => this.handOver(moved),
    });
    this.#servers.push(server);
    return server;
  }

  /** Exports a new memory device, which works inside `submit`. */
  memory(name: string, options: Partial<NbdExportOptions> & { blockSize?: 512 | 4096 } = {}): Bdev {
    const { blockSize = 512, ...rest } = options;
    const blockCount = MEMORY_BYTES / blockSize;
    const uri = { driver: "malloc", name, blockSize, blockCount, uuid: undefined } as const;
    const bdev = openMemoryBdev(this.reactor, uri);
    this.#devices.push(bdev);
    this.server.addExport({ name, bdev, ...rest });
    return bdev;
  }

  /** Exports a new device that works when the test lets it. */
  gated(name: string, options: Partial<NbdExportOptions> = {}): GatedBdev {
    const bdev = new GatedBdev(this.reactor, MEMORY_BYTES / 512);
    this.#devices.push(bdev);
    this.server.addExport({ name, bdev, ...options });
    return bdev;
  }

  /** A new connection to the server. */
  async connect(server = this.server): Promise<NbdClient> {
    const [clientFd, serverFd] = await connectedPair(this.reactor);
    server.accepted(serverFd);
    const client = new NbdClient(this.reactor, clientFd);
    this.#clients.push(client);
    return client;
  }

  /** Resolves when the condition holds; it is looked at in every turn. */
  async until(condition: () => boolean): Promise<void> {
    const deadlineNs = this.reactor.now + 10e9;
    while (!condition()) {
      if (this.reactor.now > deadlineNs) throw new Error("the condition does not come about");
      await this.reactor.sleep(1);
    }
  }

  /** Ends the clients, then the servers, then the devices. */
  async close(): Promise<void> {
    for (const client of this.#clients) client.close();
    for (const server of this.#servers) await server.close();
    for (const device of this.#devices) await device.close();
    for (const server of this.#servers) expect(server.connections.size).toBe(0);
  }
}

/** What a reactor has in use. */
function held(reactor: Reactor) {
  const { io, arena } = reactor;
  // All slots can be promised only when no promise is left.
  const promised = !io.promise(io.capacity);
  if (!promised) io.release(io.capacity);
  return { slots: io.free, bytes: arena.freeBytes, handlers: reactor.handlerCount, promised };
}

/**
 * Runs `body` with a server; then ends the clients and the server, and checks that slots, promises,
 * memory and handlers are all given back.
 */
export function withNbd(body: (fixture: NbdFixture) => Promise<void>): void {
  withReactor(async (reactor) => {
    recvBuffersOf(reactor);
    const before = held(reactor);
    const fixture = new NbdFixture(reactor);
    await body(fixture);
    await fixture.close();
    expect(held(reactor)).toEqual(before);
    expect(before.promised).toBe(false);
  });
}
