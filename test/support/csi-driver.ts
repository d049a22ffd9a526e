/** The CSI driver of a test: its controller on a socket, before a cluster of real nodes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Driver, startDriver } from "../../src/csi/driver.ts";
import {
  Controller,
  NodeServiceCapability_RPC_Type as NodeRpc,
} from "../../src/csi/generated/csi_pb.js";
import type { NodeHandlers } from "../../src/csi/handlers.ts";
import { nodeTopology } from "../../src/csi/topology.ts";
import { TrilithError } from "../../src/errors.ts";
import { type Cluster, waitUntil } from "./cluster.ts";
import { csiClient, type MethodsOf } from "./csi-client.ts";

/**
 * A node that says who it is, and that nothing was ever staged on: all that a controller's callers need
 * of one.
 */
export function namedNode(name: string): NodeHandlers {
  const absent = () => Promise.reject(new TrilithError("Unimplemented", "a name and nothing more"));
  const asAsked = async () => ({});
  return {
    nodeGetInfo: async () => ({
      nodeId: name,
      accessibleTopology: { segments: nodeTopology(name, {}) },
    }),
    nodeGetCapabilities: async () => ({
      capabilities: [
        { type: { case: "rpc", value: { type: NodeRpc.STAGE_UNSTAGE_VOLUME } } } as const,
      ],
    }),
    nodeStageVolume: absent,
    nodeUnstageVolume: asAsked,
    nodePublishVolume: absent,
    nodeUnpublishVolume: asAsked,
    nodeGetVolumeStats: absent,
    nodeExpandVolume: absent,
  };
}

export interface TestDriver {
  readonly driver: Driver;
  readonly controller: ReturnType<typeof csiClient<MethodsOf<typeof Controller>>>;
  readonly folder: string;
  stop(): Promise<void>;
}

/** Starts the driver before a cluster; `hosts` become known as hosts of volumes. */
export async function startTestDriver(
  cluster: Cluster,
  hosts: readonly [string, ...string[]],
): Promise<TestDriver> {
  const folder = mkdtempSync(join(tmpdir(), "trilith-csi-"));
  const [first, ...others] = hosts;
  const client = cluster.rest;
  for (const host of others) await client.registerAppNode(host, "unix:/none", {});
  const driver = await startDriver({
    driverName: "io.openebs.csi-mayastor",
    socket: join(folder, "csi.sock"),
    client,
    controller: { dataLocality: "none" },
    node: {
      handlers: namedNode(first),
      known: { nodeName: first, topology: nodeTopology(first, {}) },
      registrationSocket: null,
    },
    log: () => {},
  });
  await waitUntil(
    "the host being known",
    () => client.appNode(first),
    ({ id }) => id === first,
  );
  const controller = csiClient(Controller, driver.socket);
  return {
    driver,
    controller,
    folder,
    async stop() {
      controller.close();
      await driver.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** What the engines of a cluster still have, past the control plane: nothing, when all was given back. */
export async function leftInEngines(cluster: Cluster): Promise<string[]> {
  const perNode = cluster.nodes.map(async ({ name, engine }) => {
    const [replicas, snapshots, nexuses, standbys, subsystems] = await Promise.all([
      engine.listReplicas(),
      engine.listSnapshots(),
      engine.listNexuses(),
      engine.listStandbys(),
      engine.listSubsystems(),
    ]);
    return [
      ...replicas.map(({ uuid }) => `${name}: replica ${uuid}`),
      ...snapshots.map(({ uuid }) => `${name}: snapshot ${uuid}`),
      ...nexuses.map(({ uuid }) => `${name}: nexus ${uuid}`),
      ...standbys.map(({ volumeUuid }) => `${name}: standby of ${volumeUuid}`),
      ...subsystems.map(
        ({ nqn, controllers }) =>
          `${name}: subsystem ${nqn} with ${controllers.length} connections`,
      ),
    ];
  });
  return (await Promise.all(perNode)).flat();
}
