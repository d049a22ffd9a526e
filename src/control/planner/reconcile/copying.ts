/**
 * Copies for volumes that nobody uses: a replica that lacks data is brought up to date by a nexus of its
 * own, which no host can reach and which is closed when that is done. A publication meanwhile takes its
 * place like that of any former nexus.
 */
import type { NexusRecord, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import { faultedChildWaitMs } from "../patience.ts";
import type { Work } from "../plan.ts";
import { isNodeCordoned } from "../status.ts";
import { derivedUuid } from "./derived-uuid.ts";
import { isBegun, type Planning } from "./planning.ts";
import { put, store, work } from "./steps.ts";
import { isServing, type OpenTarget } from "./target.ts";

/** The nexus that copies for a volume without target, if there is one. */
export function copyingNexus(p: Planning, volume: VolumeRecord): NexusRecord | undefined {
  return p.nexusesOf(volume).find(({ phase }) => phase === "Open");
}

function isThere(p: Planning, replica: ReplicaRecord): boolean {
  const observed = replica.status === "Created" ? p.replica(replica) : undefined;
  return observed !== undefined && isServing(observed);
}

/** Replicas that can be reached and lack data, for long enough or since they were made. */
function lacking(p: Planning, volume: VolumeRecord): ReplicaRecord[] {
  return p.replicasOf(volume).filter((replica) => {
    if (replica.healthy || !isThere(p, replica)) return false;
    if (replica.faultedAtMs === null) return true;
    const untilMs = replica.faultedAtMs + faultedChildWaitMs(p.state, volume.uuid);
    if (p.nowMs >= untilMs) return true;
    p.wakeAt(untilMs);
    return false;
  });
}

/** Where to copy: on a node with a healthy replica, so that one side of it is local. */
function placeOf(p: Planning, volume: VolumeRecord): string | null {
  const holders = p.replicasOf(volume).filter((one) => one.healthy && isThere(p, one));
  const rank = ({ nodeId }: ReplicaRecord): number => {
    const node = p.stored.nodes.get(nodeId);
    return node === undefined || isNodeCordoned(node) ? 1 : 0;
  };
  holders.sort((a, b) => rank(a) - rank(b) || (a.uuid < b.uuid ? -1 : 1));
  return holders[0]?.nodeId ?? null;
}

/** Begins to copy when a replica lacks data and another has it. */
export function beginCopy(p: Planning, volume: VolumeRecord): Work | null {
  if (p.nexusesOf(volume).some(({ nodeId }) => !p.isGone(nodeId))) return null;
  if (p.snapshotsOf(volume).some(isBegun) || lacking(p, volume).length === 0) return null;
  const nodeId = placeOf(p, volume);
  if (nodeId === null) return null;
  if (lacking(p, volume).every((replica) => p.whyQueued(replica) !== null)) return null;
  const epoch = volume.epoch + 1;
  const nexus: NexusRecord = {
    revision: 0,
    uuid: derivedUuid("nexus", volume.uuid, epoch),
    volumeUuid: volume.uuid,
    name: volume.uuid,
    nodeId,
    sizeBytes: deviceBytes(volume.sizeBytes),
    epoch,
    children: [],
    status: "Creating",
    phase: "Open",
    share: "none",
    allowedHosts: [],
    controllerIds: { min: 1, max: 1 },
    createdAtMs: p.nowMs,
  };
  const changes = [put("volumes", { ...volume, epoch }), put("nexuses", nexus)];
  return work(`volume/${volume.uuid}`, store("a replica lacks data: it is copied", changes));
}

/** Closes the copying nexus: when it has done all it can, or cannot be reached. */
export function endCopy(
  p: Planning,
  volume: VolumeRecord,
  record: NexusRecord,
  open: OpenTarget | null,
): Work | null {
  const isBusy = open === null ? !p.isGone(record.nodeId) : open.nexus.rebuilds > 0;
  if (isBusy || (open !== null && lacking(p, volume).length > 0)) return null;
  const reason =
    open === null ? "its node is away" : "every replica that is there holds everything";
  const changes = [put("nexuses", { ...record, phase: "Shutdown" as const })];
  return work(`volume/${volume.uuid}`, store(reason, changes));
}
