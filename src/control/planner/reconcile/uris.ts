/** Replicas as children of a nexus: their URIs, and back. */
import type { EngineReplica } from "../../cluster-state.ts";
import type { NodeId, ReplicaRecord, Uuid } from "../../model.ts";

const LOCAL = "bdev:///";
const REMOTE = "nvmf+tcp://";
const NAMED = "uuid=";
const UUID_LENGTH = 36;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * UUID of the replica behind a child's URI (`bdev:///<uuid>`, `nvmf+tcp://.../nqn...:<uuid>?uuid=<uuid>`);
 * null for a device that is not addressed as replicas are.
 */
export function replicaOfUri(uri: string): Uuid | null {
  let at = -1;
  if (uri.startsWith(LOCAL)) at = LOCAL.length;
  else if (uri.startsWith(REMOTE)) at = uri.lastIndexOf(NAMED) + NAMED.length;
  if (at < NAMED.length) return null;
  const uuid = uri.slice(at, at + UUID_LENGTH);
  return UUID.test(uuid) ? uuid : null;
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
