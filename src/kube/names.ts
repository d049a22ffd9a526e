/** Names that Kubernetes knows the product's objects by (mayastor.md 3, 7.1). */
import type { Resource } from "./client/objects.ts";

export const POOL_GROUP = "openebs.io";
/** Versions of DiskPool, oldest first; the last one is what is stored. */
export const diskPoolVersions = ["v1alpha1", "v1beta1", "v1beta2", "v1beta3"] as const;
export const DISK_POOL_STORED = "v1beta3";

export const diskPools: Resource = {
  group: POOL_GROUP,
  version: DISK_POOL_STORED,
  plural: "diskpools",
  namespaced: true,
};
export const mayastorPools: Resource = {
  group: POOL_GROUP,
  version: "v1alpha1",
  plural: "mayastorpools",
  namespaced: true,
};

const core = (plural: string, namespaced: boolean): Resource => ({
  group: "",
  version: "v1",
  plural,
  namespaced,
});
export const events = core("events", true);
export const persistentVolumes = core("persistentvolumes", false);
export const persistentVolumeClaims = core("persistentvolumeclaims", true);

/** Keeps a pool's object until the pool is gone. */
export const POOL_FINALIZER = "openebs.io/diskpool-protection";
/** Label of pools that were made for an object of Kubernetes; volumes of claims are placed in them. */
export const CREATED_BY_LABEL = "openebs.io/created-by";
/** Value of that label at volumes that the CSI controller made. */
export const CREATED_BY_CSI = "csi-controller";
export const CREATED_BY_OPERATOR = "operator-diskpool";
/** `true`: take in what the disk has grown by. */
export const EXPAND_ANNOTATION = "openebs.io/expand";
/** What may be given up when the pool is deleted: `purge=true,accept=true,accept-data-loss=true`. */
export const DELETE_ANNOTATION = "openebs.io/delete-opts";

/** Label of nodes that the appliance runs on. */
export const ENGINE_LABEL = "openebs.io/engine";
export const ENGINE_LABEL_VALUE = "mayastor";
