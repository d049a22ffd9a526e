/** Replicas as children of a nexus: their URIs, and back. */
import type { EngineReplica } from "../../cluster-state.ts";
import type { NodeId, ReplicaRecord, Uuid } from "../../model.ts";

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;

/**
 * UUID of the replica behind a child's URI (`bdev:///<uuid>`, `nvmf+tcp://.../nqn...:<uuid>?uuid=<uuid>`);
 * null for a device that is not addressed as replicas are.
 */
export function replicaOfUri(uri: string): Uuid | null {
  const scheme = /^(bdev:\/\/\/|nvmf\+tcp:\/\/)/.exec(uri)?.[0];
  if (scheme === undefined) return null;
  const named = /[?&]uuid=([0-9a-f-]{36})/.exec(uri)?.[1];
  return named ?? UUID.exec(uri.slice(scheme.length))?.[0] ?? null;
}

/** URI under which a nexus of `nodeId` opens a replica; undefined while it is not served to it. */
export function childUri(
  record: ReplicaRecord,
  observed: EngineReplica,
  nodeId: NodeId,
): string | undefined {
  if (record.nodeId === nodeId) return `bdev:///${record.uuid}`;
  return observed.shares.find(({ protocol }) => protocol === "nvmf")?.uri;
}

/** The same hosts, in any order; null is nobody at all and [] is everybody. */
export function sameHosts(a: readonly string[] | null, b: readonly string[] | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((host) => b.includes(host));
}

/** Hosts that a replica or nexus is served to as its engine reports it; null: not served. */
export function servedTo(observed: {
  readonly shares: EngineReplica["shares"];
}): readonly string[] | null {
  const share = observed.shares.find(({ protocol }) => protocol === "nvmf");
  return share === undefined ? null : (share.allowedHosts ?? []);
}
