/**
 * GetCapacity: what volumes of a class still have room for (never what there is in total), by the rules
 * of the cluster's own placement (mayastor.md 5.1): pools that can take replicas, the labels that the
 * class asks for, what thick replicas have reserved, how far thin ones may be promised.
 */
import type { LabelledTopology, Labels, Node, Pool, Settings } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import { type VolumeClass, volumeClassOf } from "../class-parameters.ts";
import type { GetCapacityRequest } from "../generated/csi_pb.js";
import { TOPOLOGY_CSI_NODE, TOPOLOGY_CSI_NODE_VALUE, TOPOLOGY_NODE } from "../names.ts";
import { checkCapabilities } from "./capabilities.ts";
import { bytes, type ControllerParts } from "./parts.ts";

/** Rooms in bytes. */
export interface Room {
  /** For volumes of the class altogether. */
  readonly availableBytes: number;
  /** For the largest single volume. */
  readonly largestBytes: number;
}

const nowhere: Room = { availableBytes: 0, largestBytes: 0 };

function isCordoned({ spec }: Node): boolean {
  const cordons = spec?.cordondrainstate;
  return (
    cordons?.cordonedstate != null ||
    cordons?.drainingstate != null ||
    cordons?.drainedstate != null
  );
}

function hasLabels(
  labels: Labels,
  { inclusion, exclusion, affinity_key }: LabelledTopology,
): boolean {
  const included = Object.entries(inclusion).every(([key, value]) =>
    value === "" ? labels[key] !== undefined : labels[key] === value,
  );
  const notExcluded = Object.entries(exclusion).every(([key, value]) =>
    value === "" ? labels[key] !== undefined : labels[key] !== value,
  );
  return included && notExcluded && (affinity_key ?? []).every((key) => labels[key] !== undefined);
}

/** The pool may take a replica of a volume of the class. */
function isEligible(pool: Pool, node: Node, { topology }: VolumeClass): boolean {
  const status = pool.state?.status;
  if (pool.spec?.status !== "Created" || (status !== "Online" && status !== "Degraded"))
    return false;
  if (node.state?.status !== "Online" || isCordoned(node) || pool.spec.cordoned === true)
    return false;
  const { node_topology: onNodes, pool_topology: onPools } = topology ?? {};
  if (onPools != null && !hasLabels(pool.spec.labels ?? {}, onPools.labelled)) return false;
  return (
    onNodes == null ||
    !("labelled" in onNodes) ||
    hasLabels(node.spec?.labels ?? {}, onNodes.labelled)
  );
}

function percent(settings: Settings, name: string, otherwise: number): number {
  const value = settings[name];
  return typeof value === "number" ? value : otherwise;
}

/** Bytes that the pool has for replicas of the class. */
function roomOf({ state }: Pool, { thin }: VolumeClass, settings: Settings): number {
  if (state == null) return 0;
  const free = Math.max(0, state.capacity - state.used);
  if (!thin) return free;
  const promised = (percent(settings, "poolCommitmentPercent", 250) * state.capacity) / 100;
  const unpromised = Math.max(0, promised - (state.committed ?? state.used));
  const spare = percent(settings, "volumeCommitmentInitialPercent", 40);
  const coverable = spare === 0 ? Number.POSITIVE_INFINITY : (free * 100) / spare;
  return Math.floor(Math.min(state.capacity, unpromised, coverable));
}

/** The node lies in the segment; keys that are not of nodes' labels are those of the driver. */
function isIn(node: Node, segments: Labels): boolean {
  return Object.entries(segments).every(([key, value]) => {
    if (key === TOPOLOGY_NODE) return node.id === value;
    if (key === TOPOLOGY_CSI_NODE) return value === TOPOLOGY_CSI_NODE_VALUE;
    return node.spec?.labels?.[key] === value;
  });
}

/**
 * The room that a cluster has for volumes of a class, each with a replica in the segments when these are
 * given. Replicas of one volume lie on different nodes.
 */
export function roomFor(
  volumeClass: VolumeClass,
  segments: Labels,
  cluster: {
    readonly pools: readonly Pool[];
    readonly nodes: readonly Node[];
    readonly settings: Settings;
  },
): Room {
  const nodes = new Map(cluster.nodes.map((node) => [node.id, node]));
  /** Best pool and sum of each node, those in the segments apart from the others. */
  const inside = new Map<string, { best: number; sum: number }>();
  const all = new Map<string, { best: number; sum: number }>();
  for (const pool of cluster.pools) {
    const node = nodes.get(pool.spec?.node ?? pool.state?.node ?? "");
    if (node === undefined || !isEligible(pool, node, volumeClass)) continue;
    const room = roomOf(pool, volumeClass, cluster.settings);
    for (const map of isIn(node, segments) ? [inside, all] : [all]) {
      const { best, sum } = map.get(node.id) ?? { best: 0, sum: 0 };
      map.set(node.id, { best: Math.max(best, room), sum: sum + room });
    }
  }
  const { replicas } = volumeClass;
  if (inside.size === 0 || all.size < replicas) return nowhere;
  const [chosen, first] = [...inside].sort(([, a], [, b]) => b.best - a.best)[0]!;
  const others = [...all].filter(([id]) => id !== chosen).map(([, { best }]) => best);
  others.sort((a, b) => b - a);
  const largestBytes = Math.min(first.best, ...others.slice(0, replicas - 1));
  const total = (map: typeof all) => [...map.values()].reduce((sum, one) => sum + one.sum, 0);
  const availableBytes = Math.min(total(inside), Math.floor(total(all) / replicas));
  return { availableBytes, largestBytes };
}

/** Answers GetCapacity. Throws `InvalidArgument`. */
export async function getCapacity({ client }: ControllerParts, request: GetCapacityRequest) {
  if (request.volumeCapabilities.length > 0) {
    try {
      checkCapabilities(request.volumeCapabilities);
    } catch (error) {
      // No room at all for what cannot be had.
      if (!(error instanceof TrilithError)) throw error;
      return { availableCapacity: 0n };
    }
  }
  const volumeClass = volumeClassOf(request.parameters, "storage class");
  const segments = request.accessibleTopology?.segments ?? {};
  const [pools, nodes, settings] = await Promise.all([
    client.pools(),
    client.nodes(),
    client.settings(),
  ]);
  const room = roomFor(volumeClass, segments, { pools, nodes, settings });
  return {
    availableCapacity: bytes(room.availableBytes),
    maximumVolumeSize: bytes(room.largestBytes),
  };
}
