/** I/O statistics of one reactor. Counting is done where hosts and nexuses come in; here it is summed. */

import type { Bdev } from "../bdev/bdev.ts";
import { type IoStatistics, LATENCY_BUCKETS } from "../reactor/io-statistics.ts";
import { IoOp } from "../reactor/io-table.ts";
import type { IoStats, OpStats, StatsKind } from "../rpc/stats.ts";
import type { Bdevs } from "./bdevs.ts";
import type { ShardMethods } from "./methods.ts";
import type { Nexuses } from "./nexuses.ts";
import type { Replicas } from "./replicas.ts";
import type { ShardContext } from "./shard.ts";
import type { Shares } from "./shares.ts";

interface Things {
  readonly bdevs: Bdevs;
  readonly replicas: Replicas;
  readonly nexuses: Nexuses;
}

interface Counted {
  readonly kind: StatsKind;
  readonly name: string;
  readonly nexusUuid: string | null;
  /** What its numbers are the sum of. */
  readonly sources: readonly IoStatistics[];
}

function sum(sources: readonly IoStatistics[], of: (source: IoStatistics) => number): number {
  let total = 0;
  for (const source of sources) total += of(source);
  return total;
}

function opStats(sources: readonly IoStatistics[], op: number): OpStats {
  const latencyCounts: number[] = [];
  for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
    latencyCounts.push(sum(sources, (s) => s.latency[op * LATENCY_BUCKETS + bucket]!));
  }
  while (latencyCounts.at(-1) === 0) latencyCounts.pop();
  return {
    ops: sum(sources, (s) => s.ops[op]!),
    bytes: sum(sources, (s) => s.bytes[op]!),
    errors: sum(sources, (s) => s.errors[op]!),
    latencyUs: sum(sources, (s) => s.latencyNs[op]!) / 1000,
    latencyCounts,
  };
}

export class Stats {
  readonly methods: Pick<ShardMethods, "listStats" | "resetStats">;
  readonly #context: ShardContext;
  readonly #shares: Shares;
  readonly #things: Things;

  constructor(context: ShardContext, shares: Shares, things: Things) {
    this.#context = context;
    this.#shares = shares;
    this.#things = things;
    this.methods = {
      listStats: async ({ kind, name }) =>
        this.#counted(kind, name).map((counted) => this.#describe(counted)),
      resetStats: async ({ kind, name }) => {
        for (const { sources } of this.#counted(kind, name)) {
          for (const source of sources) source.reset();
        }
        return undefined;
      },
    };
  }

  #counted(kind: StatsKind | undefined, name: string | undefined): Counted[] {
    const all = [...this.#front(), ...this.#nexuses(), ...this.#pools()];
    return all
      .filter((counted) => kind === undefined || counted.kind === kind)
      .filter((counted) => name === undefined || counted.name === name);
  }

  #front(): Counted[] {
    return this.#shares.statistics().map(({ kind, name, statistics }) => ({
      kind,
      name,
      nexusUuid: null,
      sources: [statistics],
    }));
  }

  #nexuses(): Counted[] {
    const list: Counted[] = [];
    for (const nexus of this.#things.nexuses.all()) {
      const { uuid } = nexus.core.identity;
      const sources = this.#shares.statisticsOf(nexus);
      list.push({ kind: "nexus", name: uuid, nexusUuid: null, sources });
      for (const { uri, statistics } of nexus.core.present()) {
        list.push({ kind: "child", name: uri, nexusUuid: uuid, sources: [statistics] });
      }
    }
    return list;
  }

  /** What nexuses of this reactor send to a replica as their child. */
  #asChild(replica: Bdev): IoStatistics[] {
    return this.#things.nexuses
      .all()
      .flatMap((nexus) => nexus.core.present())
      .filter(({ device }) => device?.bdev === replica)
      .map(({ statistics }) => statistics);
  }

  #pools(): Counted[] {
    const list: Counted[] = [];
    for (const pool of this.#things.replicas.pools.all()) {
      const ofPool: IoStatistics[] = [];
      for (const replica of pool.replicas()) {
        const sources = [...this.#shares.statisticsOf(replica), ...this.#asChild(replica)];
        list.push({ kind: "replica", name: replica.uuid, nexusUuid: null, sources });
        ofPool.push(...sources);
      }
      list.push({ kind: "pool", name: pool.name, nexusUuid: null, sources: ofPool });
    }
    return list;
  }

  #describe({ sources, ...counted }: Counted): IoStats {
    return {
      ...counted,
      read: opStats(sources, IoOp.READ),
      write: opStats(sources, IoOp.WRITE),
      flush: opStats(sources, IoOp.FLUSH),
      writeZeroes: opStats(sources, IoOp.WRITE_ZEROES),
      discard: opStats(sources, IoOp.DISCARD),
      reactor: this.#context.reactor.index,
    };
  }
}
