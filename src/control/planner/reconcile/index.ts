/**
 * Reconciliation: what is to be done next so that the cluster becomes what the store says. Pure: the
 * state goes in, works and warnings come out; planning again after any step, finished or not, goes on
 * from what is found. Imports planner modules and types only.
 *
 * What is done for a subject holds the *next* steps only, as far as nothing has to be looked at in
 * between. Data is destroyed only for records that are `Deleting`, which an earlier transaction made
 * so, and for replicas that nobody has recorded and that provably hold nothing (`garbage.ts`).
 */
import type { ClusterState } from "../../cluster-state.ts";
import type { Plan, Warning, Work } from "../plan.ts";
import { volumeOfScrubKey } from "../scrub-record.ts";

import { planAttention } from "./attention.ts";
import { planGarbage, planOrphan } from "./garbage.ts";
import { planNexus } from "./nexuses.ts";
import { planNode } from "./nodes.ts";
import { type Failures, noFailures, Planning } from "./planning.ts";
import { planOrphanPool, planPool } from "./pools.ts";
import { planReplica } from "./replicas.ts";
import { planForgottenScrub, planScrub } from "./scrubs.ts";
import { planSnapshot } from "./snapshots.ts";
import { planOrphanStandbys, planStandbys, standbysByVolume } from "./standby.ts";
import { planVolume } from "./volumes.ts";

export { type Path, pathsOf } from "./paths.ts";
export { type Failures, noFailures, type SubjectFailure } from "./planning.ts";

/** The work of one subject, with what planning it has shown. */
export interface SubjectPlan {
  /** Null: there is nothing to do, or nothing can be done now. */
  readonly work: Work | null;
  readonly warnings: readonly Warning[];
  readonly wakeAtMs: number | null;
}

function planOne(p: Planning, subject: string): Work | null {
  const slash = subject.indexOf("/");
  const key = subject.slice(slash + 1);
  const { stored } = p;
  switch (subject.slice(0, slash)) {
    case "node": {
      const node = stored.nodes.get(key);
      return node === undefined ? null : planNode(p, node);
    }
    case "pool": {
      const pool = stored.pools.get(key);
      return pool === undefined ? planOrphanPool(p, key) : planPool(p, pool);
    }
    case "replica": {
      const replica = stored.replicas.get(key);
      return replica === undefined ? planOrphan(p, "replica", key) : planReplica(p, replica);
    }
    case "nexus": {
      const nexus = stored.nexuses.get(key);
      return nexus === undefined ? planOrphan(p, "nexus", key) : planNexus(p, nexus);
    }
    case "snapshot": {
      const snapshot = stored.snapshots.get(key);
      return snapshot === undefined ? null : planSnapshot(p, snapshot);
    }
    case "volume": {
      const volume = stored.volumes.get(key);
      return volume === undefined ? null : planVolume(p, volume);
    }
    case "standby": {
      const volume = stored.volumes.get(key);
      return volume === undefined ? planOrphanStandbys(p, key) : planStandbys(p, volume);
    }
    case "scrub": {
      const volume = stored.volumes.get(key);
      return volume === undefined ? planForgottenScrub(p, key) : planScrub(p, volume);
    }
    default:
      return null;
  }
}

/** What is to be done next for one subject (`volume/<uuid>`, ...). */
export function planFor(
  state: ClusterState,
  subject: string,
  failures: Failures = noFailures,
): SubjectPlan {
  const p = new Planning(state, failures);
  const work = planOne(p, subject);
  return { work, warnings: p.warnings, wakeAtMs: p.wakeAtMs };
}

/** What is to be done next for everything. */
export function plan(state: ClusterState, failures: Failures = noFailures): Plan {
  const p = new Planning(state, failures);
  const works: Work[] = [];
  const add = (next: Work | null): void => {
    if (next !== null) works.push(next);
  };
  const { stored } = state;
  for (const pool of stored.pools.values()) add(planPool(p, pool));
  for (const replica of stored.replicas.values()) add(planReplica(p, replica));
  for (const nexus of stored.nexuses.values()) add(planNexus(p, nexus));
  for (const volume of stored.volumes.values()) add(planVolume(p, volume));
  for (const volume of stored.volumes.values()) add(planStandbys(p, volume));
  for (const volume of stored.volumes.values()) add(planScrub(p, volume));
  for (const key of stored.settings.keys()) {
    const uuid = volumeOfScrubKey(key);
    if (uuid !== undefined && !stored.volumes.has(uuid)) add(planForgottenScrub(p, uuid));
  }
  for (const uuid of standbysByVolume(state.observed).keys()) {
    if (!stored.volumes.has(uuid)) add(planOrphanStandbys(p, uuid));
  }
  for (const snapshot of stored.snapshots.values()) add(planSnapshot(p, snapshot));
  for (const node of stored.nodes.values()) add(planNode(p, node));
  works.push(...planGarbage(p));
  planAttention(p);
  return { works, warnings: p.warnings, wakeAtMs: p.wakeAtMs };
}
