/** Claims and their volumes in Kubernetes, as far as the collector looks into them. */
import type { KubeObject } from "../client/objects.ts";

export interface PersistentVolume extends KubeObject {
  readonly spec: {
    readonly persistentVolumeReclaimPolicy?: string;
    readonly csi?: { readonly driver: string; readonly volumeHandle: string };
  };
}

export type Claim = KubeObject;
