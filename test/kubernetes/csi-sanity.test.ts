/**
 * csi-sanity, the Kubernetes project's own test of CSI drivers, on the Identity and Controller services
 * of a cluster of three nodes. What it asks of a node service needs a kernel with an NVMe/TCP host, and
 * is run in a guest.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { csiSanity } from "../../images/csi-sanity.mjs";
import { Cluster, endClusters } from "../support/cluster.ts";
import { leftInEngines, startTestDriver, type TestDriver } from "../support/csi-driver.ts";
import { runCsiSanity, type SanityOutcome } from "../support/csi-sanity.ts";

const MIB = 1 << 20;
/** Tests of node services. Those of workflows of the controller with a node are among them. */
const NODE_TESTS = "Node Service";

let cluster: Cluster;
let csi: TestDriver;
let outcomes: readonly SanityOutcome[] = [];

describe.skipIf(csiSanity() === null)("csi-sanity on the controller", () => {
  beforeAll(async () => {
    cluster = await Cluster.start(3);
    for (const node of cluster.nodes) {
      await cluster.createPool(node, `pool-${node.name}`, 4_096 * MIB);
    }
    csi = await startTestDriver(cluster, ["app-1"]);
    outcomes = await runCsiSanity({
      socket: csi.driver.socket,
      folder: csi.folder,
      parameters: { repl: "2" },
      volumeBytes: 64 * MIB,
      expandBytes: 96 * MIB,
      skip: NODE_TESTS,
    });
  }, 300_000);

  afterAll(async () => {
    await csi?.stop();
    await endClusters();
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
    expect(await leftInEngines(cluster)).toEqual([]);
  });
});
