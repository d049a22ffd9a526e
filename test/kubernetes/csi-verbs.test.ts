/** The processes that serve CSI: `trilith csi` by itself, and a node's control process. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Controller, Identity } from "../../src/csi/generated/csi_pb.js";
import { Registration } from "../../src/csi/generated/pluginregistration_pb.js";
import { pluginSocket, registrationSocket } from "../../src/csi/names.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { csiClient } from "../support/csi-client.ts";
import { trilithCommand } from "../support/engine-process.ts";

const folder = mkdtempSync(join(tmpdir(), "trilith-csi-"));
const controlSocket = join(folder, "control.sock");
const DRIVER = "csi.example.org";
let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start(1, tmpdir(), ["--csi-socket", controlSocket]);
}, 120_000);

afterAll(async () => {
  await endClusters();
  rmSync(folder, { recursive: true, force: true });
});

function startCsi(...options: string[]) {
  const node = cluster.nodes[0]!;
  const command = ["csi", "--stop-on-stdin-end", "--rest", node.restUrl, ...options];
  return Bun.spawn([...trilithCommand(), ...command], {
    stdin: "pipe",
    stdout: "inherit",
    stderr: "inherit",
  });
}

const isThere = (path: string) =>
  waitUntil(
    path,
    () => existsSync(path),
    (found) => found,
  );

test("a control process serves the controller where it is told to", async () => {
  const [node] = cluster.nodes;
  const identity = csiClient(Identity, controlSocket);
  const controller = csiClient(Controller, controlSocket);
  expect((await identity.getPluginInfo({})).name).toBe("io.openebs.csi-mayastor");
  expect((await identity.probe({})).ready).toBe(true);
  expect((await controller.listVolumes({})).entries).toEqual([]);
  identity.close();
  controller.close();
  expect(await node!.stop()).toBe(0);
  expect(existsSync(controlSocket)).toBe(false);
  await node!.start();
  await cluster.leader();
});

test("trilith csi serves a kubelet, and the controller's sidecars, at one socket", async () => {
  const kubeletDir = join(folder, "kubelet");
  mkdirSync(join(kubeletDir, "plugins_registry"), { recursive: true });
  const socket = pluginSocket(kubeletDir, DRIVER);
  const child = startCsi(
    ...["--kubelet-dir", kubeletDir, "--driver-name", DRIVER, "--node-name", "worker-1"],
    ...["--host-state", join(folder, "host.json"), "--topology", "topology.kubernetes.io/zone=a"],
  );
  try {
    const registration = registrationSocket(kubeletDir, DRIVER);
    await isThere(registration);
    const kubelet = csiClient(Registration, registration);
    expect(await kubelet.getInfo({})).toMatchObject({ name: DRIVER, endpoint: socket });
    kubelet.close();
    const controller = csiClient(Controller, socket);
    expect((await controller.controllerGetCapabilities({})).capabilities.length).toBeGreaterThan(5);
    controller.close();
    // The controller publishes to hosts that the cluster knows.
    const known = await waitUntil(
      "the node being known",
      () => cluster.rest.appNode("worker-1"),
      ({ id }) => id === "worker-1",
    );
    expect(known.spec.labels).toEqual({
      "openebs.io/csi-node": "mayastor",
      "openebs.io/nodename": "worker-1",
      "topology.kubernetes.io/zone": "a",
    });
  } finally {
    child.kill("SIGTERM");
  }
  expect(await child.exited).toBe(0);
  expect(existsSync(socket)).toBe(false);
});

test("trilith csi says that it is not ready while the API is away, and is again after", async () => {
  const socket = join(folder, "alone.sock");
  const child = startCsi("--controller", "--csi-socket", socket);
  const [node] = cluster.nodes;
  try {
    await isThere(socket);
    const identity = csiClient(Identity, socket);
    expect((await identity.probe({})).ready).toBe(true);
    await node!.kill();
    expect((await identity.probe({})).ready).toBe(false);
    await node!.start();
    await waitUntil(
      "being ready again",
      async () => (await identity.probe({})).ready,
      (ready) => ready === true,
    );
    identity.close();
  } finally {
    child.kill("SIGTERM");
  }
  expect(await child.exited).toBe(0);
});

test("a wrong name of a driver ends it with what is wrong", async () => {
  const child = startCsi("--controller", "--driver-name", "not a name");
  expect(await child.exited).toBe(2);
});
