/** The ways by which hosts reach a published volume, as they are and as they will be in a moment. */
import { endpointText, nqnOf } from "../../../names.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { NodeId, VolumeRecord } from "../../model.ts";
import { noFailures, Planning } from "./planning.ts";
import { standbysByVolume, wantedNodes } from "./standby.ts";

export interface Path {
  readonly nodeId: NodeId;
  readonly role: "target" | "standby";
  /** `serving`, `listening` (hosts are sent elsewhere from there), or not there (yet, or at present). */
  readonly state: "serving" | "listening" | "pending";
  /** `nvmf+tcp://address:port/nqn?uuid=`; empty while the node has never been heard of. */
  readonly uri: string;
  /** Host connections to a standby; null: not known. */
  readonly hosts: number | null;
}

function uriOn(state: ClusterState, nodeId: NodeId, volume: VolumeRecord): string {
  const info = state.observed.get(nodeId)?.info ?? null;
  const port = info?.nvmf[0]?.port;
  if (info === null || port === undefined) return "";
  return `nvmf+tcp://${endpointText(info.address, port)}/${nqnOf(volume.uuid)}?uuid=${volume.uuid}`;
}

/** Target first, then standbys; none when the volume is not served to hosts. */
export function pathsOf(state: ClusterState, volume: VolumeRecord): Path[] {
  const { target } = volume;
  const record = target === null ? undefined : state.stored.nexuses.get(target.nexusUuid);
  if (record === undefined || record.share !== "nvmf") return [];
  const p = new Planning(state, noFailures);
  const { nodeId } = record;
  const isServing = p.nexus(record)?.shares.some(({ protocol }) => protocol === "nvmf") === true;
  const paths: Path[] = [
    {
      nodeId,
      role: "target",
      state: isServing ? "serving" : "pending",
      uri: uriOn(state, nodeId, volume),
      hosts: null,
    },
  ];
  const have = standbysByVolume(state.observed).get(volume.uuid) ?? [];
  const seen = have.filter((one) => one.nodeId !== nodeId && one.standby.state === "listening");
  for (const { nodeId: id, standby } of seen) {
    const { uri, controllers } = standby;
    paths.push({ nodeId: id, role: "standby", state: "listening", uri, hosts: controllers });
  }
  for (const { id } of wantedNodes(p, volume, record)) {
    if (seen.some((one) => one.nodeId === id)) continue;
    const uri = uriOn(state, id, volume);
    paths.push({ nodeId: id, role: "standby", state: "pending", uri, hosts: null });
  }
  return paths;
}
