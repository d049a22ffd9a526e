/** What the manifest is made for. */

/** A StorageClass that is asked for. */
export interface ClassOption {
  readonly name: string;
  readonly parameters: Readonly<Record<string, string>>;
  readonly reclaimPolicy: "Delete" | "Retain";
  readonly volumeBindingMode: "Immediate" | "WaitForFirstConsumer";
  readonly mountOptions: readonly string[];
  readonly isDefault: boolean;
}

/** Images of the controller's sidecars, which the Kubernetes project publishes. */
export interface SidecarImages {
  readonly provisioner: string;
  readonly attacher: string;
  readonly resizer: string;
  readonly snapshotter: string;
}

export interface ManifestOptions {
  readonly namespace: string;
  readonly driverName: string;
  readonly kubeletDir: string;
  /** Socket of the appliance's CSI service on its node. */
  readonly csiSocket: string;
  /** Copies of the controller; one of them works at a time. */
  readonly controllerReplicas: number;
  readonly images: SidecarImages;
  /** Snapshots through Kubernetes: its definitions and controller of snapshots have to be there. */
  readonly withSnapshots: boolean;
  /** The scheduler asks for free capacity before it chooses a node. */
  readonly withCapacity: boolean;
  readonly classes: readonly ClassOption[];
  /** Null: nothing for Prometheus' operator. */
  readonly prometheus: {
    /** Addresses of the nodes' metrics. */
    readonly addresses: readonly string[];
    readonly port: number;
    /** Groups of alert rules. */
    readonly groups: readonly unknown[];
  } | null;
  /** Null: every node that uses volumes has the appliance. */
  readonly daemonSet: {
    readonly image: string;
    /** Where the API is. */
    readonly rest: string;
    /** Secret with the key `token` and, for a certificate authority, `ca.crt`; null: none. */
    readonly secret: string | null;
  } | null;
}

/** Where the Kubernetes project publishes its images. */
export const SIDECAR_REGISTRY = "registry.k8s.io";

/** Versions that the tests run. */
const sidecarVersions = {
  provisioner: "csi-provisioner:v6.3.0",
  attacher: "csi-attacher:v4.12.0",
  resizer: "csi-resizer:v2.2.0",
  snapshotter: "csi-snapshotter:v8.6.0",
} as const satisfies Record<keyof SidecarImages, string>;

const withoutSlash = (text: string) => text.replace(/\/+$/, "");

/** The sidecars' images below a registry (or a mirror's prefix), unless one is named itself. */
export function sidecarImages(registry: string, named: Partial<SidecarImages>): SidecarImages {
  const prefix = withoutSlash(registry);
  const at = (name: keyof SidecarImages) =>
    named[name] ?? `${prefix}/sig-storage/${sidecarVersions[name]}`;
  return {
    provisioner: at("provisioner"),
    attacher: at("attacher"),
    resizer: at("resizer"),
    snapshotter: at("snapshotter"),
  };
}
