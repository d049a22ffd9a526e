/** What the parts of the controller service share. */
import type { RestClient } from "../../client/client.ts";
import type { Volume } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { DataLocality } from "../class-parameters.ts";
import type { Lanes } from "../lanes.ts";
import { TOPOLOGY_CSI_NODE, TOPOLOGY_CSI_NODE_VALUE } from "../names.ts";

export interface ControllerParts {
  /** The cluster, as everybody reaches it. */
  readonly client: RestClient;
  /** For classes that say nothing about it. */
  readonly dataLocality: DataLocality;
  /** Calls about one volume or snapshot come one after the other. */
  readonly lanes: Lanes;
  readonly log: Log;
}

/** From where a volume can be used: from every node that runs the driver. */
export const accessibleTopology = [{ segments: { [TOPOLOGY_CSI_NODE]: TOPOLOGY_CSI_NODE_VALUE } }];

/** What was asked for; null: there is none. */
export async function orNull<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof TrilithError && error.code === "NotFound") return null;
    throw error;
  }
}

/** Done, or it was so already (`codes`). */
export async function doneOr(
  codes: readonly TrilithError["code"][],
  asked: Promise<unknown>,
): Promise<void> {
  try {
    await asked;
  } catch (error) {
    if (!(error instanceof TrilithError) || !codes.includes(error.code)) throw error;
  }
}

/** A count of bytes as CSI carries it. */
export function bytes(value: number): bigint {
  return BigInt(Math.max(0, Math.floor(value)));
}

/** Names of the nodes that a volume is published to. */
export function publishedNodes({ spec }: Volume): string[] {
  return (spec.target?.frontend_nodes ?? []).map(({ name }) => name);
}

/** A volume's health as CSI shows it. */
export function volumeCondition({ spec, state }: Volume): { abnormal: boolean; message: string } {
  if (spec.status !== "Created") {
    return { abnormal: true, message: `the volume is ${spec.status}` };
  }
  const replicas = Object.values(state.replica_topology);
  const online = replicas.filter((replica) => replica.state === "Online").length;
  const counted = `${online} of ${spec.num_replicas} replicas are online`;
  switch (state.status) {
    case "Online":
      return { abnormal: false, message: "the volume is healthy" };
    case "Shutdown":
      return { abnormal: false, message: "the volume is not in use" };
    case "Degraded":
      return { abnormal: true, message: `the volume works with fewer copies: ${counted}` };
    case "Faulted":
      return { abnormal: true, message: `the volume cannot be used: ${counted}` };
    case "Unknown":
      return { abnormal: true, message: `the volume's state is not known: ${counted}` };
  }
}
