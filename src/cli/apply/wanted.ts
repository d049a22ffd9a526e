/** What manifests ask for: pools, volumes and snapshots. Pure. */

import type { CreateVolumeBody, Labels } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import { type Manifest, objectAt, textAt } from "../../kube/manifest-file.ts";
import { poolOf, type WantedPool } from "../../kube/pool-object.ts";
import { parseSize } from "../../kube/size.ts";
import { type VolumeClass, volumeClassOf } from "./storage-class.ts";

export interface WantedVolume {
  readonly kind: "volume";
  readonly title: string;
  readonly id: string;
  readonly body: CreateVolumeBody;
  /** Snapshot that it is made of. */
  readonly snapshot: string | null;
}
export interface WantedSnapshot {
  readonly kind: "snapshot";
  readonly title: string;
  readonly id: string;
  readonly volume: string;
}
/** Nothing to be done, or nothing that can be. */
export interface Remark {
  readonly kind: "remark";
  readonly title: string;
  readonly text: string;
  /** Set when the manifest cannot be carried out. */
  readonly error?: TrilithError;
}
export type { WantedPool };
export type Wanted = WantedPool | WantedVolume | WantedSnapshot | Remark;

/** Namespace of the ids that are made from names (RFC 9562, 5.5), so that a second apply finds them. */
const ID_NAMESPACE = "6f1d2e0e-6a0c-5c1b-9f43-7472696c6974";
/** Labels that tell which claim a volume was made for. */
export const CLAIM_NAME = "trilith.io/claim-name";
export const CLAIM_NAMESPACE = "trilith.io/claim-namespace";
const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LABEL_LENGTH_MAX = 63;

/** Id of the volume of a claim: the UID that Kubernetes gave it, or one made of its name. */
export function claimVolumeId(manifest: Manifest): string {
  const spec = objectAt(manifest.fields.spec, `${manifest.where}: spec`);
  const named = textAt(spec.volumeName, `${manifest.where}: spec.volumeName`);
  const uid = textAt(manifest.metadata.uid, `${manifest.where}: metadata.uid`);
  const given = UUID.exec(named ?? "")?.[0] ?? UUID.exec(uid ?? "")?.[0];
  return given ?? Bun.randomUUIDv5(`claim/${manifest.namespace}/${manifest.name}`, ID_NAMESPACE);
}

function snapshotId(namespace: string, name: string, uid: string | undefined): string {
  return (
    UUID.exec(uid ?? "")?.[0] ?? Bun.randomUUIDv5(`snapshot/${namespace}/${name}`, ID_NAMESPACE)
  );
}

function sizeOfClaim(manifest: Manifest): number {
  const spec = objectAt(manifest.fields.spec, `${manifest.where}: spec`);
  const resources = objectAt(spec.resources, `${manifest.where}: spec.resources`);
  const requests = objectAt(resources.requests, `${manifest.where}: spec.resources.requests`);
  const text = textAt(requests.storage, `${manifest.where}: spec.resources.requests.storage`);
  const size = text === undefined ? undefined : parseSize(text);
  if (size === undefined || size === 0) {
    throw new TrilithError(
      "InvalidArgument",
      `${manifest.where}: spec.resources.requests.storage ${text === undefined ? "is missing" : `"${text}" is no size`}`,
      "write it like 10Gi",
    );
  }
  return size;
}

/** The class a claim asks for, among those of the same files. */
function classOf(
  manifest: Manifest,
  classes: ReadonlyMap<string, VolumeClass>,
  replicas: number | undefined,
): VolumeClass {
  const spec = objectAt(manifest.fields.spec, `${manifest.where}: spec`);
  const name = textAt(spec.storageClassName, `${manifest.where}: spec.storageClassName`);
  const found =
    name === undefined
      ? [...classes.values()].find(({ isDefault }) => isDefault)
      : classes.get(name);
  if (found !== undefined) return found;
  if (replicas !== undefined) {
    return {
      name: name ?? "",
      replicas,
      thin: false,
      maxSnapshots: null,
      affinityGroup: false,
      topology: null,
      isDefault: false,
      notes: [],
    };
  }
  throw new TrilithError(
    "NotFound",
    name === undefined
      ? `${manifest.where}: the claim names no StorageClass, and none of these files is the default`
      : `${manifest.where}: the StorageClass "${name}" is in none of these files`,
    "give its file too (-f class.yaml -f claim.yaml), or say how many copies: --replicas 3",
  );
}

