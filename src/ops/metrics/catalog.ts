/** Every metric that can be exported: what dashboards, alert rules and documents may name. */
import { clusterMetrics } from "./cluster.ts";
import { controlMetrics } from "./control.ts";
import type { MetricDefinition } from "./definition.ts";
import { engineMetrics, reactorMetrics } from "./engine-process.ts";
import { ioOfPools, ioOfReplicas, ioOfVolumes } from "./io.ts";
import { poolMetrics } from "./pools.ts";
import { processMetrics } from "./process.ts";
import { raftMetrics } from "./raft.ts";
import { scrubMetrics } from "./scrubs.ts";
import { nexusMetrics, rebuildMetrics } from "./volumes.ts";

type Group = Readonly<Record<string, MetricDefinition>>;

const groups: readonly Group[] = [
  poolMetrics,
  ioOfPools,
  ioOfVolumes,
  ioOfReplicas,
  nexusMetrics,
  rebuildMetrics,
  engineMetrics,
  reactorMetrics,
  clusterMetrics,
  scrubMetrics,
  raftMetrics,
  controlMetrics,
  processMetrics,
];

export const catalog: readonly MetricDefinition[] = groups.flatMap((group) => Object.values(group));

/** Names that samples can have: a histogram has three. */
export function sampleNames({ name, type }: MetricDefinition): string[] {
  return type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name];
}
