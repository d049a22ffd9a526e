/** A nexus over simulated replicas, with a recorder that survives it. */

import {
  type FaultRecorder,
  type Nexus,
  type NexusContext,
  type NexusEvent,
  type NexusRecord,
  NexusRequests,
  openNexus,
  RebuildMemory,
} from "../../src/engine/nexus/index.ts";
import { IoOp } from "../../src/engine/reactor/io-table.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { IoStatus, TrilithError } from "../../src/errors.ts";
import type { SimReplica } from "./sim-child.ts";

/** Keeps the last record per volume, as the control plane does; refuses stale epochs. */
export class SimRecorder implements FaultRecorder {
  readonly reactor: Reactor;
  record_: NexusRecord | undefined;
  /** Cannot be reached. */
  down = false;
  delayMs = 1;
  calls = 0;

  constructor(reactor: Reactor) {
    this.reactor = reactor;
  }

  async record(record: NexusRecord): Promise<void> {
    await this.reactor.sleep(this.delayMs);
    this.calls++;
    if (this.down) throw new TrilithError("Unavailable", "the recorder cannot be reached");
    if (this.record_ !== undefined && record.epoch < this.record_.epoch) {
      throw new TrilithError("Superseded", `epoch ${this.record_.epoch} is recorded`);
    }
    this.record_ = record;
  }

  isHealthy(uri: string): boolean {
    if (this.record_ === undefined) return true;
    return this.record_.children.find((child) => child.uri === uri)?.healthy ?? false;
  }
}

export class SimVolume {
  readonly reactor: Reactor;
  readonly replicas: SimReplica[];
  readonly recorder: SimRecorder;
  readonly events: NexusEvent[] = [];
  readonly context: NexusContext;
  epoch = 0;
  onEvent: ((event: NexusEvent) => void) | null = null;
  #uuid = 0;

  constructor(reactor: Reactor, replicas: SimReplica[]) {
    this.reactor = reactor;
    this.replicas = replicas;
    this.recorder = new SimRecorder(reactor);
    this.context = {
      reactor,
      requests: new NexusRequests(reactor.io),
      rebuildMemory: new RebuildMemory(8 << 20),
      recorder: this.recorder,
      openChild: (uri) => {
        const replica = this.replicas.find((r) => r.uri === uri);
        if (replica === undefined) throw new TrilithError("NotFound", `${uri} does not exist`);
        return replica.open();
      },
      onEvent: (_uuid, event) => {
        this.events.push(event);
        this.onEvent?.(event);
      },
      clockMs: () => Math.floor(reactor.now / 1e6),
    };
  }

  /** Opens the next incarnation over `members`, healthy as the recorder knows them. */
  open(
    members: readonly SimReplica[] = this.replicas,
    sizeBytes = this.replicas[0]!.data.byteLength,
  ): Promise<Nexus> {
    this.epoch++;
    this.#uuid++;
    return openNexus(this.context, {
      name: "volume",
      uuid: `00000000-0000-0000-0000-${String(this.#uuid).padStart(12, "0")}`,
      volumeUuid: "11111111-2222-3333-4444-555555555555",
      epoch: this.epoch,
      sizeBytes,
      children: members.map((r) => ({ uri: r.uri, healthy: this.recorder.isHealthy(r.uri) })),
    });
  }
}

/** Host requests to a nexus by promise; every one resolves with its `IoStatus`. */
export class SimHost {
  readonly nexus: Nexus;

  constructor(nexus: Nexus) {
    this.nexus = nexus;
  }

  #run(op: number, offset: number, length: number, buffer: number, flags = 0): Promise<number> {
    const { io, now } = this.nexus.reactor;
    const slots = 1 + this.nexus.slotsPerIo;
    if (!io.promise(slots)) throw new Error("request slots are used up");
    const slot = io.take(op, offset, length, buffer, flags, now);
    return new Promise((resolve) => {
      io.push(slot, {
        ioDone(done) {
          const status = io.status[done]!;
          io.give(done);
          io.release(slots);
          resolve(status);
        },
      });
      this.nexus.submit(slot);
    });
  }

  async write(offset: number, bytes: Uint8Array): Promise<number> {
    const { arena } = this.nexus.reactor;
    const buffer = arena.alloc(bytes.byteLength, 0);
    if (buffer < 0) throw new Error("the arena is used up");
    arena.u8.set(bytes, buffer);
    const status = await this.#run(IoOp.WRITE, offset, bytes.byteLength, buffer);
    arena.free(buffer);
    return status;
  }

  async read(offset: number, length: number): Promise<{ status: number; bytes: Uint8Array }> {
    const { arena } = this.nexus.reactor;
    const buffer = arena.alloc(length, 0);
    if (buffer < 0) throw new Error("the arena is used up");
    const status = await this.#run(IoOp.READ, offset, length, buffer);
    const bytes = arena.u8.slice(buffer, buffer + length);
    arena.free(buffer);
    return { status, bytes };
  }

  flush(): Promise<number> {
    return this.#run(IoOp.FLUSH, 0, 0, -1);
  }

  zero(offset: number, length: number): Promise<number> {
    return this.#run(IoOp.WRITE_ZEROES, offset, length, -1);
  }
}

/** Waits in virtual time until `condition` holds; fails after a simulated minute. */
export async function eventually(
  reactor: Reactor,
  what: string,
  condition: () => boolean,
): Promise<void> {
  const untilNs = reactor.now + 60e9;
  while (!condition()) {
    if (reactor.now > untilNs) throw new Error(`never happened: ${what}`);
    await reactor.sleep(1);
  }
}

export { IoStatus };
