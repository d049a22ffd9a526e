/** The topology that a node tells Kubernetes (mayastor.md 3.2): its name, that it runs the driver, its zone. */
import type { RestClient } from "../client/client.ts";
import type { Labels } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import {
  TOPOLOGY_CSI_NODE,
  TOPOLOGY_CSI_NODE_VALUE,
  TOPOLOGY_NODE,
  TOPOLOGY_REGION,
  TOPOLOGY_ZONE,
} from "./names.ts";

/** The segments of a node; `more` are those that its operator gives. */
export function nodeTopology(nodeName: string, more: Labels): Record<string, string> {
  return {
    ...more,
    [TOPOLOGY_NODE]: nodeName,
    [TOPOLOGY_CSI_NODE]: TOPOLOGY_CSI_NODE_VALUE,
  };
}

/** Zone and region of a storage node, by its labels in the cluster; none where it is none, or cannot be asked. */
export async function zoneLabels(client: RestClient, nodeName: string): Promise<Labels> {
  try {
    const labels = (await client.node(nodeName)).spec?.labels ?? {};
    const zones = [TOPOLOGY_ZONE, TOPOLOGY_REGION].filter((key) => labels[key] !== undefined);
    return Object.fromEntries(zones.map((key) => [key, labels[key]!]));
  } catch (error) {
    if (error instanceof TrilithError) return {};
    throw error;
  }
}
