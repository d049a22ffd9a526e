/**
 * What a StorageClass' parameters mean for a volume (mayastor.md 3.1). Pure. Parameters that only
 * matter to whoever mounts the volume are left to the CSI driver.
 */

import type { LabelledTopology, Labels, Topology } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import { type Manifest, textAt, textsAt } from "./manifest.ts";

export interface VolumeClass {
  readonly name: string;
  readonly replicas: number;
  readonly thin: boolean;
  readonly maxSnapshots: number | null;
  /** Volumes of one StatefulSet are spread over nodes. */
  readonly affinityGroup: boolean;
  readonly topology: Topology | null;
  readonly isDefault: boolean;
  /** What was found and has no effect here. */
  readonly notes: readonly string[];
}

/** Drivers whose classes are understood: ours (a setting of Mayastor's) and Diamanti's. */
const provisioners = ["io.openebs.csi-mayastor", "dcx.csi.diamanti.com", "csi.trilith.io"];
const DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class";

/** Of no effect without a host that mounts. */
const mountParameters = new Set([
  "fsType",
  "csi.storage.k8s.io/fstype",
  "ioTimeout",
  "nvmeCtrlLossTmo",
  "nvmeKeepAliveTmo",
  "nvmeIoTimeout",
  "nvmeNrIoQueues",
  "cloneFsIdAsVolumeId",
  "formatOptions",
  "overrideGlobalFormatOpts",
  "quiesceFs",
]);

const topologyParameters = [
  "poolAffinityTopologyLabel",
  "poolHasTopologyKey",
  "nodeAffinityTopologyLabel",
  "nodeHasTopologyKey",
  "nodeSpreadTopologyKey",
];

function invalid(manifest: Manifest, parameter: string, what: string): TrilithError {
  return new TrilithError("InvalidArgument", `${manifest.where}: parameter ${parameter} ${what}`);
}

/** Lines of `key: value` or of keys, as these parameters are written. */
function lines(text: string): Labels {
  return Object.fromEntries(
    text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "")
      .map((line) => {
        const [key, ...value] = line.split(":");
        return [key!.trim(), value.join(":").trim()];
      }),
  );
}

function labelled(part: Partial<LabelledTopology>): LabelledTopology {
  return { exclusion: {}, inclusion: {}, ...part };
}

function topologyOf(manifest: Manifest, parameters: Labels): Topology | null {
  const given = topologyParameters.filter((name) => parameters[name] !== undefined);
  if (given.length > 1) {
    throw new TrilithError(
      "InvalidArgument",
      `${manifest.where}: Multiple topology parameters are not allowed (${given.join(", ")})`,
    );
  }
  const affinityKey = parameters.poolAffinityTopologyKey;
  const name = given[0];
  const value = name === undefined ? {} : lines(parameters[name]!);
  const node = (part: Partial<LabelledTopology>) => ({
    node_topology: { labelled: labelled(part) },
  });
  const pool = (part: Partial<LabelledTopology>) => ({
    pool_topology: { labelled: labelled(part) },
  });
  const keyed =
    affinityKey === undefined ? {} : pool({ affinity_key: Object.keys(lines(affinityKey)) });
  switch (name) {
    case "poolAffinityTopologyLabel":
    case "poolHasTopologyKey":
      return { ...keyed, ...pool({ inclusion: value }) };
    case "nodeAffinityTopologyLabel":
    case "nodeHasTopologyKey":
      return { ...keyed, ...node({ inclusion: value }) };
    case "nodeSpreadTopologyKey":
      return { ...keyed, ...node({ exclusion: value }) };
    default:
      return affinityKey === undefined ? null : keyed;
  }
}

function flag(manifest: Manifest, parameters: Labels, name: string): boolean {
  const value = parameters[name];
  if (value === undefined || /^(false|no|off)$/i.test(value)) return false;
  if (/^(true|yes|on)$/i.test(value)) return true;
  throw invalid(manifest, name, `is "${value}"; it has to be "true" or "false"`);
}

function number(manifest: Manifest, parameters: Labels, name: string, most: number): number | null {
  const value = parameters[name];
  if (value === undefined) return null;
  const parsed = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (parsed <= most) return parsed;
  throw invalid(manifest, name, `is "${value}"; it has to be a whole number up to ${most}`);
}

/** The class that a StorageClass describes. Throws `InvalidArgument`, `Unimplemented`. */
export function volumeClassOf(manifest: Manifest): VolumeClass {
  const provisioner = textAt(manifest.fields.provisioner, `${manifest.where}: provisioner`) ?? "";
  if (!provisioners.includes(provisioner)) {
    throw new TrilithError(
      "InvalidArgument",
      `${manifest.where}: the provisioner "${provisioner}" is another driver's`,
      `use ${provisioners[0]}`,
    );
  }
  const parameters = textsAt(manifest.fields.parameters, `${manifest.where}: parameters`);
  const protocol = parameters.protocol ?? "nvmf";
  if (protocol !== "nvmf") {
    throw invalid(manifest, "protocol", `is "${protocol}"; volumes are served by nvmf`);
  }
  if (flag(manifest, parameters, "encrypted")) {
    throw new TrilithError(
      "Unimplemented",
      `${manifest.where}: pools are not encrypted by trilith`,
      "make pools of encrypted disks (dm-crypt) and choose them by poolAffinityTopologyLabel",
    );
  }
  const repl =
    number(manifest, parameters, "repl", 255) ?? number(manifest, parameters, "mirrorCount", 255);
  if (repl === 0) throw invalid(manifest, "repl", "has to be 1 or more");
  const known = new Set([
    "protocol",
    "encrypted",
    "repl",
    "mirrorCount",
    "thin",
    "maxSnapshots",
    "stsAffinityGroup",
    "poolAffinityTopologyKey",
    ...topologyParameters,
  ]);
  const notes = Object.keys(parameters)
    .filter((name) => !known.has(name) && !mountParameters.has(name))
    .map((name) => `parameter ${name} has no effect`);
  const annotations = textsAt(manifest.metadata.annotations, `${manifest.where}: annotations`);
  return {
    name: manifest.name,
    replicas: repl ?? 1,
    thin: flag(manifest, parameters, "thin"),
    maxSnapshots: number(manifest, parameters, "maxSnapshots", 0x7fff_ffff),
    affinityGroup: flag(manifest, parameters, "stsAffinityGroup"),
    topology: topologyOf(manifest, parameters),
    isDefault: annotations[DEFAULT_CLASS] === "true",
    notes,
  };
}
