/**
 * The driver's controller as Kubernetes runs it: the real sidecars, with the arguments and the rights
 * that the manifest gives them, at the socket of `trilith csi`; and Kubernetes' own controllers of volumes.
 */
import { join } from "node:path";
import type { KubeObject } from "../../src/kube/client/objects.ts";
import { waitUntil } from "./cluster.ts";
import { trilithCommand } from "./engine-process.ts";
import { applyObject, manifestText } from "./kube-objects.ts";
import { type KubeServer, Program } from "./kubernetes.ts";

interface Deployment extends KubeObject {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly containers: readonly { readonly name: string; readonly args: readonly string[] }[];
      };
    };
  };
}

const NAMESPACE = "trilith";

const volumeControllers = [
  "persistentvolume-binder-controller",
  "persistentvolume-attach-detach-controller",
  "persistentvolume-expander-controller",
  "persistentvolumeclaim-protection-controller",
  "persistentvolume-protection-controller",
];

/** Starts Kubernetes' own controllers of volumes. */
export function startVolumeControllers(server: KubeServer, ...more: string[]): void {
  server.run("kube-controller-manager", [
    ...more,
    `--controllers=${volumeControllers.join(",")}`,
    "--leader-elect=false",
    `--bind-address=${server.address}`,
    `--cert-dir=${join(server.folder, "controller-manager")}`,
    // Without a kubelet that reports, a volume is given up at once.
    "--attach-detach-reconcile-sync-period=5s",
  ]);
}

/** Applies the manifest, as an administrator does. */
export async function applyManifest(
  server: KubeServer,
  ...options: string[]
): Promise<KubeObject[]> {
  const { items } = JSON.parse(manifestText("-o", "json", ...options)) as { items: KubeObject[] };
  for (const item of items) await applyObject(server.client, item);
  return items;
}

/** The kubelet's part of a node: that it is there, and has the driver. */
export async function addKubeNode(
  server: KubeServer,
  name: string,
  drivers: readonly string[],
): Promise<void> {
  const labels = { "openebs.io/nodename": name, "openebs.io/csi-node": "mayastor" };
  await applyObject(server.client, {
    apiVersion: "v1",
    kind: "Node",
    metadata: {
      name,
      labels,
      annotations: { "volumes.kubernetes.io/controller-managed-attach-detach": "true" },
    },
  });
  const node = {
    apiVersion: "storage.k8s.io/v1",
    kind: "CSINode",
    metadata: { name },
    spec: {
      drivers: drivers.map((driver) => ({
        name: driver,
        nodeID: name,
        topologyKeys: Object.keys(labels),
      })),
    },
  };
  await applyObject(server.client, node);
}

/** Starts `trilith csi --controller` and the sidecars of one driver's name. */
export async function startDriver(
  server: KubeServer,
  restUrl: string,
  driverName: string,
  manifest: readonly KubeObject[],
): Promise<Program> {
  const socket = join(server.folder, `${driverName}.sock`);
  const driver = new Program(server.folder, `trilith-csi-${driverName}`, [
    ...trilithCommand(),
    ...["csi", "--controller", "--driver-name", driverName],
    ...["--csi-socket", socket, "--rest", restUrl],
  ]);
  driver.start();
  server.keep(driver);
  const kubeconfig = await server.kubeconfigOf(NAMESPACE, "trilith-csi-controller");
  const deployment = manifest.find(({ kind }) => kind === "Deployment") as Deployment;
  for (const { name, args } of deployment.spec.template.spec.containers) {
    const given = args.map((arg) =>
      arg.replace("$(ADDRESS)", socket).replace("$(NAMESPACE)", NAMESPACE),
    );
    // Two drivers in one namespace: each with a lease of its own, which the sidecars name after it.
    server.run(name, given, { kubeconfig, label: `${name}-${driverName}` });
  }
  await waitUntil(
    "the driver's socket",
    () =>
      Bun.file(socket)
        .stat()
        .then(
          () => true,
          () => false,
        ),
    (is) => is,
  );
  return driver;
}
