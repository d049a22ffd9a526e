/** Scrubs in words and tables. */
import type { VolumeScrub } from "../client/types.ts";
import { statusCell } from "./output/color.ts";
import { humanDuration, humanSize } from "./output/size.ts";
import type { Cell } from "./output/table.ts";

/** How far it is, on one line. */
export function scrubProgress(scrub: VolumeScrub): string {
  const { state, waitsFor, progressPercent, bytesPerSec, etaMs } = scrub;
  const doing = state === "waiting" ? `waits for ${waitsFor ?? "its nexus"}` : state;
  const rate = state === "running" && bytesPerSec != null ? `, ${humanSize(bytesPerSec)}/s` : "";
  const eta = state === "running" && etaMs != null ? `, ${humanDuration(etaMs)} left` : "";
  return `${progressPercent} % ${doing}${rate}${eta}`;
}

/** What came of it. */
export function scrubResult(scrub: VolumeScrub): string {
  const { volume, state, compared, skipped, findings } = scrub;
  const sum = (repaired: boolean): number =>
    findings
      .filter((one) => one.repaired === repaired)
      .reduce((all, { length }) => all + length, 0);
  const bad = sum(false);
  const found =
    findings.length === 0
      ? "no differences"
      : `${humanSize(sum(true))} repaired${bad > 0 ? `, ${humanSize(bad)} differ and were not repaired` : ""}`;
  return `Scrub of volume ${volume} ${state}: ${humanSize(compared)} compared, ${humanSize(skipped)} never written, ${found}`;
}

export const scrubHeadings = [
  "VOLUME",
  "STATE",
  "PROGRESS",
  "NODE",
  "COMPARED",
  "MISMATCHED",
  "REPAIRED",
  "LAST-COMPLETED",
  "NEXT",
];

export function scrubRow(scrub: VolumeScrub): Cell[] {
  return [
    scrub.volume,
    statusCell(scrub.waitsFor == null ? scrub.state : `${scrub.state} (${scrub.waitsFor})`),
    `${scrub.progressPercent} %`,
    scrub.node ?? undefined,
    humanSize(scrub.compared),
    humanSize(scrub.mismatched),
    humanSize(scrub.repaired),
    scrub.completedAt ?? undefined,
    scrub.nextAt ?? undefined,
  ];
}

export const findingHeadings = ["OFFSET", "LENGTH", "KIND", "REPAIRED", "REPLICAS", "REASON"];

export function findingRows({ findings }: VolumeScrub): Cell[][] {
  return findings.map(({ offset, length, kind, repaired, replicas, reason }) => [
    offset,
    length,
    kind,
    repaired ? "true" : "false",
    replicas.join(", "),
    reason ?? undefined,
  ]);
}
