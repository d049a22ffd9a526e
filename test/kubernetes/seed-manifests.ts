/** Manifests as Mayastor's documents of several years give them, with names put in. */

/** OpenEBS 2.x: DiskPool v1beta2. */
export const diskPoolV1beta2 = (node: string, disk: string) => `
apiVersion: "openebs.io/v1beta2"
kind: DiskPool
metadata:
  name: pool-v1beta2
  namespace: openebs
spec:
  node: ${node}
  disks: ["${disk}"]
`;

/** Mayastor 2.0: DiskPool v1alpha1, on memory. */
export const diskPoolV1alpha1 = (node: string) => `
apiVersion: "openebs.io/v1alpha1"
kind: DiskPool
metadata:
  name: mempool-1
  namespace: mayastor
spec:
  node: ${node}
  disks: ["malloc:///malloc0?size_mb=64"]
`;

/** Mayastor 2.0: DiskPool v1alpha1, on a file. */
export const filePoolV1alpha1 = (node: string, path: string) => `
apiVersion: "openebs.io/v1alpha1"
kind: DiskPool
metadata:
  name: filepool-1
  namespace: mayastor
spec:
  node: ${node}
  disks: ["aio://${path}"]
`;

/** Mayastor 0.x: MayastorPool. */
export const mayastorPool = (node: string, disk: string) => `
apiVersion: "openebs.io/v1alpha1"
kind: MayastorPool
metadata:
  name: pool
spec:
  node: ${node}
  disks: ["${disk}"]
`;

/** Classes of all generations. */
export const storageClasses = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: mayastor-3
parameters:
  protocol: nvmf
  repl: "3"
provisioner: io.openebs.csi-mayastor
---
kind: StorageClass
apiVersion: storage.k8s.io/v1
metadata:
  name: mayastor
provisioner: io.openebs.csi-mayastor
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: mayastor-1
parameters:
  ioTimeout: "30"
  protocol: nvmf
  repl: "1"
provisioner: io.openebs.csi-mayastor
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: high2m
parameters:
  fsType: xfs
  mirrorCount: "2"
  perfTier: high
provisioner: dcx.csi.diamanti.com
reclaimPolicy: Delete
volumeBindingMode: Immediate
allowVolumeExpansion: true
`;

/** The claim of the quick starts, of one class or another. */
export const claim = (name: string, storageClass: string) => `
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: ${name}
spec:
  accessModes:
  - ReadWriteOnce
  resources:
    requests:
      storage: 1Gi
  storageClassName: ${storageClass}
`;
