/**
 * How long a host waits when something fails or moves: the longest time between two acknowledged writes
 * of 4 KiB, one at a time, by a host that is connected over all paths and tries the next one when one fails.
 */
import type { ClusterNode } from "../../support/cluster.ts";
import { PathHost } from "../../support/path-hosts.ts";
import type { Bench, Group } from "../bench.ts";
import { type Aim, median, plainRow } from "../rows.ts";
import { PAUSE_POOL_BYTES, PAUSE_ROUNDS, PAUSE_VOLUME_BYTES, PAUSE_WRITES } from "./limits.ts";
import { withCluster } from "./nodes.ts";
import { PublishedVolume } from "./published.ts";

interface Fault {
  readonly name: string;
  readonly aim?: Aim;
  /** Strikes the target's node, or another one with a replica. */
  readonly of: "target" | "replica";
  strike(node: ClusterNode): Promise<void> | void;
  mend(node: ClusterNode): Promise<void> | void;
}

const killed = {
  strike: (node: ClusterNode) => node.kill(),
  mend: (node: ClusterNode) => node.start(),
};
const stopped = {
  strike: (node: ClusterNode) => node.pause(),
  mend: (node: ClusterNode) => node.resume(),
};

function faultsOf(volume: PublishedVolume): readonly Fault[] {
  const { rest } = volume.cluster;
  const drained = {
    async strike({ name }: ClusterNode) {
      await rest.drainNode(name, "bench", false);
      const isMoved = "the target elsewhere";
      await volume.until(isMoved, ({ state }) => (state.target?.node ?? name) !== name);
    },
    async mend({ name }: ClusterNode) {
      await rest.uncordonNode(name, "bench");
    },
  };
  return [
    { name: names.drain, of: "target", aim: { atMost: 200 }, ...drained },
    { name: names.killReplica, of: "replica", aim: { atMost: 1_000 }, ...killed },
    { name: names.killTarget, of: "target", aim: { atMost: 3_000 }, ...killed },
    { name: names.stopReplica, of: "replica", ...stopped },
    { name: names.stopTarget, of: "target", ...stopped },
  ];
}

const names = {
  drain: "pause of a host: drain of the target's node",
  killReplica: "pause of a host: kill -9 of a replica's node",
  killTarget: "pause of a host: kill -9 of the target's node",
  stopReplica: "pause of a host: SIGSTOP of a replica's node",
  stopTarget: "pause of a host: SIGSTOP of the target's node (keep-alive of paths 5 s)",
} as const;

async function measure(volume: PublishedVolume, host: PathHost, fault: Fault): Promise<number> {
  const target = await volume.target();
  const others = volume.cluster.nodes.filter((one) => one !== target);
  const node = fault.of === "target" ? target : others[0]!;
  await host.writes(PAUSE_WRITES);
  host.takeGapMs();
  await fault.strike(node);
  if (fault.of === "replica") {
    await volume.until("a copy less", ({ state }) => state.status === "Degraded");
  }
  await host.writes(PAUSE_WRITES);
  const gapMs = host.takeGapMs();
  await fault.mend(node);
  await volume.isReady();
  return gapMs;
}

async function run(bench: Bench): Promise<void> {
  await withCluster(bench, async (cluster) => {
    for (const node of cluster.nodes) {
      await cluster.createPool(node, `pool-${node.name}`, PAUSE_POOL_BYTES);
    }
    const volume = new PublishedVolume(cluster, cluster.nodes.length);
    await volume.publish(PAUSE_VOLUME_BYTES);
    const writers = (await volume.paths()).map(({ uri }) => uri);
    const host = new PathHost({ writers, readers: [] });
    try {
      for (const fault of faultsOf(volume)) {
        if (!bench.wants(fault.name)) continue;
        const gaps: number[] = [];
        for (let n = 0; n < PAUSE_ROUNDS; n++) gaps.push(await measure(volume, host, fault));
        const frame = { case: fault.name, unit: "ms" };
        const { aim } = fault;
        bench.add(plainRow(aim === undefined ? frame : { ...frame, aim }, median(gaps)));
      }
    } finally {
      host.end();
    }
  });
}

export const pauses: Group = { rows: Object.values(names), run };
