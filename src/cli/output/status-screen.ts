/** The screen of `trilith status`, as text. */
import type { ClusterStatus, RunningRebuild, Warning } from "../../client/types.ts";
import { scrubProgress } from "../scrub-text.ts";
import { type Paint, statusCell, type Tone } from "./color.ts";
import { humanDuration, humanSize } from "./size.ts";
import { type Cell, renderTable } from "./table.ts";

/** Rows of a section that are shown; the rest is counted. */
const ROWS_MAX = 20;
const BAR_LENGTH = 20;

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function section<T>(
  paint: Paint,
  title: string,
  headings: readonly string[],
  items: readonly T[],
  row: (item: T) => Cell[],
): string[] {
  const shown = renderTable(headings, items.slice(0, ROWS_MAX).map(row), paint);
  const lines = [paint("bold", title), ...shown.split("\n").map((line) => `  ${line}`)];
  if (items.length > ROWS_MAX) lines.push(`  … and ${items.length - ROWS_MAX} more`);
  return lines;
}

function headline(status: ClusterStatus, paint: Paint): string {
  const { cluster } = status;
  const voters = cluster.members.filter(({ voter }) => voter).length;
  const leader = cluster.leader ?? undefined;
  const lead =
    leader === undefined ? paint("bad", "no leader: nothing can be changed") : `leader ${leader}`;
  return (
    `${paint("bold", "Cluster")}  ${plural(cluster.members.length, "member")} ` +
    `(${plural(voters, "voter")}), ${lead}, term ${cluster.raft.term}, ` +
    `index ${cluster.raft.appliedIndex}`
  );
}

function nodeLines(status: ClusterStatus, paint: Paint): string[] {
  const headings = ["ID", "STATUS", "VERSION", "POOLS", "REPLICAS", "TARGETS"];
  return section(paint, "Nodes", headings, status.nodes, (node) => {
    const state: string[] = [node.status];
    if (node.cordoned) state.push("Cordoned");
    if (node.drain === "draining") state.push("Draining");
    if (node.drain === "drained") state.push("Drained");
    return [
      node.id,
      statusCell(state.join(", ")),
      node.version,
      node.pools,
      node.replicas,
      node.targets,
    ];
  });
}

function poolLines(status: ClusterStatus, paint: Paint): string[] {
  if (status.pools.length === 0) {
    return [
      paint("bold", "Pools"),
      "  none: see the disks with `trilith get block-devices <node>`, then " +
        "`trilith create pool <name> <disk> --node <node>`",
    ];
  }
  const headings = ["ID", "NODE", "STATUS", "CAPACITY", "ALLOCATED", "COMMITTED", "REPLICAS"];
  return section(paint, "Pools", headings, status.pools, (pool) => [
    pool.id,
    pool.node,
    statusCell(pool.cordoned ? `${pool.status}, Cordoned` : pool.status),
    humanSize(pool.capacity),
    share(pool.used, pool.capacity),
    share(pool.committed, pool.capacity),
    pool.replicas,
  ]);
}

function share(part: number, whole: number): Cell {
  if (whole === 0) return humanSize(part);
  const percent = Math.round((part / whole) * 100);
  const text = `${humanSize(part)} (${percent}%)`;
  return percent >= 90 ? { text, tone: "warn" } : text;
}

function volumeLines(status: ClusterStatus, paint: Paint): string[] {
  const { volumes } = status;
  const states = Object.entries(volumes.byStatus)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => {
      const cell = statusCell(name);
      const text = `${count} ${name}`;
      return typeof cell === "object" ? paint(cell.tone, text) : text;
    });
  const lines = [
    `${paint("bold", "Volumes")}  ${volumes.total} of ${humanSize(volumes.sizeBytes)}` +
      (states.length === 0 ? "" : `: ${states.join(", ")}`) +
      `; ${volumes.published} published; ${plural(status.snapshots, "snapshot")}`,
  ];
  if (volumes.attention.length > 0) {
    const headings = ["ID", "STATUS", "REPLICAS", "TARGET-NODE"];
    const rows = volumes.attention
      .slice(0, ROWS_MAX)
      .map((volume): Cell[] => [
        volume.uuid,
        statusCell(volume.spec === "Created" ? volume.status : volume.spec),
        `${volume.replicas} of ${volume.replicasWanted}`,
        volume.node,
      ]);
    lines.push(
      ...renderTable(headings, rows, paint)
        .split("\n")
        .map((line) => `  ${line}`),
    );
    if (volumes.attention.length > ROWS_MAX) {
      lines.push(`  … and ${volumes.attention.length - ROWS_MAX} more`);
    }
  }
  return lines;
}

