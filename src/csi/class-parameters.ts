/**
 * What the parameters of a StorageClass mean (mayastor.md 3.1). Pure: `trilith apply` and the CSI
 * controller read classes by this alone.
 */
import type { LabelledTopology, Labels, Topology } from "../client/types.ts";
import { TrilithError } from "../errors.ts";

/** Which replica placement a volume made of a snapshot needs: all copies, or at least one. */
export type RestorePolicy = "strict" | "bestEffort";
/** Whether a replica is to lie on the node of whoever uses the volume first. */
export type DataLocality = "none" | "preferred";

export interface VolumeClass {
  readonly replicas: number;
  readonly thin: boolean;
  readonly maxSnapshots: number | null;
  /** Volumes of one StatefulSet are spread over nodes. */
  readonly affinityGroup: boolean;
  readonly topology: Topology | null;
  readonly restorePolicy: RestorePolicy;
  /** Null: as the driver is set. */
  readonly dataLocality: DataLocality | null;
  /** Parameters that have no effect: of other drivers, or not known where the class allows that. */
  readonly ignored: readonly string[];
}

/** One of these is allowed at a time. */
const topologyParameters = [
  "poolAffinityTopologyLabel",
  "poolHasTopologyKey",
  "nodeAffinityTopologyLabel",
  "nodeHasTopologyKey",
  "nodeSpreadTopologyKey",
] as const;

const fileSystems = ["ext4", "xfs", "btrfs"];
const U32_MAX = 0xffff_ffff;
const INT32_MAX = 0x7fff_ffff;

type Check = (name: string, value: string, where: string) => void;

/** What a parameter that only nodes use may be. */
const nodeParameters: Readonly<Record<string, Check>> = {
  fsType: checkFileSystem,
  "csi.storage.k8s.io/fstype": checkFileSystem,
  ioTimeout: checkNumber,
  nvmeCtrlLossTmo: checkNumber,
  nvmeReconnectDelay: checkNumber,
  nvmeKeepAliveTmo: checkNumber,
  nvmeFastIoFailTmo: checkNumber,
  nvmeIoTimeout: checkNumber,
  nvmeNrIoQueues: checkNumber,
  nvmeQueueSize: checkNumber,
  cloneFsIdAsVolumeId: checkFlag,
  formatOptions: () => {},
  overrideGlobalFormatOpts: checkFlag,
  quiesceFs: (name, value, where) => void oneOf(name, value, ["none", "freeze"], where),
};

/** Of Mayastor before 2.0, and of Diamanti's driver: without an effect here. */
const idleParameters = ["local", "perfTier"];

const volumeParameters = [
  "protocol",
  "repl",
  "mirrorCount",
  "thin",
  "maxSnapshots",
  "stsAffinityGroup",
  "poolAffinityTopologyKey",
  ...topologyParameters,
  "encrypted",
  "rwxBlock",
  "poolClusterSize",
  "snapshotRestorePolicy",
  "dataLocality",
  "allowUnknownParameters",
];

/** Every parameter that a class may have. */
export const knownParameters: readonly string[] = [
  ...volumeParameters,
  ...Object.keys(nodeParameters),
  ...idleParameters,
];
const known: ReadonlySet<string> = new Set(knownParameters);

/** What the sidecars add of their own: the PVC's name and the like. */
const SIDECAR_PREFIX = "csi.storage.k8s.io/";

function invalid(name: string, what: string, where: string, remedy = ""): TrilithError {
  return new TrilithError("InvalidArgument", `${where}: parameter ${name} ${what}`, remedy);
}

function oneOf<T extends string>(
  name: string,
  value: string,
  allowed: readonly T[],
  where: string,
): T {
  const found = allowed.find((one) => one.toLowerCase() === value.toLowerCase());
  if (found !== undefined) return found;
  throw invalid(name, `is "${value}"; it has to be one of ${allowed.join(", ")}`, where);
}

function checkFileSystem(name: string, value: string, where: string): void {
  oneOf(name, value, fileSystems, where);
}

function flag(parameters: Labels, name: string, where: string): boolean {
  const value = parameters[name];
  if (value === undefined || /^(false|no|off)$/i.test(value)) return false;
  if (/^(true|yes|on)$/i.test(value)) return true;
  throw invalid(name, `is "${value}"; it has to be "true" or "false"`, where);
}

function checkFlag(name: string, value: string, where: string): void {
  flag({ [name]: value }, name, where);
}

function number(parameters: Labels, name: string, most: number, where: string): number | null {
  const value = parameters[name];
  if (value === undefined) return null;
  const parsed = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (parsed <= most) return parsed;
  throw invalid(name, `is "${value}"; it has to be a whole number up to ${most}`, where);
}

function checkNumber(name: string, value: string, where: string): void {
  number({ [name]: value }, name, U32_MAX, where);
}

