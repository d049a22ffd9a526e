/** The children of an open nexus: brought back, added, removed, so that they are the volume's replicas. */
import type { EngineNexus } from "../../cluster-state.ts";
import type { ReplicaRecord, VolumeRecord } from "../../model.ts";
import type { Work } from "../plan.ts";
import { CHILDREN_MAX } from "./limits.ts";
import type { Planning } from "./planning.ts";
import { engine, put, store, work } from "./steps.ts";
import { hostsOf, type OpenTarget, readiness } from "./target.ts";
import { replicaOfUri, sameHosts } from "./uris.ts";

type Child = EngineNexus["children"][number];

/** The child that stands for a replica. */
export function childOfReplica(nexus: EngineNexus, replica: ReplicaRecord): Child | undefined {
  return nexus.children.find(({ uri }) => replicaOfUri(uri) === replica.uuid);
}

/** It takes no part and waits for nothing: somebody has to bring it back. */
function isOut(child: Child, waiting: number, idle: number): boolean {
  if (child.state === "faulted") return true;
  if (child.state !== "degraded" || child.rebuild !== null) return false;
  // Children that wait for their rebuild look the same as those that were put out; counted they tell.
  return child.reason !== "out-of-sync" || waiting < idle;
}

export function planChildren(
  p: Planning,
  volume: VolumeRecord,
  { record, nexus }: OpenTarget,
): Work | null {
  const subject = `volume/${volume.uuid}`;
  const { uuid, nodeId } = record;
  const replicas = new Map(p.replicasOf(volume).map((replica) => [replica.uuid, replica]));
  const hosts = rehosted(p, [...replicas.values()], { record });
  if (hosts.length > 0) {
    return work(subject, store(`the nexus on ${nodeId} is to reach them`, hosts));
  }
  const running = nexus.children.filter(({ rebuild }) => rebuild !== null).length;
  const waiting = nexus.rebuilds - running;
  const idle = nexus.children.filter(
    (c) => c.state === "degraded" && c.rebuild === null && c.reason === "out-of-sync",
  ).length;
  for (const child of nexus.children) {
    const replica = replicas.get(replicaOfUri(child.uri) ?? "");
    if (replica === undefined || replica.status === "Deleting") {
      const input = { uuid, childUri: child.uri };
      const call = { method: "removeNexusChild", input } as const;
      return work(subject, engine(nodeId, call, "it is no replica of the volume", ["NotFound"]));
    }
  }
  for (const child of nexus.children) {
    if (!isOut(child, waiting, idle) || child.reason === "no-space") continue;
    const replica = replicas.get(replicaOfUri(child.uri)!)!;
    if (replica.uuid === volume.victimReplica) continue;
    const state = readiness(p, replica, record);
    if (state.kind !== "ready") continue;
    const input = { uuid, childUri: child.uri };
    if (state.uri !== child.uri) {
      const call = { method: "removeNexusChild", input } as const;
      return work(subject, engine(nodeId, call, "it has another address now", ["NotFound"]));
    }
    if (p.whyQueued(replica) !== null) continue;
    const call = { method: "onlineNexusChild", input } as const;
    return work(subject, engine(nodeId, call, `its replica is back (${child.reason})`));
  }
  const all = [...replicas.values()];
  return (
    awaited(volume, { record, nexus }) ??
    added(p, volume, all, { record, nexus }) ??
    resized(p, subject, all, { record, nexus }) ??
    listed(record, nexus, subject)
  );
}

/** The engine keeps the log of what is written for as many replicas as the volume is to have. */
function awaited(
  volume: VolumeRecord,
  { record, nexus }: { record: OpenTarget["record"]; nexus: EngineNexus },
): Work | null {
  const count = Math.min(volume.replicaCount, CHILDREN_MAX);
  if (nexus.wantedChildren === undefined || nexus.wantedChildren === count) return null;
  const call = { method: "wantNexusChildren", input: { uuid: record.uuid, count } } as const;
  const reason = `the volume is to have ${count} replicas`;
  return work(`volume/${volume.uuid}`, engine(record.nodeId, call, reason));
}

/** Replicas that are not served as they must be for this nexus. */
function rehosted(
  p: Planning,
  replicas: readonly ReplicaRecord[],
  { record }: { record: OpenTarget["record"] },
) {
  return replicas
    .filter(({ status }) => status === "Created")
    .flatMap((replica) => {
      const hosts = hostsOf(p, replica, record);
      if (sameHosts(replica.allowedHosts, hosts)) return [];
      return [put("replicas", { ...replica, allowedHosts: hosts })];
    });
}

/** A replica that the nexus does not know yet is added; it is rebuilt then. */
function added(
  p: Planning,
  volume: VolumeRecord,
  replicas: readonly ReplicaRecord[],
  { record, nexus }: { record: OpenTarget["record"]; nexus: EngineNexus },
): Work | null {
  if (nexus.children.length >= CHILDREN_MAX) return null;
  if (nexus.sizeBytes < record.sizeBytes) return null; // It is to grow first.
  for (const replica of replicas) {
    if (childOfReplica(nexus, replica) !== undefined) continue;
    if (replica.uuid === volume.victimReplica) continue;
    const state = readiness(p, replica, record);
    if (state.kind !== "ready" || p.whyQueued(replica) !== null) continue;
    const input = { uuid: record.uuid, childUri: state.uri };
    const call = { method: "addNexusChild", input } as const;
    const reason = `replica in ${replica.poolId} is to take part`;
    return work(`volume/${volume.uuid}`, engine(record.nodeId, call, reason, ["AlreadyExists"]));
  }
  return null;
}

/** Grows the nexus when the replicas that take part have grown. */
function resized(
  p: Planning,
  subject: string,
  replicas: readonly ReplicaRecord[],
  { record, nexus }: { record: OpenTarget["record"]; nexus: EngineNexus },
): Work | null {
  const { uuid, nodeId, sizeBytes } = record;
  if (nexus.sizeBytes >= sizeBytes || nexus.rebuilds > 0) return null;
  for (const replica of replicas) {
    if (childOfReplica(nexus, replica)?.state !== "online") continue;
    if ((p.replica(replica)?.sizeBytes ?? 0) < sizeBytes) return null;
  }
  const call = { method: "resizeNexus", input: { uuid, sizeBytes } } as const;
  return work(subject, engine(nodeId, call, "the volume has grown"));
}

/** Keeps the record's children as they are. */
function listed(record: OpenTarget["record"], nexus: EngineNexus, subject: string): Work | null {
  const uris = nexus.children.map(({ uri }) => uri);
  const known = record.children.map(({ uri }) => uri);
  if (uris.length === known.length && uris.every((uri) => known.includes(uri))) return null;
  const children = uris.map((uri) => ({ uri, replicaUuid: replicaOfUri(uri) }));
  return work(
    subject,
    store("its children have changed", [put("nexuses", { ...record, children })]),
  );
}
