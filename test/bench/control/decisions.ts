/** What single decisions cost in a large cluster: each on a state that no decision has seen. */
import type { ClusterState } from "../../../src/control/cluster-state.ts";
import type { CreateVolumeRequest } from "../../../src/control/control.ts";
import type { LabelledTopology } from "../../../src/control/model.ts";
import {
  createVolume,
  decisionUuids,
  placementOf,
  publishVolume,
  setReplicaCount,
} from "../../../src/control/planner/decide/index.ts";
import { placeReplicas } from "../../../src/control/planner/placement/place.ts";
import {
  replicasOf,
  volumeHealth,
  volumeStatus,
  volumeUsage,
} from "../../../src/control/planner/status.ts";
import { defaultSettings, PlannedCluster, testUuid } from "../../support/planned-cluster.ts";
import type { Bench, Group } from "../bench.ts";
import { median, plainRow } from "../rows.ts";
import { largeCluster, observedEngines } from "./large-cluster.ts";
import { DECISIONS, LARGE_POOLS, LARGE_PUBLISHED, LARGE_VOLUMES, PLACEMENTS } from "./limits.ts";

const size = `${LARGE_POOLS} pools, ${LARGE_VOLUMES} volumes`;
const names = {
  create: `control: decision to create a volume, ${size}`,
  spread: `control: the same, spread over a label`,
  scale: `control: decision to add a replica, ${size}`,
  publish: `control: decision to publish, ${size}`,
  places: `control: ${PLACEMENTS} placements in one pass, ${size}`,
  statuses: `control: status, health and usage of ${LARGE_VOLUMES} volumes`,
} as const;

/** The cluster at rest. Its nodes have a label to spread over. */
function stateOfLarge(): ClusterState {
  const cluster = new PlannedCluster();
  const { nodes, pools, volumes, replicas, nexuses } = largeCluster();
  cluster.put(
    ...nodes.map((put) => ({ table: "nodes", put }) as const),
    ...pools.map((put) => ({ table: "pools", put }) as const),
    ...volumes.map((put) => ({ table: "volumes", put }) as const),
    ...replicas.map((put) => ({ table: "replicas", put }) as const),
    ...nexuses.map((put) => ({ table: "nexuses", put }) as const),
  );
  return {
    nowMs: cluster.nowMs,
    settings: defaultSettings,
    stored: cluster.stored,
    observed: observedEngines(largeCluster(), cluster.nowMs),
  };
}

function newVolume(labels: LabelledTopology | null): CreateVolumeRequest {
  return {
    uuid: testUuid(1),
    sizeBytes: 2 ** 30,
    replicaCount: 3,
    thin: true,
    selfHeal: true,
    topology: labels === null ? null : { node: { labelled: labels }, pool: null },
    labels: {},
    affinityGroup: null,
    maxSnapshots: null,
  };
}

/** Median of `times` runs in milliseconds; each has a state of its own, as each request has. */
function medianMs(
  state: ClusterState,
  times: number,
  decide: (state: ClusterState, at: number) => unknown,
): number {
  const tookMs: number[] = [];
  for (let at = 0; at < times; at += 1) {
    const own = { ...state };
    const startMs = performance.now();
    decide(own, at);
    tookMs.push(performance.now() - startMs);
  }
  return median(tookMs);
}

async function run(bench: Bench): Promise<void> {
  const state = stateOfLarge();
  const uuids = Array.from({ length: decisionUuids }, (_, at) => testUuid(at + 2));
  const unpublished = [...state.stored.volumes.values()].slice(LARGE_PUBLISHED);
  const spread = { inclusion: {}, exclusion: { zone: "" }, affinityKey: [] };
  const all = [...state.stored.volumes.values()];
  const measured: Record<keyof typeof names, () => number> = {
    create: () => medianMs(state, DECISIONS, (own) => createVolume(own, newVolume(null), uuids)),
    spread: () => medianMs(state, DECISIONS, (own) => createVolume(own, newVolume(spread), uuids)),
    scale: () =>
      medianMs(state, DECISIONS, (own, at) =>
        setReplicaCount(own, unpublished[at]!.uuid, 4, null, uuids),
      ),
    publish: () =>
      medianMs(state, DECISIONS, (own, at) => {
        const { uuid } = unpublished[at]!;
        const how = { reuseExisting: false, republish: false, frontendNode: null };
        return publishVolume(own, { uuid, publishContext: {}, nodeId: null, ...how }, uuids);
      }),
    places: () =>
      medianMs(state, 5, (own) => {
        for (const volume of all.slice(0, PLACEMENTS)) {
          const staying = replicasOf(own, volume.uuid).slice(1);
          placeReplicas(own, placementOf(own, volume, 1, staying, 0));
        }
      }),
    statuses: () =>
      medianMs(state, 5, (own) => {
        for (const volume of all) {
          volumeStatus(own, volume);
          volumeHealth(own, volume);
          volumeUsage(own, volume);
        }
      }),
  };
  for (const [key, name] of Object.entries(names)) {
    if (!bench.wants(name)) continue;
    const aim = key === "places" ? { aim: { atMost: 200 } } : {};
    const value = measured[key as keyof typeof names]();
    bench.add(plainRow({ case: name, unit: "ms", ...aim }, value));
  }
}

export const decisions: Group = { rows: Object.values(names), run };
