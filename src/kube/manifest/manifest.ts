/**
 * Everything that Kubernetes has to know to use a cluster: what a Helm chart is for others, as plain
 * objects in the order they are to be made. The same options give the same bytes. Pure.
 */
import { diskPoolDefinition, mayastorPoolDefinition } from "./crds.ts";
import { monitoringOf } from "./monitoring.ts";
import type { ClassOption, ManifestOptions } from "./options.ts";
import { rightsOf } from "./rights.ts";
import { controllerDeployment, nodeDaemonSet } from "./workloads.ts";

interface Named {
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
}

/** The object with the label that all of ours have, for `kubectl get -l` and pruning. */
function partOf(object: object): object {
  const { metadata } = object as Named;
  const labels = { ...metadata.labels, "app.kubernetes.io/part-of": "trilith" };
  return { ...object, metadata: { ...metadata, labels } };
}

function driver({ driverName, withCapacity }: ManifestOptions): object {
  return {
    apiVersion: "storage.k8s.io/v1",
    kind: "CSIDriver",
    metadata: { name: driverName },
    spec: {
      attachRequired: true,
      podInfoOnMount: false,
      fsGroupPolicy: "File",
      storageCapacity: withCapacity,
      volumeLifecycleModes: ["Persistent"],
    },
  };
}

function storageClass(driverName: string, wanted: ClassOption): object {
  return {
    apiVersion: "storage.k8s.io/v1",
    kind: "StorageClass",
    metadata: {
      name: wanted.name,
      ...(wanted.isDefault
        ? { annotations: { "storageclass.kubernetes.io/is-default-class": "true" } }
        : {}),
    },
    provisioner: driverName,
    parameters: wanted.parameters,
    reclaimPolicy: wanted.reclaimPolicy,
    volumeBindingMode: wanted.volumeBindingMode,
    allowVolumeExpansion: true,
    ...(wanted.mountOptions.length === 0 ? {} : { mountOptions: wanted.mountOptions }),
  };
}

function snapshotClass(driverName: string): object {
  return {
    apiVersion: "snapshot.storage.k8s.io/v1",
    kind: "VolumeSnapshotClass",
    metadata: { name: "trilith" },
    driver: driverName,
    deletionPolicy: "Delete",
  };
}

/** The objects, in the order they are to be made. */
export function manifestOf(options: ManifestOptions): object[] {
  const { driverName, namespace, prometheus, daemonSet } = options;
  const objects = [
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: {
        name: namespace,
        // The sidecars mount a folder of the node, the node service is privileged.
        labels: { "pod-security.kubernetes.io/enforce": "privileged" },
      },
    },
    diskPoolDefinition(),
    mayastorPoolDefinition(),
    ...rightsOf(options),
    driver(options),
    controllerDeployment(options),
    ...(daemonSet === null ? [] : [nodeDaemonSet(options, daemonSet)]),
    ...options.classes.map((wanted) => storageClass(driverName, wanted)),
    ...(options.withSnapshots ? [snapshotClass(driverName)] : []),
    ...(prometheus === null ? [] : monitoringOf(namespace, prometheus)),
  ];
  return objects.map(partOf);
}

/** The objects as a stream of YAML documents, without anchors: what is used twice stands there twice. */
export function manifestYaml(objects: readonly object[]): string {
  return objects
    .map((object) => JSON.parse(JSON.stringify(object)) as object)
    .map((plain) => `---\n${Bun.YAML.stringify(plain, null, 2).trim()}\n`)
    .join("");
}

/** The objects as one `List`. */
export function manifestJson(objects: readonly object[]): string {
  return `${JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }, null, 2)}\n`;
}
