/**
 * Claims of Kubernetes become volumes, and go with them: a real API server, the real sidecars and
 * Kubernetes' own controllers, a cluster of real nodes. What a kubelet does is played: there is no host.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { tmpdir } from "node:os";
import type { KubeObject, Resource } from "../../src/kube/client/objects.ts";
import { VolumeCollector } from "../../src/kube/garbage/collector.ts";
import { persistentVolumeClaims, persistentVolumes } from "../../src/kube/names.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { applyObject, applyYaml, eventsAbout } from "../support/kube-objects.ts";
import {
  addKubeNode,
  applyManifest,
  startDriver,
  startVolumeControllers,
} from "../support/kube-sidecars.ts";
import { endKubeServers, KubeServer, programsFolder } from "../support/kubernetes.ts";
import { claim, storageClasses } from "./seed-manifests.ts";

setDefaultTimeout(240_000);
const GiB = 2 ** 30;
const DRIVER = "io.openebs.csi-mayastor";
const DIAMANTI = "dcx.csi.diamanti.com";
const attachments: Resource = {
  group: "storage.k8s.io",
  version: "v1",
  plural: "volumeattachments",
  namespaced: false,
};
const pods: Resource = { group: "", version: "v1", plural: "pods", namespaced: true };

interface Claim extends KubeObject {
  readonly spec: { readonly volumeName?: string };
  readonly status?: {
    readonly phase?: string;
    readonly capacity?: { readonly storage?: string };
    readonly conditions?: readonly { readonly type: string }[];
  };
}
interface PersistentVolume extends KubeObject {
  readonly spec: {
    readonly capacity: { readonly storage: string };
    readonly accessModes: readonly string[];
    readonly persistentVolumeReclaimPolicy: string;
    readonly csi: {
      readonly driver: string;
      readonly volumeHandle: string;
      readonly fsType?: string;
    };
    readonly nodeAffinity?: unknown;
  };
}
interface Attachment extends KubeObject {
  readonly spec: {
    readonly nodeName: string;
    readonly source: { readonly persistentVolumeName: string };
  };
  readonly status?: {
    readonly attached?: boolean;
    readonly attachmentMetadata?: Readonly<Record<string, string>>;
    readonly attachError?: { readonly message: string };
  };
}

let server: KubeServer;
let cluster: Cluster;

const claimNow = (name: string) =>
  server.client.get<Claim>(persistentVolumeClaims, { namespace: "default", name });

/** The claim once it is bound, and its volume. */
async function bound(name: string): Promise<{ claim: Claim; pv: PersistentVolume }> {
  const found = await waitUntil(
    `claim ${name} being bound`,
    () => claimNow(name),
    ({ status }) => status?.phase === "Bound",
  ).catch((error: unknown) => {
    throw new Error(`${(error as Error).message}\n${server.logs()}\n${cluster.logs(10)}`);
  });
  const pv = await server.client.get<PersistentVolume>(persistentVolumes, {
    name: found.spec.volumeName!,
  });
  return { claim: found, pv };
}

async function removeClaim(name: string): Promise<void> {
  await server.client.remove(persistentVolumeClaims, { namespace: "default", name });
}

