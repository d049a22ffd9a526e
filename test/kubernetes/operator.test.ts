/** The operator of pools, of a cluster of real nodes, against a real API server of Kubernetes. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { tmpdir } from "node:os";
import type { KubeObject } from "../../src/kube/client/objects.ts";
import { diskPools, mayastorPools } from "../../src/kube/names.ts";
import type { PoolObject } from "../../src/kube/operator/pool-view.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { applyYaml, eventsAbout, manifestText, tableOf } from "../support/kube-objects.ts";
import { endKubeServers, KubeServer, programsFolder } from "../support/kubernetes.ts";
import {
  diskPoolV1alpha1,
  diskPoolV1beta2,
  filePoolV1alpha1,
  mayastorPool,
} from "./seed-manifests.ts";

setDefaultTimeout(240_000);
const GiB = 2 ** 30;
const namespaces = ["openebs", "mayastor", "default"];

let server: KubeServer;
let cluster: Cluster;

const namespaceYaml = (name: string) =>
  `apiVersion: v1\nkind: Namespace\nmetadata:\n  name: ${name}\n`;

/** A pool's object once it is as `isSo` says. */
function poolUntil(
  what: string,
  name: string,
  isSo: (pool: PoolObject) => boolean,
  namespace = "openebs",
): Promise<PoolObject> {
  return waitUntil(
    `${name} ${what}`,
    () => server.client.get<PoolObject>(diskPools, { namespace, name }),
    isSo,
  );
}

const poolYaml = (name: string, node: string, disk: string, version = "v1beta3") => `
apiVersion: openebs.io/${version}
kind: DiskPool
metadata: { name: ${name}, namespace: openebs }
spec: { node: ${node}, disks: ["${disk}"], topology: { labelled: { tier: fast } } }
`;

