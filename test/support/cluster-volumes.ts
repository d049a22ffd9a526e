/** What tests wait for of the volumes of a cluster. */
import type { Volume } from "../../src/client/types.ts";
import type { Cluster, ClusterNode } from "./cluster.ts";

/** That a volume is served with so many copies, all of them in sync. */
export function isWholeWith(copies: number): (volume: Volume) => boolean {
  return ({ state }) =>
    state.status === "Online" &&
    state.target?.children.length === copies &&
    state.target.children.every((child) => child.state === "Online");
}

/** The node that serves the volume once it is one of which `isSo`. */
export async function servingNode(
  cluster: Cluster,
  uuid: string,
  isSo: (node: ClusterNode) => boolean,
): Promise<ClusterNode> {
  const volume = await cluster.volumeUntil("the target being there", uuid, ({ state }) => {
    const target = state.target;
    const isServing = target?.state === "Online" || target?.state === "Degraded";
    return isServing && isSo(cluster.node(target.node));
  });
  return cluster.node(volume.state.target!.node);
}
