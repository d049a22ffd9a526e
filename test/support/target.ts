/** A target on the test's reactor with one subsystem, and the proof that it gave everything back. */
import { expect } from "bun:test";
import { closeFd, listenTcp, localAddress, type SocketAddress } from "../../ffi/index.ts";
import type { Bdev } from "../../src/engine/bdev/bdev.ts";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../src/engine/reactor/tcp-stream.ts";
import { Subsystem, type SubsystemOptions } from "../../src/engine/target/subsystem.ts";
import { Target, type TargetOptions } from "../../src/engine/target/target.ts";
import { AnaState } from "../../src/nvme/constants.ts";
import { type ConnectOptions, connectQueue, type RawHost } from "./raw-host.ts";
import { withReactor } from "./reactor.ts";

export const NQN = "nqn.2019-05.io.openebs:test";
const UUID = "0c3d6b1e-5a3f-4a57-9d8e-1f2a3b4c5d6e";

export interface FixtureOptions {
  /** Default: 8 MiB of memory in blocks of 512 bytes. */
  readonly bdev?: (reactor: Reactor) => Bdev;
  readonly subsystem?: Partial<SubsystemOptions>;
  readonly target?: Partial<TargetOptions>;
}

export interface LogLine {
  readonly level: string;
  readonly text: string;
  readonly fields: Record<string, unknown> | undefined;
}

export class TargetFixture {
  readonly reactor: Reactor;
  readonly bdev: Bdev;
  readonly target: Target;
  readonly subsystem: Subsystem;
  readonly address: SocketAddress;
  readonly log: LogLine[] = [];
  readonly #listenFd: number;
  readonly #hosts: RawHost[] = [];

  constructor(reactor: Reactor, options: FixtureOptions) {
    this.reactor = reactor;
    this.bdev = options.bdev?.(reactor) ?? memoryBdev(reactor);
    this.target = new Target(reactor, recvBuffersOf(reactor), {
      h2cDataBytes: 1 << 20,
      firmware: "1.0",
      discovery: { nqn: undefined, serial: "DISCOVERY", model: "discovery" },
      log: (level, text, fields) => this.log.push({ level, text, fields }),
      handOver: () => {
        throw new Error("nothing is handed over");
      },
      ...options.target,
    });
    this.subsystem = new Subsystem(
      {
        nqn: NQN,
        serial: "SERIAL",
        model: "model",
        hosts: undefined,
        controllerIds: { min: 1, max: 0xffef },
        anaState: AnaState.OPTIMIZED,
        ...options.subsystem,
      },
      this.bdev,
    );
    this.target.addSubsystem(this.subsystem);
    this.#listenFd = listenTcp({ address: "127.0.0.1", port: 0 }, 512);
    this.address = localAddress(this.#listenFd);
    this.target.listen(this.#listenFd);
  }

  /** Has a host closed when the test ends. */
  keep<T extends RawHost>(host: T): T {
    this.#hosts.push(host);
    return host;
  }

  /** Connects an admin queue and enables its controller. */
  async admin(
    options: Partial<ConnectOptions> = {},
  ): Promise<{ host: RawHost; controllerId: number }> {
    const made = await connectQueue(this.reactor, this.address, { subsystemNqn: NQN, ...options });
    this.keep(made.host);
    return made;
  }

  /** Connects an I/O queue of a controller. */
  async io(
    controllerId: number,
    queueId = 1,
    options: Partial<ConnectOptions> = {},
  ): Promise<RawHost> {
    const all = { subsystemNqn: NQN, ...options, controllerId, queueId };
    return this.keep((await connectQueue(this.reactor, this.address, all)).host);
  }

  /** An admin queue and one I/O queue. */
  async both(
    options: Partial<ConnectOptions> = {},
  ): Promise<{ admin: RawHost; io: RawHost; controllerId: number }> {
    const { host: admin, controllerId } = await this.admin(options);
    return { admin, io: await this.io(controllerId, 1, options), controllerId };
  }

  /** Resolves once `condition` holds; looks after every millisecond. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.reactor.sleep(1);
  }

  async close(): Promise<void> {
    await this.target.close();
    for (const host of this.#hosts) await host.close();
    closeFd(this.#listenFd);
    await this.bdev.close();
  }
}

function memoryBdev(reactor: Reactor): Bdev {
  const blockCount = 16384;
  return openMemoryBdev(reactor, {
    driver: "malloc",
    name: "m",
    blockSize: 512,
    blockCount,
    uuid: UUID,
  });
}

/** What a reactor has to give; the same before and after means that nothing leaked. */
export function inventory(reactor: Reactor): Record<string, unknown> {
  const { io, arena } = reactor;
  const mayPromiseAll = io.promise(io.capacity);
  if (mayPromiseAll) io.release(io.capacity);
  return {
    freeSlots: io.free,
    mayPromiseAll,
    freeBytes: arena.freeBytes,
    receiveBuffers: recvBuffersOf(reactor).free,
    handlers: reactor.handlerCount,
  };
}

/**
 * Runs `body` with a target, closes everything and checks that slots, promises, buffers and handlers
 * are all back. Synchronous: the reactor's loop blocks.
 */
export function withTarget(
  body: (fixture: TargetFixture) => Promise<void>,
  options: FixtureOptions = {},
): void {
  withReactor(async (reactor) => {
    recvBuffersOf(reactor);
    const before = inventory(reactor);
    const fixture = new TargetFixture(reactor, options);
    try {
      await body(fixture);
    } finally {
      await fixture.close();
    }
    expect(inventory(reactor)).toEqual(before);
  });
}
