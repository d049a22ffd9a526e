/**
 * csi-sanity, the Kubernetes project's own test of CSI drivers, on the Identity and Controller services
 * of a cluster of three nodes. What it asks of a node service needs a kernel with an NVMe/TCP host, and
 * is run in a guest.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { csiSanity } from "../../images/csi-sanity.mjs";
import { type Driver, startDriver } from "../../src/csi/driver.ts";
import { NodeServiceCapability_RPC_Type as NodeRpc } from "../../src/csi/generated/csi_pb.js";
import type { NodeHandlers } from "../../src/csi/handlers.ts";
import { nodeTopology } from "../../src/csi/topology.ts";
import { TrilithError } from "../../src/errors.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { runCsiSanity, type SanityOutcome } from "../support/csi-sanity.ts";

const MIB = 1 << 20;
const HOST = "app-1";
/** Tests of node services. Those of workflows of the controller with a node are among them. */
const NODE_TESTS = "Node Service";

const folder = mkdtempSync(join(tmpdir(), "trilith-sanity-"));
let cluster: Cluster;
let driver: Driver;
let outcomes: readonly SanityOutcome[] = [];

/**
 * A node that says who it is, and that nothing was ever staged on: all that the tests of a controller ask
 * of one.
 */
function namedNode(): NodeHandlers {
  const absent = () => Promise.reject(new TrilithError("Unimplemented", "a name and nothing more"));
  const asAsked = async () => ({});
  return {
    nodeGetInfo: async () => ({
      nodeId: HOST,
      accessibleTopology: { segments: nodeTopology(HOST, {}) },
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

describe.skipIf(csiSanity() === null)("csi-sanity on the controller", () => {
  beforeAll(async () => {
    cluster = await Cluster.start(3);
    for (const node of cluster.nodes) {
      await cluster.createPool(node, `pool-${node.name}`, 4_096 * MIB);
    }
    driver = await startDriver({
      driverName: "io.openebs.csi-mayastor",
      socket: join(folder, "csi.sock"),
      client: cluster.rest,
      controller: { dataLocality: "none" },
      node: {
        handlers: namedNode(),
        known: { nodeName: HOST, topology: nodeTopology(HOST, {}) },
        registrationSocket: null,
      },
      log: () => {},
    });
    await waitUntil(
      "the host being known",
      () => cluster.rest.appNode(HOST),
      ({ id }) => id === HOST,
    );
    outcomes = await runCsiSanity({
      socket: driver.socket,
      folder,
      parameters: { repl: "2" },
      volumeBytes: 64 * MIB,
      expandBytes: 96 * MIB,
      skip: NODE_TESTS,
    });
  }, 300_000);

  afterAll(async () => {
    await driver?.stop();
    await endClusters();
    rmSync(folder, { recursive: true, force: true });
  });

  test("finds no fault", () => {
    const failed = outcomes.filter(({ state }) => state === "failed");
    for (const { name, failure } of failed) console.log(`${name}\n${failure}\n`);
    expect(failed.map(({ name }) => name)).toEqual([]);
    const left = outcomes.filter(({ state }) => state === "skipped" || state === "pending");
    console.log(`csi-sanity: ${outcomes.length - left.length} run, ${left.length} left out`);
    // So that a run of nothing does not pass.
    expect(outcomes.filter(({ state }) => state === "passed").length).toBeGreaterThan(40);
  });

  test("leaves no volume, snapshot, target or replica behind", async () => {
    await cluster.isSettled();
    expect((await cluster.rest.volumes()).map(({ spec }) => spec.uuid)).toEqual([]);
    expect(await cluster.rest.snapshots({})).toEqual([]);
    expect(await cluster.rest.get<unknown[]>("/nexuses")).toEqual([]);
    expect(await cluster.rest.get<unknown[]>("/replicas")).toEqual([]);
  });
});