function checkProtocol({ protocol = "nvmf" }: Labels, where: string): void {
  if (protocol === "nvmf") return;
  throw invalid("protocol", `is "${protocol}"; volumes are served by nvmf`, where);
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

function topologyOf(parameters: Labels, where: string): Topology | null {
  const given = topologyParameters.filter((name) => parameters[name] !== undefined);
  if (given.length > 1) {
    throw new TrilithError(
      "InvalidArgument",
      `${where}: Multiple topology parameters are not allowed (${given.join(", ")})`,
    );
  }
  const affinityKey = parameters.poolAffinityTopologyKey;
  const keyed = affinityKey === undefined ? {} : { affinity_key: Object.keys(lines(affinityKey)) };
  const onlyKeyed =
    affinityKey === undefined ? {} : { pool_topology: { labelled: labelled(keyed) } };
  const name = given[0];
  const value = name === undefined ? {} : lines(parameters[name]!);
  switch (name) {
    case "poolAffinityTopologyLabel":
    case "poolHasTopologyKey":
      return { pool_topology: { labelled: labelled({ ...keyed, inclusion: value }) } };
    case "nodeAffinityTopologyLabel":
    case "nodeHasTopologyKey":
      return { ...onlyKeyed, node_topology: { labelled: labelled({ inclusion: value }) } };
    case "nodeSpreadTopologyKey":
      return { ...onlyKeyed, node_topology: { labelled: labelled({ exclusion: value }) } };
    default:
      return affinityKey === undefined ? null : onlyKeyed;
  }
}

/** Refuses what Mayastor has and we do not, instead of giving something else in its name. */
function checkUnavailable(parameters: Labels, where: string): void {
  if (flag(parameters, "encrypted", where)) {
    throw new TrilithError(
      "Unimplemented",
      `${where}: pools are not encrypted by trilith`,
      "make pools of encrypted disks (dm-crypt) and choose them by poolAffinityTopologyLabel",
    );
  }
  if (flag(parameters, "rwxBlock", where)) {
    throw new TrilithError(
      "Unimplemented",
      `${where}: a volume is not served to two writers (rwxBlock)`,
      'leave rwxBlock out, and ask for the access mode "ReadWriteOnce"',
    );
  }
  if (parameters.poolClusterSize !== undefined) {
    throw new TrilithError(
      "Unimplemented",
      `${where}: pools are not chosen by their cluster size (poolClusterSize)`,
      "label the pools and choose them by poolAffinityTopologyLabel",
    );
  }
}

function replicasOf(parameters: Labels, where: string): number {
  const [repl, mirrorCount] = ["repl", "mirrorCount"].map((name) => {
    const count = number(parameters, name, 255, where);
    if (count === 0) throw invalid(name, "has to be 1 or more", where);
    return count;
  });
  if (repl != null && mirrorCount != null && repl !== mirrorCount) {
    throw invalid("mirrorCount", `is ${mirrorCount}, and repl is ${repl}`, where, "leave one out");
  }
  return repl ?? mirrorCount ?? 1;
}

/** Names that are not known. They are an error unless the class allows them. */
function unknownOf(parameters: Labels, where: string): string[] {
  const unknown = Object.keys(parameters).filter(
    (name) => !known.has(name) && !name.startsWith(SIDECAR_PREFIX),
  );
  if (unknown.length === 0 || flag(parameters, "allowUnknownParameters", where)) return unknown;
  const [first, ...others] = unknown;
  const more = others.length === 0 ? "" : ` (nor ${others.join(", ")})`;
  throw invalid(
    first!,
    `is not known${more}`,
    where,
    `known are ${knownParameters.join(", ")}; allowUnknownParameters: "true" ignores others`,
  );
}

/**
 * The class that parameters describe; `where` names it in errors. Throws `InvalidArgument` (a wrong
 * value, or a name that is not known), `Unimplemented`.
 */
export function volumeClassOf(parameters: Labels, where: string): VolumeClass {
  const idle = idleParameters.filter((name) => parameters[name] !== undefined);
  const ignored = [...idle, ...unknownOf(parameters, where)];
  checkProtocol(parameters, where);
  checkUnavailable(parameters, where);
  for (const [name, check] of Object.entries(nodeParameters)) {
    const value = parameters[name];
    if (value !== undefined) check(name, value, where);
  }
  const { snapshotRestorePolicy: restore = "strict", dataLocality } = parameters;
  const policies = ["strict", "bestEffort"] as const;
  const localities = ["none", "preferred"] as const;
  return {
    replicas: replicasOf(parameters, where),
    thin: flag(parameters, "thin", where),
    maxSnapshots: number(parameters, "maxSnapshots", INT32_MAX, where),
    affinityGroup: flag(parameters, "stsAffinityGroup", where),
    topology: topologyOf(parameters, where),
    restorePolicy: oneOf("snapshotRestorePolicy", restore, policies, where),
    dataLocality:
      dataLocality === undefined ? null : oneOf("dataLocality", dataLocality, localities, where),
    ignored,
  };
}
