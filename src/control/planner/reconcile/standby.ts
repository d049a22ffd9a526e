/**
 * Standbys: nodes beside that of the target where hosts are connected to a volume from the start (DESIGN 8).
 * Which there are is observed, not recorded: they are made, kept and removed so that each published volume
 * has the best nodes that can be had. Nothing is changed while the target itself is on its way, because
 * then they are what hosts have.
 */
import type { ClusterState, EngineNexus, EngineStandby } from "../../cluster-state.ts";
import type { NexusRecord, NodeId, NodeRecord, Uuid, VolumeRecord } from "../../model.ts";
import { controllerIdsOf } from "../decide/publish.ts";
import type { Step, Work } from "../plan.ts";
import { isNodeCordoned, isReplicaUsable } from "../status.ts";
import { STANDBY_CALL_MS, STANDBYS_PER_VOLUME } from "./limits.ts";
import type { Planning } from "./planning.ts";
import { engine, work } from "./steps.ts";
import { sameHosts } from "./uris.ts";

/** A standby and the node that has it. */
export interface SeenStandby {
  readonly nodeId: NodeId;
  readonly standby: EngineStandby;
}

type Observed = ClusterState["observed"];
const standbysOfObserved = new WeakMap<Observed, ReadonlyMap<Uuid, readonly SeenStandby[]>>();

/** Standbys by volume, on all nodes that answer. */
export function standbysByVolume(observed: Observed): ReadonlyMap<Uuid, readonly SeenStandby[]> {
  const known = standbysOfObserved.get(observed);
  if (known !== undefined) return known;
  const made = new Map<Uuid, SeenStandby[]>();
  for (const { id: nodeId, status, standbys } of observed.values()) {
    if (status !== "Online" || standbys === undefined) continue;
    for (const [uuid, standby] of standbys) {
      const list = made.get(uuid);
      if (list === undefined) made.set(uuid, [{ nodeId, standby }]);
      else list.push({ nodeId, standby });
    }
  }
  standbysOfObserved.set(observed, made);
  return made;
}

/** Host connections to the volume's standby on a node, as far as is known. */
export function hostsAt(p: Planning, volume: VolumeRecord, node: NodeRecord): number {
  const seen = standbysByVolume(p.state.observed)
    .get(volume.uuid)
    ?.find(({ nodeId, standby }) => nodeId === node.id && standby.state === "listening");
  return seen?.standby.controllers ?? 0;
}

/** Nodes in the order in which a target should come to them: those first where hosts are connected. */
export function preferConnected(
  p: Planning,
  volume: VolumeRecord,
  nodes: readonly NodeRecord[],
): NodeRecord[] {
  const isConnected = (node: NodeRecord): number => (hostsAt(p, volume, node) > 0 ? 0 : 1);
  return [...nodes].sort((a, b) => isConnected(a) - isConnected(b));
}

export function planStandbys(p: Planning, volume: VolumeRecord): Work | null {
  const have = standbysByVolume(p.state.observed).get(volume.uuid) ?? [];
  const { target } = volume;
  const record = target === null ? undefined : p.stored.nexuses.get(target.nexusUuid);
  if (volume.status !== "Created" || record === undefined || record.share !== "nvmf") {
    return removed(volume.uuid, have, "the volume is not served to hosts");
  }
  const nexus = servingNexus(p, record);
  if (nexus === undefined) return null;
  const wanted = wantedNodes(p, volume, record);
  for (const node of wanted) {
    const seen = have.find(({ nodeId }) => nodeId === node.id)?.standby;
    if (seen !== undefined && isAsWanted(seen, record, nexus, node)) continue;
    const reason = seen === undefined ? "hosts are to have another path" : "the volume has changed";
    return work(subjectOf(volume.uuid), creation(p, volume, record, nexus, node, reason));
  }
  const extra = have.filter(({ nodeId, standby }) => {
    const isWanted = wanted.some(({ id }) => id === nodeId);
    return standby.state === "listening" && !isWanted && nodeId !== record.nodeId;
  });
  return removed(volume.uuid, extra, "other nodes are better standbys");
}

function subjectOf(volumeUuid: Uuid): string {
  return `standby/${volumeUuid}`;
}

/** Standbys of a volume that nobody knows. */
export function planOrphanStandbys(p: Planning, volumeUuid: Uuid): Work | null {
  const have = standbysByVolume(p.state.observed).get(volumeUuid) ?? [];
  return removed(volumeUuid, have, "there is no such volume");
}

