/** The handlers of the CSI services, by their types, and what those of a node stand on. */
import type { RestClient } from "../client/client.ts";
import type { HostAgent } from "../host/host.ts";
import type { Log } from "../ops/log.ts";
import type { Controller, Identity, Node } from "./generated/csi_pb.js";
import type { Handlers } from "./grpc/service.ts";

export type IdentityHandlers = Handlers<typeof Identity>;
export type ControllerHandlers = Partial<Handlers<typeof Controller>>;
/** Made by `node/node-service.ts`. */
export type NodeHandlers = Handlers<typeof Node>;

/** What the node service stands on. */
export interface NodeServiceOptions {
  /** Name of the Kubernetes node: the id by which the controller is told whom to publish to. */
  readonly nodeName: string;
  /** Topology of the node as it is told to Kubernetes (`nodeTopology`). */
  readonly topology: Readonly<Record<string, string>>;
  /** The agent that connects volumes on this machine. */
  readonly agent: HostAgent;
  /** The cluster's API, for what the publish context cannot know; null: none can be reached from here. */
  readonly client: RestClient | null;
  readonly log: Log;
}
