/** The ways by which hosts reach a volume: its target, and the standbys beside it. */
import type { ClusterState } from "../../control/cluster-state.ts";
import type { VolumeRecord } from "../../control/model.ts";
import { pathsOf } from "../../control/planner/reconcile/index.ts";
import type { VolumePath } from "../schemas/volumes.ts";

/** Target first. Hosts connect to all of them at once, and the kernel uses the one that serves. */
export function renderPaths(state: ClusterState, volume: VolumeRecord): VolumePath[] {
  return pathsOf(state, volume).map(({ nodeId, role, state: is, uri, hosts }) => ({
    node: nodeId,
    role,
    state: is,
    uri,
    ...(hosts === null ? {} : { hosts }),
  }));
}