/** `<namespace>/<name of the claim without its number>` for claims of a StatefulSet. */
function affinityGroup({ namespace, name }: Manifest): string | null {
  const match = /^([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)-\d+$/.exec(name);
  return match === null ? null : `${namespace}/${match[1]}`;
}

function claimLabels({ namespace, name }: Manifest): Labels {
  return {
    [CLAIM_NAMESPACE]: namespace.slice(0, LABEL_LENGTH_MAX),
    [CLAIM_NAME]: name.slice(0, LABEL_LENGTH_MAX).replace(/[^A-Za-z0-9]+$/, ""),
  };
}

function volumeOf(
  manifest: Manifest,
  classes: ReadonlyMap<string, VolumeClass>,
  replicas: number | undefined,
): WantedVolume {
  const chosen = classOf(manifest, classes, replicas);
  const spec = objectAt(manifest.fields.spec, `${manifest.where}: spec`);
  const modes = Array.isArray(spec.accessModes) ? spec.accessModes.map(String) : [];
  if (modes.some((mode) => mode !== "ReadWriteOnce")) {
    throw new TrilithError(
      "InvalidArgument",
      `${manifest.where}: access mode ${modes.join(", ")} is not possible`,
      "use ReadWriteOnce: one host at a time",
    );
  }
  const source = objectAt(spec.dataSource, `${manifest.where}: spec.dataSource`);
  const sourceName = textAt(source.name, `${manifest.where}: spec.dataSource.name`);
  if (sourceName !== undefined && source.kind !== "VolumeSnapshot") {
    throw new TrilithError(
      "Unimplemented",
      `${manifest.where}: a volume cannot be made of a ${String(source.kind)}`,
      "take a snapshot first, and use it as dataSource of kind VolumeSnapshot",
    );
  }
  const group = chosen.affinityGroup ? affinityGroup(manifest) : null;
  const snapshot =
    sourceName === undefined ? null : snapshotId(manifest.namespace, sourceName, undefined);
  return {
    kind: "volume",
    title: `persistentvolumeclaim/${manifest.name}`,
    id: claimVolumeId(manifest),
    snapshot,
    body: {
      policy: { self_heal: true },
      replicas: replicas ?? chosen.replicas,
      size: sizeOfClaim(manifest),
      // What is made of a snapshot shares its space: it can only be thin.
      thin: snapshot !== null || chosen.thin,
      labels: claimLabels(manifest),
      ...(chosen.topology === null ? {} : { topology: chosen.topology }),
      ...(group === null ? {} : { affinity_group: { id: group } }),
      ...(chosen.maxSnapshots === null ? {} : { max_snapshots: chosen.maxSnapshots }),
    },
  };
}

function snapshotOf(manifest: Manifest, claims: ReadonlyMap<string, string>): WantedSnapshot {
  const spec = objectAt(manifest.fields.spec, `${manifest.where}: spec`);
  const source = objectAt(spec.source, `${manifest.where}: spec.source`);
  const claim = textAt(source.persistentVolumeClaimName, `${manifest.where}: spec.source`);
  if (claim === undefined) {
    throw new TrilithError(
      "InvalidArgument",
      `${manifest.where}: spec.source.persistentVolumeClaimName has to name a claim`,
    );
  }
  const key = `${manifest.namespace}/${claim}`;
  const volume = claims.get(key) ?? Bun.randomUUIDv5(`claim/${key}`, ID_NAMESPACE);
  const uid = textAt(manifest.metadata.uid, `${manifest.where}: metadata.uid`);
  return {
    kind: "snapshot",
    title: `volumesnapshot.snapshot.storage.k8s.io/${manifest.name}`,
    id: snapshotId(manifest.namespace, manifest.name, uid),
    volume,
  };
}

/** Kind and group that a manifest is of, e.g. `DiskPool.openebs.io`. */
function typeOf({ kind, apiVersion }: Manifest): string {
  const slash = apiVersion.indexOf("/");
  return slash < 0 ? kind : `${kind}.${apiVersion.slice(0, slash)}`;
}

/**
 * What the manifests ask for, in the order it has to be done: pools, volumes, snapshots, volumes of
 * snapshots. What cannot be done comes as a remark with an error. `replicas`: for claims whose class
 * is not there, and instead of the class' number.
 */
export function wantedBy(manifests: readonly Manifest[], replicas: number | undefined): Wanted[] {
  const classes = new Map<string, VolumeClass>();
  const claims = new Map<string, string>();
  const wanted: Wanted[] = [];
  const attempt = (manifest: Manifest, make: () => Wanted): void => {
    const title = `${typeOf(manifest)}/${manifest.name}`.toLowerCase();
    try {
      wanted.push(make());
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      wanted.push({ kind: "remark", title, text: error.message, error });
    }
  };
  const ofType = (type: string) => manifests.filter((manifest) => typeOf(manifest) === type);
  for (const manifest of ofType("StorageClass.storage.k8s.io")) {
    attempt(manifest, () => {
      const made = volumeClassOf(manifest);
      classes.set(made.name, made);
      const notes = made.notes.length === 0 ? "" : ` (${made.notes.join("; ")})`;
      const text = `used by claims of these files, not kept${notes}`;
      return { kind: "remark", title: `storageclass.storage.k8s.io/${made.name}`, text };
    });
  }
  const done = new Set(["StorageClass.storage.k8s.io"]);
  const forType = (types: readonly string[], make: (manifest: Manifest) => Wanted) => {
    for (const type of types) {
      done.add(type);
      for (const manifest of ofType(type)) attempt(manifest, () => make(manifest));
    }
  };
  forType(["DiskPool.openebs.io", "MayastorPool.openebs.io"], poolOf);
  for (const manifest of ofType("PersistentVolumeClaim")) {
    claims.set(`${manifest.namespace}/${manifest.name}`, claimVolumeId(manifest));
  }
  forType(["PersistentVolumeClaim"], (manifest) => volumeOf(manifest, classes, replicas));
  forType(["VolumeSnapshot.snapshot.storage.k8s.io"], (manifest) => snapshotOf(manifest, claims));
  forType(["VolumeSnapshotClass.snapshot.storage.k8s.io"], (manifest) => ({
    kind: "remark",
    title: `volumesnapshotclass.snapshot.storage.k8s.io/${manifest.name}`,
    text: "nothing to do",
  }));
  for (const manifest of manifests.filter((one) => !done.has(typeOf(one)))) {
    attempt(manifest, () => {
      throw new TrilithError(
        "Unimplemented",
        `${manifest.where}: a ${manifest.kind} is nothing of trilith's`,
        "apply it to Kubernetes: kubectl apply -f",
      );
    });
  }
  // A volume of a snapshot comes after the snapshot, which comes after its volume.
  const order = (one: Wanted): number =>
    one.kind === "remark" || one.kind === "pool"
      ? 0
      : one.kind === "volume"
        ? one.snapshot === null
          ? 1
          : 3
        : 2;
  return wanted.sort((a, b) => order(a) - order(b));
}
