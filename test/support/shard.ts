/**
 * Shards on the test's reactor: what an engine's reactor owns, with the main thread played by the
 * test. Several of them on one reactor are several nodes that reach each other over loopback TCP.
 */
import { randomUUID } from "node:crypto";
import { closeFd, listenTcp, localAddress } from "../../ffi/index.ts";
import { Routes } from "../../src/engine/main/routes.ts";
import type { NexusRecord } from "../../src/engine/nexus/index.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { checkSuccession } from "../../src/engine/recorder.ts";
import type { EngineInput, EngineResult } from "../../src/engine/rpc/contract.ts";
import { engineContract } from "../../src/engine/rpc/contract.ts";
import { checkedRequest } from "../../src/engine/rpc.ts";
import type { MainMethods, ShardEvent, ShardRoute } from "../../src/engine/shard/methods.ts";
import { type MainLink, Shard } from "../../src/engine/shard/shard.ts";
import { TrilithError } from "../../src/errors.ts";
import { nodeHostNqn } from "../../src/names.ts";

/** Records of several nodes, as they share one recorder. */
export class TestRecorder {
  readonly records = new Map<string, NexusRecord & { readonly recordedAt: string }>();
  /** While set, recording fails with this. */
  failure: Error | null = null;

  record(next: NexusRecord): void {
    if (this.failure !== null) throw this.failure;
    const before = this.records.get(next.volumeUuid);
    checkSuccession(
      before === undefined ? undefined : { ...before, children: [...before.children] },
      next,
    );
    this.records.set(next.volumeUuid, { ...next, recordedAt: "" });
  }
}

export class TestShard {
  readonly shard: Shard;
  readonly nodeName: string;
  readonly hostId = randomUUID();
  bootId = "00000000-0000-4000-8000-00000000b001";
  readonly events: ShardEvent[] = [];
  readonly log: string[] = [];
  readonly port: number;
  readonly #listenFd: number;
  readonly #nbdFd: number;
  readonly #routes = new Routes([]);

  constructor(reactor: Reactor, nodeName = "test-node", recorder = new TestRecorder()) {
    this.nodeName = nodeName;
    this.#listenFd = listenTcp({ address: "127.0.0.1", port: 0 }, 64);
    this.#nbdFd = listenTcp({ address: "127.0.0.1", port: 0 }, 64);
    this.port = localAddress(this.#listenFd).port;
    const main: MainMethods = {
      ready: async () => {},
      log: async ({ level, text, fields }) => {
        this.log.push(`${level} ${text} ${JSON.stringify(fields)}`);
      },
      event: async (event) => {
        this.events.push(event);
      },
      handOverNvmf: async () => {
        throw new Error("there is one reactor");
      },
      handOverNbd: async () => {
        throw new Error("there is one reactor");
      },
      announce: async ({ hosts, ...served }) => {
        this.#routes.set(served, { reactor: 0, hosts });
        await this.shard.methods.setRoutes(this.#routes.table);
      },
      withdraw: async (served) => {
        this.#routes.remove(served, 0);
        await this.shard.methods.setRoutes(this.#routes.table);
      },
      record: async (record) => recorder.record(record),
    };
    const link: MainLink = {
      call: (method, input) => main[method](input as never) as never,
      tell: (method, input) => void main[method](input as never),
      stop: () => {},
      clockMs: () => 1_700_000_000_000,
    };
    this.shard = new Shard(
      reactor,
      {
        index: 0,
        arenaBytes: reactor.arena.byteLength,
        spinNs: 0,
        core: null,
        nodeName,
        bootId: this.bootId,
        host: { nqn: nodeHostNqn(nodeName), id: this.hostId },
        address: "127.0.0.1",
        nvmfPort: this.port,
        nbdPort: localAddress(this.#nbdFd).port,
        diskSteadyMs: 40,
      },
      link,
    );
  }

  async listen(): Promise<this> {
    await this.shard.methods.listen({ nvmf: [this.#listenFd], nbd: [this.#nbdFd] });
    return this;
  }

  /** Calls a route as the RPC does: the request is checked, and defaults are filled in. */
  call<K extends ShardRoute>(method: K, input: EngineInput<K>): Promise<EngineResult<K>> {
    const request = checkedRequest(engineContract[method], input as Record<string, unknown>);
    return this.shard.methods[method](request as never) as Promise<EngineResult<K>>;
  }

  /** Ends everything as an engine that stops does. */
  async close(): Promise<void> {
    await this.shard.methods.drainFront({});
    await this.shard.methods.drainDevices({});
    closeFd(this.#listenFd);
    closeFd(this.#nbdFd);
  }
}

/**
 * The error code that a promise rejects with, or "" when it resolves. `expect().rejects` would wait
 * in the runtime's event loop, which never gets its turn while a reactor's loop runs.
 */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "";
  } catch (error) {
    if (error instanceof TrilithError) return error.code;
    throw error;
  }
}
