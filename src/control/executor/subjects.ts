/** Which subjects are to be planned again when a record or an observation has changed. */
import type { StoreView } from "../cluster-state.ts";
import type { Work } from "../planner/plan.ts";
import { volumeOfScrubKey } from "../planner/scrub-record.ts";

/** What a change asks for: these subjects, or everything. */
export interface Affected {
  readonly subjects: ReadonlySet<string>;
  readonly all: boolean;
}

/** By the names (`<table>/<key>`) of records that a transaction touched. `before` knows those it removed. */
export function affectedBy(
  touched: ReadonlySet<string>,
  before: StoreView,
  after: StoreView,
): Affected {
  const subjects = new Set<string>();
  let all = false;
  const withVolume = (record: { readonly volumeUuid: string | null } | undefined): void => {
    if (record?.volumeUuid == null) return;
    subjects.add(`volume/${record.volumeUuid}`).add(`standby/${record.volumeUuid}`);
  };
  const withReplica = (uuid: string): void => {
    const now = after.replicas.get(uuid);
    const former = before.replicas.get(uuid);
    subjects.add(`replica/${uuid}`);
    withVolume(now ?? former);
    // A node that is evacuated waits for its last replica to be gone.
    if (now === undefined && former !== undefined) subjects.add(`node/${former.nodeId}`);
  };
  for (const name of touched) {
    const slash = name.indexOf("/");
    const key = name.slice(slash + 1);
    switch (name.slice(0, slash)) {
      case "volumes":
        subjects.add(`volume/${key}`).add(`standby/${key}`).add(`scrub/${key}`);
        for (const uuid of after.replicasOfVolume.get(key) ?? []) subjects.add(`replica/${uuid}`);
        for (const uuid of after.nexusesOfVolume.get(key) ?? []) subjects.add(`nexus/${uuid}`);
        break;
      case "replicas":
        withReplica(key);
        break;
      case "nexuses": {
        const nexus = after.nexuses.get(key) ?? before.nexuses.get(key);
        subjects.add(`nexus/${key}`);
        withVolume(nexus);
        // A node that is drained waits for what it serves to be gone.
        if (nexus !== undefined) subjects.add(`node/${nexus.nodeId}`);
        // What a nexus uses waits for its end.
        for (const uuid of after.replicasOfVolume.get(nexus?.volumeUuid ?? "") ?? []) {
          subjects.add(`replica/${uuid}`);
        }
        break;
      }
      case "snapshots":
        subjects.add(`snapshot/${key}`);
        withVolume(after.snapshots.get(key) ?? before.snapshots.get(key));
        break;
      case "pools":
        subjects.add(`pool/${key}`);
        break;
      case "nodes":
        subjects.add(`node/${key}`);
        all = true;
        break;
      case "settings":
        if (volumeOfScrubKey(key) !== undefined) subjects.add(key);
        else if (!key.startsWith("nexus-record/")) all = true;
        break;
      default:
        break;
    }
  }
  return { subjects, all };
}

/** By what an engine reports otherwise than before. */
export function affectedByNode(
  change: {
    readonly isWhole: boolean;
    readonly pools: readonly string[];
    readonly replicas: readonly string[];
    readonly snapshots: readonly string[];
    readonly nexuses: readonly string[];
    readonly standbys: readonly string[];
  },
  view: StoreView,
): Affected {
  const subjects = new Set<string>();
  for (const id of change.pools) subjects.add(`pool/${id}`);
  for (const uuid of change.replicas) {
    subjects.add(`replica/${uuid}`);
    const volume = view.replicas.get(uuid)?.volumeUuid;
    if (volume != null) subjects.add(`volume/${volume}`);
  }
  for (const uuid of change.nexuses) {
    subjects.add(`nexus/${uuid}`);
    const volume = view.nexuses.get(uuid)?.volumeUuid;
    if (volume != null) {
      subjects.add(`volume/${volume}`).add(`standby/${volume}`).add(`scrub/${volume}`);
    }
  }
  // A target that is away may wait for hosts to be connected to a standby.
  for (const uuid of change.standbys) subjects.add(`standby/${uuid}`).add(`volume/${uuid}`);
  if (change.snapshots.length > 0) {
    const changed = new Set(change.snapshots);
    for (const { uuid, replicas } of view.snapshots.values()) {
      if (replicas.some((replica) => changed.has(replica.uuid))) subjects.add(`snapshot/${uuid}`);
    }
  }
  return { subjects, all: change.isWhole };
}

/** Nodes whose engines a work calls. */
export function nodesOf({ steps, cleanup = [] }: Work): ReadonlySet<string> {
  const nodes = new Set<string>();
  for (const step of [...steps, ...cleanup]) if (step.kind === "engine") nodes.add(step.nodeId);
  return nodes;
}

/** What a work does, without the ids it does it with: equal for two attempts at the same thing. */
export function kindOf({ steps }: Work): string {
  return steps
    .map((step) => (step.kind === "engine" ? `${step.nodeId} ${step.call.method}` : step.reason))
    .join("; ");
}