describe.skipIf(programsFolder === null)("the operator of pools", () => {
  beforeAll(async () => {
    server = await KubeServer.start();
    for (const name of namespaces) await applyYaml(server.client, namespaceYaml(name));
    await applyYaml(server.client, manifestText());
    // With the rights that the manifest gives it, and no others.
    const kubeconfig = await server.kubeconfigOf("trilith", "trilith-appliance");
    cluster = await Cluster.start(3, tmpdir(), ["--kubeconfig", kubeconfig]);
  });
  afterAll(async () => {
    await endClusters();
    await endKubeServers();
  });

  test("manifests of all versions make pools, and show what became of them", async () => {
    const [one, two, three] = cluster.nodes;
    await applyYaml(server.client, diskPoolV1beta2(one!.name, one!.disk("b2", GiB)));
    await applyYaml(server.client, diskPoolV1alpha1(two!.name));
    await applyYaml(server.client, filePoolV1alpha1(two!.name, two!.disk("file", GiB)));
    await applyYaml(server.client, mayastorPool(three!.name, three!.disk("msp", GiB)));
    const isOnline = ({ status }: PoolObject) => status?.pool_status === "Online";
    const made = await poolUntil("being online", "pool-v1beta2", isOnline);
    await poolUntil("being online", "mempool-1", isOnline, "mayastor");
    await poolUntil("being online", "filepool-1", isOnline, "mayastor");
    expect(made.status).toMatchObject({ cr_state: "Created", used: 0 });
    expect(made.status!.capacity).toBeGreaterThan(0.9 * GiB);
    expect(made.metadata.finalizers).toEqual(["openebs.io/diskpool-protection"]);
    const events = await waitUntil(
      "both events",
      () => eventsAbout(server.client, made.metadata.uid!),
      (told) => told.length === 2,
    );
    expect(events.sort()).toEqual([
      "Created: Created or imported pool",
      "Online: Pool online and ready to roll!",
    ]);
    const pool = await cluster.rest.pool("pool-v1beta2");
    expect(pool.spec!.labels).toEqual({ "openebs.io/created-by": "operator-diskpool" });
    const old = await waitUntil(
      "the MayastorPool being online",
      () => server.client.get<PoolObject>(mayastorPools, { namespace: "default", name: "pool" }),
      ({ status }) => status?.state === "ONLINE",
    );
    expect(old.status).toMatchObject({ node: three!.name, used: 0, reason: "" });
  });

  test("columns are those that scripts know, in every version", async () => {
    const [headings, ...rows] = await tableOf(server.client, { ...diskPools, version: "v1beta2" });
    expect(headings).toEqual([
      "Name",
      ...["node", "state", "pool_status", "capacity", "used", "available"],
    ]);
    const row = rows.find(([name]) => name === "pool-v1beta2")!;
    expect(row.slice(1, 4)).toEqual(["node-1", "Created", "Online"]);
    expect(Number(row[4])).toBe(Number(row[5]) + Number(row[6]));
    const [newest] = await tableOf(server.client, diskPools);
    expect(newest).toContain("disk_capacity");
  });

  test("a mistake is said, and mended by changing the object", async () => {
    const node = cluster.nodes[1]!;
    const disk = node.disk("mended", GiB);
    await applyYaml(server.client, poolYaml("mended", "node-9", disk));
    const wrong = await poolUntil("telling", "mended", ({ status }) => status?.error != null);
    expect(wrong.status!.error).toEqual({
      code: "NodeIsUnknown",
      message: "Unable to find io-engine node node-9; there are: node-1, node-2, node-3",
    });
    await applyYaml(server.client, poolYaml("mended", node.name, "/dev/does-not-exist"));
    const missing = await poolUntil(
      "telling of the disk",
      "mended",
      ({ status }) => status?.error?.code === "DiskNotFound",
    );
    expect(missing.status!.cr_state).toBe("Creating");
    await applyYaml(server.client, poolYaml("mended", node.name, disk));
    const made = await poolUntil(
      "online",
      "mended",
      ({ status }) => status?.pool_status === "Online",
    );
    expect(made.status!.error).toBeUndefined();
    expect((await cluster.rest.pool("mended")).spec!.labels).toMatchObject({ tier: "fast" });
    const told = await eventsAbout(server.client, made.metadata.uid!);
    expect(told.filter((text) => text.startsWith("NodeIsUnknown"))).toHaveLength(1);
    expect(told.filter((text) => text.startsWith("DiskNotFound"))).toHaveLength(1);
  });

  test("an object of the same name as another's pool is refused, and takes nothing along", async () => {
    const text = poolYaml("mended", "node-1", "/dev/other").replace("openebs }", "mayastor }");
    await applyYaml(server.client, text);
    const second = await poolUntil(
      "refused",
      "mended",
      ({ status }) => status?.error?.code === "ForeignPoolName",
      "mayastor",
    );
    expect(second.status!.error!.message).toContain("declared by DiskPool openebs/mended already");
    await server.client.remove(diskPools, { namespace: "mayastor", name: "mended" });
    await gone("mended", "mayastor");
    expect((await cluster.rest.pool("mended")).state!.status).toBe("Online");
  });

  test("a pool with replicas stays until they are gone, and the object says so", async () => {
    const uuid = crypto.randomUUID();
    await cluster.rest.createVolume(uuid, {
      policy: { self_heal: true },
      replicas: 1,
      size: 64 << 20,
      thin: false,
      topology: { pool_topology: { labelled: { exclusion: {}, inclusion: { tier: "fast" } } } },
    });
    await server.client.remove(diskPools, { namespace: "openebs", name: "mended" });
    const held = await poolUntil(
      "telling of the replica",
      "mended",
      ({ status }) => status?.cr_state === "Terminating" && status.error != null,
    );
    expect(held.status!.error!.message).toContain("holds 1 replica");
    const told = await waitUntil(
      "the event",
      () => eventsAbout(server.client, held.metadata.uid!),
      (texts) => texts.some((text) => text.startsWith("DiskClaimed: ")),
    );
    expect(told.join("\n")).toContain("move or delete them first");
    await cluster.rest.deleteVolume(uuid);
    await gone("mended", "openebs");
    await expect(cluster.rest.pool("mended")).rejects.toMatchObject({ code: "NotFound" });
    await waitUntil(
      "the event of the end",
      () => eventsAbout(server.client, held.metadata.uid!),
      (texts) => texts.includes("Destroyed: The pool has been destroyed"),
    );
  });

  test("a pool that was deleted through the API is not made again", async () => {
    await cluster.rest.deletePool("filepool-1", {
      purge: false,
      accept: false,
      accept_volume_loss: false,
      accept_snapshot_loss: false,
    });
    const told = await poolUntil(
      "telling",
      "filepool-1",
      ({ status }) => status?.error?.code === "PoolDeleted",
      "mayastor",
    );
    expect(told.status).toMatchObject({ cr_state: "Created", pool_status: "Unknown", capacity: 0 });
    await server.client.remove(diskPools, { namespace: "mayastor", name: "filepool-1" });
    await gone("filepool-1", "mayastor");
  });

  test("it goes on when the API server was away, and when the leader is another", async () => {
    await server.killApi();
    await server.startApi();
    const node = cluster.nodes[2]!;
    await applyYaml(server.client, poolYaml("later", node.name, node.disk("later", GiB)));
    await poolUntil("online", "later", ({ status }) => status?.pool_status === "Online");
    const leader = await cluster.leader();
    await leader.kill();
    const next = await cluster.leader();
    await applyYaml(server.client, poolYaml("after", next.name, next.disk("after", GiB)));
    await poolUntil("online", "after", ({ status }) => status?.pool_status === "Online");
    await leader.start();
  });
});

async function gone(name: string, namespace: string): Promise<void> {
  await waitUntil(
    `${name} going`,
    () => server.client.list<KubeObject>(diskPools, namespace),
    ({ items }) => items.every(({ metadata }) => metadata.name !== name),
  );
}
