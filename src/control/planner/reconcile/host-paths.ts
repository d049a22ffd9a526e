/**
 * What hosts say of their paths: shown, and a reason to serve a volume elsewhere. A node may be cut off from
 * hosts alone, while leader and replicas reach it: nobody but its hosts can tell.
 *
 * A target is moved so only if all hosts that may be connected to it have lost it, and all of those are
 * connected to the standby that it goes to; never where somebody may be served well. It is an orderly move, as
 * of a node that is drained: what `failover.ts` says of acknowledged writes holds all the same.
 */
import type { EngineNexus, HostPaths } from "../../cluster-state.ts";
import type { NexusRecord, NodeId, VolumeRecord } from "../../model.ts";
import { rankTargetNodes } from "../placement/target.ts";
import type { Work } from "../plan.ts";
import { HOSTS_LOST_GAP_MS, HOSTS_LOST_HOLD_MS } from "./limits.ts";
import { movedTo } from "./move.ts";
import type { Planning } from "./planning.ts";
import { hostsAt } from "./standby.ts";

/** What a host says of its path to a node; undefined: nothing. */
function pathTo(
  p: Planning,
  host: HostPaths,
  nodeId: NodeId,
): HostPaths["paths"][number] | undefined {
  const info = p.state.observed.get(nodeId)?.info ?? null;
  return host.paths.find(
    ({ address, port }) =>
      info?.address === address && info.nvmf.some((listener) => listener.port === port),
  );
}

function reportsOf(p: Planning, volume: VolumeRecord): readonly HostPaths[] {
  return p.state.hostPaths?.get(volume.uuid) ?? [];
}

/** True when every host that may be connected to the target is one of those that have lost it. */
function haveAllLost(record: NexusRecord, nexus: EngineNexus, lost: readonly HostPaths[]): boolean {
  const admitted = record.allowedHosts;
  if (admitted.length > 0) return admitted.every((nqn) => lost.some((one) => one.hostNqn === nqn));
  // Everybody is admitted: only the target knows who came. It drops dead connections by keep-alive.
  return nexus.controllers === 0;
}

/** The move of a target that its hosts have lost, or null. */
export function leftByHosts(
  p: Planning,
  volume: VolumeRecord,
  record: NexusRecord,
  nexus: EngineNexus,
): Work | null {
  if (volume.target === null || record.share !== "nvmf" || !p.state.settings.switchOver)
    return null;
  const { nodeId } = record;
  const since = (host: HostPaths) => pathTo(p, host, nodeId)?.lostSinceMs ?? null;
  const lost = reportsOf(p, volume).filter((host) => since(host) !== null);
  if (lost.length === 0 || !haveAllLost(record, nexus, lost)) return null;
  const candidates = rankTargetNodes(p.state, volume, new Set([nodeId])).filter(
    (node) =>
      hostsAt(p, volume, node) > 0 &&
      lost.every((host) => pathTo(p, host, node.id)?.lostSinceMs === null),
  );
  if (candidates.length === 0) return null;
  const lastMs = Math.max(...lost.map((host) => since(host)!));
  const dueMs = Math.max(lastMs + HOSTS_LOST_HOLD_MS, record.createdAtMs + HOSTS_LOST_GAP_MS);
  if (p.nowMs < dueMs) {
    p.wakeAt(dueMs);
    return null;
  }
  const names = lost.map(({ hostName }) => hostName).join(", ");
  return movedTo(p, volume, candidates, `${names} cannot reach node ${nodeId}`);
}

/** Warns of the paths that hosts have lost. */
export function planHostPaths(p: Planning, volume: VolumeRecord): void {
  const { target } = volume;
  if (target === null) return;
  for (const host of reportsOf(p, volume)) {
    const lost = host.paths.filter(({ lostSinceMs }) => lostSinceMs !== null);
    if (lost.length === 0) continue;
    const nodes = [...p.stored.nodes.keys()];
    const texts = lost.map((path) => {
      const nodeId = nodes.find((id) => pathTo(p, host, id) === path);
      const at = `${path.address}:${path.port}`;
      return nodeId === undefined ? at : `node ${nodeId} (${at})`;
    });
    const hasAny = lost.length < host.paths.length;
    p.warn(
      hasAny ? "warning" : "critical",
      `volume/${volume.uuid}`,
      `host ${host.hostName} has lost its ${hasAny ? "path" : "last path"} to ${texts.join(", ")}`,
      `on ${host.hostName}: trilith host list; see whether it reaches that address`,
    );
  }
}
