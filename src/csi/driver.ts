/**
 * The CSI driver of one machine: its services on a socket, its place in the kubelet's list, and its name in
 * the cluster's. May import the client of the HTTP API and the host agent's contract; of the cluster's own
 * parts nothing.
 */
import type { RestClient } from "../client/client.ts";
import type { Log } from "../ops/log.ts";
import type { DataLocality } from "./class-parameters.ts";
import { controllerService } from "./controller/controller-service.ts";
import { Controller, Identity, Node } from "./generated/csi_pb.js";
import { type GrpcServer, serveGrpc } from "./grpc/server.ts";
import { serviceOf } from "./grpc/service.ts";
import type { NodeHandlers } from "./handlers.ts";
import { identityService } from "./identity-service.ts";
import { keepNodeKnown, type NodeName } from "./known-node.ts";
import { makeLanes } from "./lanes.ts";
import { type KubeletRegistration, keepRegistered } from "./registration.ts";

export interface DriverOptions {
  readonly driverName: string;
  /** Where the services are. */
  readonly socket: string;
  /** The cluster. */
  readonly client: RestClient;
  /** Null: this machine offers no controller service. */
  readonly controller: { readonly dataLocality: DataLocality } | null;
  /** Null: this machine uses no volumes. */
  readonly node: {
    readonly handlers: NodeHandlers;
    /** Under which name, and with which topology, the cluster knows it. */
    readonly known: NodeName;
    /** Socket by which the kubelet learns of the driver; null: it is told otherwise. */
    readonly registrationSocket: string | null;
  } | null;
  readonly log: Log;
}

export interface Driver {
  readonly socket: string;
  stop(): Promise<void>;
}

function servicesOf({ driverName, client, controller, node, log }: DriverOptions) {
  const roles = { controller: controller !== null };
  // A node's own service works while the API is away: what is staged stays, and can be unstaged.
  const asked = controller === null ? null : client;
  const identity = identityService({ driverName, client: asked, roles });
  const parts = {
    client,
    dataLocality: controller?.dataLocality ?? "none",
    lanes: makeLanes(),
    log,
  };
  return [
    serviceOf(Identity, identity, log),
    ...(controller === null ? [] : [serviceOf(Controller, controllerService(parts), log)]),
    ...(node === null ? [] : [serviceOf(Node, node.handlers, log)]),
  ];
}

/** Starts the driver. Throws `InUse`, `InvalidArgument` (the socket's path is too long). */
export async function startDriver(options: DriverOptions): Promise<Driver> {
  const { driverName, socket, client, node, log } = options;
  const server: GrpcServer = await serveGrpc({
    path: socket,
    what: "CSI",
    services: servicesOf(options),
    log,
  });
  const kept: { stop(): Promise<void> }[] = [];
  if (node !== null) {
    kept.push(keepNodeKnown({ ...node.known, endpoint: `unix:${socket}`, client, log }));
    if (node.registrationSocket !== null) {
      const registration: KubeletRegistration = keepRegistered({
        socket: node.registrationSocket,
        driverName,
        endpoint: socket,
        log,
      });
      kept.push(registration);
    }
  }
  return {
    socket,
    async stop() {
      await Promise.all(kept.map((one) => one.stop()));
      await server.stop();
    },
  };
}