/** `[######--------------] 30%`. */
export function progressBar(percent: number): string {
  const filled = Math.max(0, Math.min(BAR_LENGTH, Math.round((percent / 100) * BAR_LENGTH)));
  return `[${"#".repeat(filled)}${"-".repeat(BAR_LENGTH - filled)}] ${Math.floor(percent)}%`;
}

/** How far a rebuild is: bar, bytes, rate, time left. */
export function rebuildProgress(rebuild: RunningRebuild): string {
  const total = rebuild.blocksTotal * rebuild.blockSize;
  const done = rebuild.blocksRecovered * rebuild.blockSize;
  const eta = rebuild.etaMs ?? null;
  return (
    `${progressBar(rebuild.progressPercent)}  ${humanSize(done)} of ${humanSize(total)}` +
    `  ${humanSize(Math.round(rebuild.bytesPerSec))}/s` +
    (eta === null ? "" : `  ${humanDuration(eta)} left`)
  );
}

function rebuildLines(status: ClusterStatus, paint: Paint): string[] {
  const { running, total, queued = [], queuedTotal = 0 } = status.rebuilds;
  if (total + queuedTotal === 0) return [`${paint("bold", "Rebuilds")}  none`];
  const headings = ["VOLUME", "NODE", "KIND", "PROGRESS"];
  const lines = section(paint, "Rebuilds", headings, running, ({ volume, node, rebuild }) => [
    volume,
    node,
    rebuild.isPartial ? "partial" : "full",
    rebuildProgress(rebuild),
  ]);
  if (total > running.length) lines.push(`  … and ${total - running.length} more`);
  const [next] = queued;
  if (next !== undefined) lines.push(`  ${queuedTotal} more wait for their turn: ${next.reason}`);
  return lines;
}

/** Nothing while none runs: they come by themselves every few weeks. */
function scrubLines(status: ClusterStatus, paint: Paint): string[] {
  const scrubs = status.scrubs ?? [];
  if (scrubs.length === 0) return [];
  return section(paint, "Scrubs", ["VOLUME", "NODE", "PROGRESS"], scrubs, (scrub) => [
    scrub.volume,
    scrub.node ?? undefined,
    `${progressBar(scrub.progressPercent)}  ${scrubProgress(scrub)}`,
  ]);
}

const severityTone: Readonly<Record<Warning["severity"], Tone>> = {
  critical: "bad",
  warning: "warn",
  info: "dim",
};
const severityOrder = ["critical", "warning", "info"];

function warningLines(status: ClusterStatus, paint: Paint): string[] {
  const sorted = [...status.warnings].sort(
    (a, b) => severityOrder.indexOf(a.severity) - severityOrder.indexOf(b.severity),
  );
  if (sorted.length === 0) return [paint("good", "No warnings")];
  const lines = [paint("bold", "Warnings")];
  for (const warning of sorted.slice(0, ROWS_MAX)) {
    const mark = paint(severityTone[warning.severity], warning.severity);
    lines.push(`  ${mark}  ${warning.subject}: ${warning.message}`);
    if (warning.remedy !== "") lines.push(`      ${warning.remedy}`);
  }
  if (sorted.length > ROWS_MAX) {
    lines.push(`  … and ${sorted.length - ROWS_MAX} more: trilith status -o json`);
  }
  return lines;
}

/** The whole screen, without a line's end after the last line. */
export function statusScreen(status: ClusterStatus, paint: Paint): string {
  return [
    [headline(status, paint)],
    nodeLines(status, paint),
    poolLines(status, paint),
    volumeLines(status, paint),
    rebuildLines(status, paint),
    scrubLines(status, paint),
    warningLines(status, paint),
  ]
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n");
}