describe.skipIf(programsFolder === null)("claims", () => {
  beforeAll(async () => {
    server = await KubeServer.start();
    const manifest = await applyManifest(server);
    const kubeconfig = await server.kubeconfigOf("trilith", "trilith-appliance");
    cluster = await Cluster.start(3, tmpdir(), ["--kubeconfig", kubeconfig]);
    for (const [index, node] of cluster.nodes.entries()) {
      await addKubeNode(server, node.name, [DRIVER, DIAMANTI]);
      const disk = node.disk("disk", 6 * GiB);
      await applyYaml(
        server.client,
        `{apiVersion: openebs.io/v1beta2, kind: DiskPool, metadata: {name: pool-${index + 1}},` +
          ` spec: {node: ${node.name}, disks: ["${disk}"]}}`,
      );
    }
    for (const index of [1, 2, 3]) {
      await waitUntil(
        `pool-${index}`,
        () => cluster.rest.pools(),
        (pools) =>
          pools.some((pool) => pool.id === `pool-${index}` && pool.state?.status === "Online"),
      );
    }
    startVolumeControllers(server);
    const { restUrl } = cluster.nodes[0]!;
    await startDriver(server, restUrl, DRIVER, manifest);
    await startDriver(server, restUrl, DIAMANTI, manifest);
    await applyYaml(server.client, storageClasses);
  });
  afterAll(async () => {
    await endClusters();
    await endKubeServers();
  });

  test("a claim of every class of the old documents is bound, to a volume that is as it says", async () => {
    const wanted = [
      { name: "ms-volume-claim", of: "mayastor-1", replicas: 1, fsType: "ext4", driver: DRIVER },
      { name: "three", of: "mayastor-3", replicas: 3, fsType: "ext4", driver: DRIVER },
      { name: "plain", of: "mayastor", replicas: 1, fsType: "ext4", driver: DRIVER },
      { name: "mirror-pvc", of: "high2m", replicas: 2, fsType: "xfs", driver: DIAMANTI },
    ];
    for (const { name, of } of wanted) await applyYaml(server.client, claim(name, of));
    for (const { name, replicas, fsType, driver } of wanted) {
      const { claim: made, pv } = await bound(name);
      const uid = made.metadata.uid!;
      expect(pv.metadata.name).toBe(`pvc-${uid}`);
      expect(pv.spec).toMatchObject({
        capacity: { storage: "1Gi" },
        accessModes: ["ReadWriteOnce"],
        persistentVolumeReclaimPolicy: "Delete",
        csi: { driver, volumeHandle: uid, fsType },
      });
      const volume = await cluster.rest.volume(uid);
      expect(volume.spec).toMatchObject({ num_replicas: replicas, size: GiB });
    }
    for (const name of ["three", "plain", "mirror-pvc"]) await removeClaim(name);
    await waitUntil(
      "one volume left",
      () => cluster.rest.volumes(),
      (volumes) => volumes.length === 1,
    );
  });

  test("a pod's volume is attached to its node, expanded, and detached", async () => {
    const { claim: made, pv } = await bound("ms-volume-claim");
    const volumeId = pv.spec.csi.volumeHandle;
    await applyObject(server.client, {
      ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "fio", namespace: "default" } },
      spec: {
        // There is no scheduler here.
        nodeName: "node-2",
        volumes: [{ name: "ms-volume", persistentVolumeClaim: { claimName: "ms-volume-claim" } }],
        containers: [
          {
            name: "fio",
            image: "fio",
            volumeMounts: [{ mountPath: "/volume", name: "ms-volume" }],
          },
        ],
      },
    } as KubeObject);
    const attached = await waitUntil(
      "the volume being attached",
      async () => (await server.client.list<Attachment>(attachments)).items,
      (items) => items.length === 1 && items[0]!.status?.attached === true,
    ).catch((error: unknown) => {
      throw new Error(`${(error as Error).message}\n${server.logs()}`);
    });
    expect(attached[0]!.spec).toMatchObject({
      nodeName: "node-2",
      source: { persistentVolumeName: pv.metadata.name },
    });
    const published = await cluster.rest.volume(volumeId);
    expect(attached[0]!.status!.attachmentMetadata!.uri).toStartWith("nvmf+tcp://");
    expect(published.spec.target?.protocol).toBe("nvmf");

    await server.client.patch(
      { group: "storage.k8s.io", version: "v1", plural: "storageclasses", namespaced: false },
      { name: "mayastor-1" },
      { allowVolumeExpansion: true },
    );
    // The API server's own copy of the class follows a moment later.
    const larger = { spec: { resources: { requests: { storage: "2Gi" } } } };
    await waitUntil(
      "the claim being enlarged",
      () => server.client.patch(persistentVolumeClaims, made.metadata, larger),
      () => true,
    );
    await waitUntil(
      "the volume being larger",
      () => server.client.get<PersistentVolume>(persistentVolumes, { name: pv.metadata.name }),
      ({ spec }) => spec.capacity.storage === "2Gi",
    );
    expect((await cluster.rest.volume(volumeId)).spec.size).toBe(2 * GiB);
    // The rest is the kubelet's.
    await waitUntil(
      "the file system being left to the node",
      () => claimNow("ms-volume-claim"),
      ({ status }) =>
        status?.conditions?.some(({ type }) => type === "FileSystemResizePending") === true,
    );

    await server.client.call({
      method: "DELETE",
      path: "/api/v1/namespaces/default/pods/fio",
      body: { gracePeriodSeconds: 0 },
    });
    await waitUntil(
      "the volume being detached",
      async () => (await server.client.list<Attachment>(attachments)).items,
      (items) => items.length === 0,
    );
    expect((await cluster.rest.volume(volumeId)).spec.target ?? null).toBeNull();
    expect((await server.client.list(pods)).items).toEqual([]);
  });

  test("with the claim goes all that was made for it", async () => {
    await removeClaim("ms-volume-claim");
    await waitUntil(
      "nothing left",
      async () => ({
        claims: (await server.client.list(persistentVolumeClaims)).items.length,
        volumes: (await server.client.list(persistentVolumes)).items.length,
        ours: (await cluster.rest.volumes()).length,
      }),
      ({ claims, volumes, ours }) => claims + volumes + ours === 0,
    );
    const pools = await cluster.rest.pools();
    expect(pools.map(({ state }) => state!.used)).toEqual([0, 0, 0]);
  });

  test("a volume whose PersistentVolume was taken away goes once nothing names it, and no other", async () => {
    await applyYaml(server.client, claim("kept", "mayastor-1"));
    await applyYaml(server.client, claim("lost", "mayastor-1"));
    const kept = (await bound("kept")).pv.spec.csi.volumeHandle;
    const { pv } = await bound("lost");
    const lost = pv.spec.csi.volumeHandle;
    const body = { policy: { self_heal: true }, replicas: 1, size: 64 << 20, thin: true };
    const own = crypto.randomUUID();
    await cluster.rest.createVolume(own, body);
    // Made for a claim that was given up before its PersistentVolume was written.
    const orphan = crypto.randomUUID();
    const labels = { "openebs.io/created-by": "csi-controller" };
    await cluster.rest.createVolume(orphan, { ...body, labels });
    const times = { unclaimedMs: 300, lookMs: 50, sweepMs: 50 };
    const collector = new VolumeCollector({
      ...{ kube: server.client, rest: cluster.rest, log: () => {}, sweeps: true },
      ...times,
    });
    const ids = async () => (await cluster.rest.volumes()).map(({ spec }) => spec.uuid).sort();
    try {
      await waitUntil("the orphan going", ids, (now) => !now.includes(orphan));
      // As a person does who loses patience: finalizers off, and the claim stays.
      await server.client.remove(persistentVolumes, pv.metadata);
      await server.client.patch(persistentVolumes, pv.metadata, {
        metadata: { finalizers: null },
      });
      await waitUntil(
        "the claim being lost",
        () => claimNow("lost"),
        ({ status }) => status?.phase === "Lost",
      );
      expect(await ids()).toContain(lost);
      await removeClaim("lost");
      await waitUntil("the volume going", ids, (now) => !now.includes(lost));
      expect(await ids()).toEqual([kept, own].sort());
    } finally {
      await collector.stop();
    }
    await cluster.rest.deleteVolume(own);
    await removeClaim("kept");
    await waitUntil("nothing left", ids, (now) => now.length === 0);
  });

  test("a class with a mistake is told of where the person looks", async () => {
    await applyYaml(
      server.client,
      `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: wrong},` +
        ` provisioner: ${DRIVER}, parameters: {repl: "0"}}`,
    );
    await applyYaml(server.client, claim("wrong", "wrong"));
    const { metadata } = await claimNow("wrong");
    const told = await waitUntil(
      "an event",
      () => eventsAbout(server.client, metadata.uid!),
      (texts) => texts.some((text) => text.includes("repl")),
    );
    expect(told.join("\n")).toContain("ProvisioningFailed");
    await removeClaim("wrong");
    expect(await cluster.rest.volumes()).toEqual([]);
  });
});
