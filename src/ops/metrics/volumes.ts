/** Metrics of the volumes that are published on this node: their nexuses, children and rebuilds. */
import type { Nexus, NexusChild, Rebuild } from "../../engine/rpc/nexuses.ts";
import { gauge } from "./definition.ts";
import type { EngineReading } from "./engine-source.ts";
import type { Exposition } from "./exposition.ts";
import { persistentVolumeName } from "./io.ts";

const NEXUS = ["node", "pv_name", "nexus"] as const;
const REBUILD = ["node", "pv_name", "nexus", "child"] as const;

export const nexusMetrics = {
  status: gauge(
    "trilith_nexus_status",
    "State of the nexus: 0 not open, 1 online, 2 degraded, 3 faulted",
    ...NEXUS,
  ),
  children: gauge("trilith_nexus_children", "Children of the nexus by state", ...NEXUS, "state"),
  dirtyRegions: gauge(
    "trilith_nexus_dirty_regions",
    "Regions that would be compared after an unclean stop of the nexus",
    ...NEXUS,
  ),
  waiting: gauge(
    "trilith_nexus_waiting_requests",
    "Requests of hosts that wait for something other than a disk",
    ...NEXUS,
  ),
  paused: gauge("trilith_nexus_paused", "1 while requests of hosts are kept waiting", ...NEXUS),
  rebuilds: gauge("trilith_nexus_rebuilds", "Rebuilds that run or wait", ...NEXUS),
} as const;

export const rebuildMetrics = {
  progress: gauge(
    "trilith_rebuild_progress_ratio",
    "Share of the rebuild that is done, 0 to 1",
    ...REBUILD,
  ),
  rate: gauge(
    "trilith_rebuild_bytes_per_second",
    "Bytes of the volume that the rebuild deals with per second",
    ...REBUILD,
  ),
  eta: gauge(
    "trilith_rebuild_eta_seconds",
    "Estimated time until the rebuild is done; absent before there is a rate",
    ...REBUILD,
  ),
  totalBytes: gauge("trilith_rebuild_size_bytes", "Bytes that the rebuild looks at", ...REBUILD),
  recoveredBytes: gauge(
    "trilith_rebuild_recovered_bytes",
    "Bytes that the rebuild has dealt with",
    ...REBUILD,
  ),
  transferredBytes: gauge(
    "trilith_rebuild_transferred_bytes",
    "Bytes that the rebuild has had to write",
    ...REBUILD,
  ),
  partial: gauge(
    "trilith_rebuild_partial",
    "1 when only the regions written meanwhile are copied, 0 when all of the volume is",
    ...REBUILD,
  ),
  paused: gauge("trilith_rebuild_paused", "1 while the rebuild is paused", ...REBUILD),
} as const;

const statusNumber: Readonly<Record<Nexus["state"], number>> = {
  unknown: 0,
  init: 0,
  online: 1,
  degraded: 2,
  faulted: 3,
  "shutting-down": 0,
  shutdown: 0,
};
const childStates: readonly NexusChild["state"][] = ["online", "degraded", "faulted", "unknown"];

/** The UUID that a child's URI ends with, which is its replica's; else the URI. */
export function childName(uri: string): string {
  const uuids = uri.match(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/gi);
  return uuids?.at(-1) ?? uri;
}

function collectRebuild(out: Exposition, of: readonly string[], rebuild: Rebuild): void {
  const m = rebuildMetrics;
  const { blockSize } = rebuild;
  out.add(m.progress, of, rebuild.progressPercent / 100);
  out.add(m.rate, of, rebuild.bytesPerSec);
  if (rebuild.etaMs !== null) out.add(m.eta, of, rebuild.etaMs / 1000);
  out.add(m.totalBytes, of, rebuild.blocksTotal * blockSize);
  out.add(m.recoveredBytes, of, rebuild.blocksRecovered * blockSize);
  out.add(m.transferredBytes, of, rebuild.blocksTransferred * blockSize);
  out.add(m.partial, of, rebuild.isPartial ? 1 : 0);
  out.add(m.paused, of, rebuild.state === "paused" ? 1 : 0);
}

export function collectNexuses(out: Exposition, { info, nexuses }: EngineReading): void {
  const m = nexusMetrics;
  for (const nexus of nexuses) {
    const of = [info.nodeName, persistentVolumeName(nexus.volumeUuid), nexus.uuid];
    out.add(m.status, of, statusNumber[nexus.state]);
    out.add(m.dirtyRegions, of, nexus.dirtyRegions);
    out.add(m.waiting, of, nexus.waitingRequests);
    out.add(m.paused, of, nexus.isPaused ? 1 : 0);
    out.add(m.rebuilds, of, nexus.rebuilds);
    for (const state of childStates) {
      const count = nexus.children.filter((child) => child.state === state).length;
      out.add(m.children, [...of, state], count);
    }
    for (const { uri, rebuild } of nexus.children) {
      if (rebuild !== null) collectRebuild(out, [...of, childName(uri)], rebuild);
    }
  }
}