/** One after the other: a node that does not answer keeps its own only until the next attempt. */
function removed(volumeUuid: Uuid, have: readonly SeenStandby[], reason: string): Work | null {
  const steps = have.map(({ nodeId }) => {
    const call = { method: "removeStandby", input: { volumeUuid } } as const;
    return engine(nodeId, call, reason, ["NotFound"], STANDBY_CALL_MS);
  });
  return steps.length === 0 ? null : work(subjectOf(volumeUuid), ...steps);
}

/** The nexus when hosts can use it as recorded. */
function servingNexus(p: Planning, record: NexusRecord): EngineNexus | undefined {
  if (record.status !== "Created" || record.phase !== "Open") return undefined;
  const nexus = p.nexus(record);
  const isServing =
    nexus !== undefined &&
    nexus.epoch === record.epoch &&
    nexus.state !== "shutdown" &&
    nexus.state !== "shutting-down" &&
    nexus.shares.some(({ protocol }) => protocol === "nvmf");
  return isServing ? nexus : undefined;
}

/** A target that was published before nodes had ranges of their own gets standbys with its next move. */
function hasOwnIds(p: Planning, record: NexusRecord): boolean {
  const node = p.stored.nodes.get(record.nodeId);
  if (node === undefined) return false;
  const { min, max } = controllerIdsOf(node);
  return record.controllerIds.min === min && record.controllerIds.max === max;
}

/** Nodes that are to be standbys: with a healthy replica first (they can serve best), then those that are. */
export function wantedNodes(p: Planning, volume: VolumeRecord, record: NexusRecord): NodeRecord[] {
  // Nothing is promised while the target keeps the ids of an older version.
  if (!hasOwnIds(p, record)) return [];
  const holders = new Set(
    p
      .replicasOf(volume)
      .filter((replica) => isReplicaUsable(p.state, replica))
      .map(({ nodeId }) => nodeId),
  );
  const rank = (node: NodeRecord): number =>
    (holders.has(node.id) ? 0 : 2) + (p.online(node.id)?.standbys?.has(volume.uuid) ? 0 : 1);
  return [...p.stored.nodes.values()]
    .filter((node) => node.id !== record.nodeId && !isNodeCordoned(node))
    .filter((node) => p.online(node.id)?.standbys !== undefined)
    .sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1))
    .slice(0, STANDBYS_PER_VOLUME);
}

function isAsWanted(
  seen: EngineStandby,
  record: NexusRecord,
  nexus: EngineNexus,
  node: NodeRecord,
): boolean {
  const { min, max } = controllerIdsOf(node);
  return (
    seen.state === "listening" &&
    seen.sizeBytes === nexus.sizeBytes &&
    seen.blockSize === nexus.blockSize &&
    seen.controllerIds.min === min &&
    seen.controllerIds.max === max &&
    sameHosts(seen.allowedHosts ?? [], record.allowedHosts)
  );
}

function creation(
  p: Planning,
  volume: VolumeRecord,
  record: NexusRecord,
  nexus: EngineNexus,
  node: NodeRecord,
  reason: string,
): Step {
  const own = p.replicasOf(volume).find((r) => r.nodeId === node.id && r.status === "Created");
  const input = {
    volumeUuid: volume.uuid,
    sizeBytes: nexus.sizeBytes,
    blockSize: nexus.blockSize as 512 | 4096,
    controllerIds: controllerIdsOf(node),
    ...(record.allowedHosts.length === 0 ? {} : { allowedHosts: [...record.allowedHosts] }),
    ...(own === undefined ? {} : { replicaUuid: own.uuid }),
  };
  const call = { method: "createStandby", input } as const;
  return engine(node.id, call, reason, ["NotFound"], STANDBY_CALL_MS);
}

/**
 * Before a former target is closed its subsystem is told to stay: hosts keep their connections and are
 * sent to the volume's other paths. Null: there is nothing that could stay, or it has failed before.
 */
export function stayStep(p: Planning, former: NexusRecord): Step | null {
  const volume = former.volumeUuid === null ? undefined : p.stored.volumes.get(former.volumeUuid);
  const node = p.stored.nodes.get(former.nodeId);
  const target = volume?.target ?? null;
  if (volume === undefined || node === undefined || target === null) return null;
  const record = p.stored.nexuses.get(target.nexusUuid);
  if (volume.status !== "Created" || target.nexusUuid === former.uuid) return null;
  if (record === undefined || record.share !== "nvmf" || former.share !== "nvmf") return null;
  const nexus = p.nexus(former);
  const hasPath = nexus?.shares.some(({ protocol }) => protocol === "nvmf") === true;
  if (!hasPath || p.online(node.id)?.standbys === undefined) return null;
  if (!hasOwnIds(p, former) || p.failures.has(`nexus/${former.uuid}`)) return null;
  return creation(p, volume, record, nexus, node, "hosts are to keep their connections");
}
