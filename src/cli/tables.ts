/** The tables of `trilith get`: headings as in mayastor.md 2, and a row (or rows) of each object. */

import type {
  BlockDevice,
  ClusterEvent,
  ClusterStatus,
  Labels,
  Node,
  Pool,
  RebuildRecord,
  ReplicaTopology,
  Volume,
  VolumeSnapshot,
} from "../client/types.ts";
import { statusCell } from "./output/color.ts";
import { humanSize } from "./output/size.ts";
import { type Cell, treeCell } from "./output/table.ts";

/** Sectors that the contract counts the size of disks in. */
const SECTOR_BYTES = 512;

function sizeCell(bytes: number | null | undefined): string | undefined {
  return bytes === null || bytes === undefined ? undefined : humanSize(bytes);
}

/** Label that an operator puts on its pools: of no interest to people. */
const CREATED_BY = "openebs.io/created-by";

/** Labels that people put there, sorted by key. */
export function shownLabels(labels: Labels | null | undefined): [key: string, value: string][] {
  return Object.entries(labels ?? {})
    .filter(([key]) => key !== CREATED_BY)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

export function labelsText(labels: Labels | null | undefined): string {
  return shownLabels(labels)
    .map(([key, value]) => (value === "" ? key : `${key}=${value}`))
    .join(", ");
}

export const volumeHeadings = [
  "ID",
  "REPLICAS",
  "TARGET-NODE",
  "ACCESSIBILITY",
  "STATUS",
  "SIZE",
  "THIN-PROVISIONED",
  "ALLOCATED",
  "SNAPSHOTS",
  "SOURCE",
];

export function volumeRow({ spec, state }: Volume): Cell[] {
  return [
    spec.uuid,
    spec.num_replicas,
    state.target?.node ?? spec.target?.node,
    accessibility(state.target?.protocol ?? spec.target?.protocol),
    statusCell(spec.status === "Created" ? state.status : spec.status),
    humanSize(spec.size),
    spec.thin ? "true" : spec.as_thin === true ? "true (snapped)" : "false",
    sizeCell(state.usage?.allocated),
    spec.num_snapshots,
    hasSource(spec) ? "Snapshot" : undefined,
  ];
}

function accessibility(protocol: string | null | undefined): string | undefined {
  return protocol === "none" ? undefined : (protocol ?? undefined);
}

/** The volume was made of a snapshot. */
export function hasSource(spec: Volume["spec"]): boolean {
  return spec.content_source?.snapshot !== undefined && spec.content_source.snapshot !== null;
}

export const poolHeadings = [
  "ID",
  "DISKS",
  "MANAGED",
  "NODE",
  "STATUS",
  "CAPACITY",
  "ALLOCATED",
  "AVAILABLE",
  "COMMITTED",
];

export function poolRow({ id, spec, state }: Pool): Cell[] {
  return [
    id,
    (state?.disks ?? spec?.disks ?? []).join(", "),
    spec !== null && spec !== undefined,
    state?.node ?? spec?.node,
    statusCell(poolStatus(spec, state)),
    sizeCell(state?.capacity),
    sizeCell(state?.used),
    state === null || state === undefined
      ? undefined
      : humanSize(Math.max(0, state.capacity - state.used)),
    sizeCell(state?.committed),
  ];
}

/** `Online`, `Online, Cordoned`, `Creating`. */
export function poolStatus(spec: Pool["spec"], state: Pool["state"]): string {
  const base =
    spec?.status === "Creating" || spec?.status === "Deleting"
      ? spec.status
      : (state?.status ?? "Unknown");
  return spec?.cordoned === true ? `${base}, Cordoned` : base;
}

export const nodeHeadings = ["ID", "GRPC ENDPOINT", "STATUS", "VERSION"];

/** `Online`, `Online, Cordoned`, `Offline, Cordoned, Draining`, `Online, Drained`. */
export function nodeStatus(node: Node): string {
  const parts: string[] = [node.state?.status ?? "Unknown"];
  const drain = node.spec?.cordondrainstate;
  // A drain keeps off what is new, as a cordon does.
  if (cordonLabels(node).length + drainLabels(node).length > 0) parts.push("Cordoned");
  if (drain?.drainedstate) parts.push("Drained");
  else if (drain?.drainingstate) parts.push("Draining");
  return parts.join(", ");
}

export function cordonLabels(node: Node): readonly string[] {
  const drain = node.spec?.cordondrainstate;
  return (drain?.cordonedstate ?? drain?.drainingstate ?? drain?.drainedstate)?.cordonlabels ?? [];
}

export function drainLabels(node: Node): readonly string[] {
  const drain = node.spec?.cordondrainstate;
  return (drain?.drainingstate ?? drain?.drainedstate)?.drainlabels ?? [];
}

export function nodeRow(node: Node): Cell[] {
  return [
    node.id,
    node.state?.grpcEndpoint ?? node.spec?.grpcEndpoint,
    statusCell(nodeStatus(node)),
    node.state?.version ?? node.spec?.version,
  ];
}

export const cordonHeadings = [...nodeHeadings, "CORDON LABELS"];

/** A drain holds a node back as a cordon does, so its labels are told too. */
export function cordonRow(node: Node): Cell[] {
  return [...nodeRow(node), [...cordonLabels(node), ...drainLabels(node)].join(", ")];
}

export const drainHeadings = [...nodeHeadings, "DRAIN STATE", "DRAIN LABELS"];

export function drainState(node: Node): "Not draining" | "Draining" | "Drained" {
  const drain = node.spec?.cordondrainstate;
  if (drain?.drainedstate) return "Drained";
  return drain?.drainingstate ? "Draining" : "Not draining";
}

export function drainRow(node: Node): Cell[] {
  return [...nodeRow(node), drainState(node), drainLabels(node).join(", ")];
}

export const replicaHeadings = [
  "ID",
  "NODE",
  "POOL",
  "STATUS",
  "CAPACITY",
  "ALLOCATED",
  "SNAPSHOTS",
  "CHILD-STATUS",
  "REASON",
  "REBUILD",
];

function replicaRow(id: string, replica: ReplicaTopology): Cell[] {
  const progress = replica["rebuild-progress"];
  return [
    id,
    replica.node,
    replica.pool,
    statusCell(replica.state),
    sizeCell(replica.usage?.capacity),
    sizeCell(replica.usage?.allocated),
    sizeCell(replica.usage?.allocated_snapshots),
    statusCell(replica["child-status"]),
    replica["child-status-reason"],
    progress === null || progress === undefined ? undefined : `${progress}%`,
  ];
}

/** A row for each replica of a volume. */
export function replicaRows({ state }: Volume): Cell[][] {
  return Object.entries(state.replica_topology).map(([id, replica]) => replicaRow(id, replica));
}

export const volumeReplicaHeadings = ["VOLUME-ID", ...replicaHeadings];

/** The same with the volume before its replicas. */
export function volumeReplicaRows(volume: Volume): Cell[][] {
  const rows = replicaRows(volume);
  return rows.map((row, index) => [treeCell(volume.spec.uuid, index, rows.length), ...row]);
}

export const snapshotHeadings = [
  "ID",
  "TIMESTAMP",
  "SOURCE-SIZE",
  "ALLOCATED-SIZE",
  "TOTAL-ALLOCATED-SIZE",
  "SOURCE-VOL",
  "RESTORES",
  "SNAPSHOT_REPLICAS",
];

export function snapshotRow({ definition, state }: VolumeSnapshot): Cell[] {
  const { metadata, spec } = definition;
  return [
    spec.uuid,
    state.timestamp ?? metadata.timestamp,
    humanSize(metadata.spec_size),
    humanSize(state.allocated_size),
    humanSize(metadata.total_allocated_size),
    spec.source_volume,
    metadata.num_restores,
    metadata.num_snapshot_replicas,
  ];
}

export const snapshotReplicaHeadings = [
  "SNAPSHOT-ID",
  "ID",
  "POOL",
  "SNAPSHOT_STATUS",
  "SIZE",
  "ALLOCATED_SIZE",
  "SOURCE",
];

export function snapshotReplicaRows({ state }: VolumeSnapshot): Cell[][] {
  const replicas = state.replica_snapshots;
  return replicas.map(({ online, offline }, index) => {
    const ids = online ?? offline;
    return [
      treeCell(state.uuid, index, replicas.length),
      ids?.uuid,
      ids?.pool_id,
      statusCell(online ? "Online" : "Offline"),
      sizeCell(online?.size),
      sizeCell(online?.allocated_size),
      ids?.source_id,
    ];
  });
}

export const rebuildHeadings = [
  "DST",
  "SRC",
  "STATE",
  "TOTAL",
  "RECOVERED",
  "TRANSFERRED",
  "IS-PARTIAL",
  "START-TIME",
  "END-TIME",
];

export function rebuildRow(record: RebuildRecord): Cell[] {
  const size = (blocks: number) => humanSize(blocks * record.blockSize);
  return [
    record.childUri,
    record.srcUri,
    statusCell(record.rebuildJobState),
    size(record.blocksTotal),
    size(record.blocksRecovered),
    size(record.blocksTransferred),
    record.isPartial,
    record.startTime,
    record.endTime,
  ];
}

export const currentRebuildHeadings = [
  "VOLUME",
  "REPLICA",
  "NODE",
  "STATE",
  "KIND",
  "PROGRESS",
  "WAITS-FOR",
];

/** Rebuilds of the whole cluster: those that run, then those that wait, the next one first. */
export function currentRebuildRows({ running, queued = [] }: ClusterStatus["rebuilds"]): Cell[][] {
  return [
    ...running.map(({ volume, node, rebuild }): Cell[] => [
      volume,
      rebuild.replica,
      node,
      statusCell(rebuild.rebuildJobState),
      rebuild.isPartial ? "partial" : "full",
      `${Math.floor(rebuild.progressPercent)}%`,
      undefined,
    ]),
    ...queued.map((one): Cell[] => [
      one.volume,
      one.replica,
      one.node,
      "Queued",
      undefined,
      undefined,
      one.reason,
    ]),
  ];
}

const blockDeviceStart = ["DEVNAME", "DEVTYPE", "SIZE", "AVAILABLE", "MODEL", "DEVPATH"];
const blockDeviceEnd = ["MAJOR", "MINOR", "DEVLINKS"];
export const blockDeviceHeadings = [...blockDeviceStart, ...blockDeviceEnd];
export const allBlockDeviceHeadings = [
  ...blockDeviceStart,
  "FSTYPE",
  "FSUUID",
  "MOUNTPOINT",
  "PARTTYPE",
  ...blockDeviceEnd,
];

/** With what lies on the device when `all` are listed; the cells stand below their headings. */
export function blockDeviceRow(device: BlockDevice, all: boolean): Cell[] {
  const on = device.filesystem;
  return [
    device.devname,
    device.devtype,
    humanSize(device.size * SECTOR_BYTES),
    device.available ? "yes" : "no",
    device.model,
    device.devpath,
    ...(all ? [on?.fstype, on?.uuid, on?.mountpoint, device.partition?.typeid] : []),
    device.devmajor,
    device.devminor,
    device.devlinks.map((link) => `"${link}"`).join(", "),
  ];
}

export const eventHeadings = [
  "ID",
  "TIMESTAMP",
  "CATEGORY",
  "ACTION",
  "TARGET",
  "NODE",
  "COMPONENT",
  "MESSAGE",
];

export function eventRow(event: ClusterEvent): Cell[] {
  return [
    event.id,
    event.at,
    event.category,
    event.action,
    event.target,
    event.node,
    event.component,
    event.message,
  ];
}
