/** Cluster-wide settings: defaults, and what the store says otherwise. */
import * as v from "valibot";
import { TrilithError } from "../../errors.ts";
import type { ClusterSettings } from "../cluster-state.ts";
import type { SettingsChange } from "../control.ts";
import type { SettingRecord } from "../model.ts";
import type { Change } from "../planner/plan.ts";

/**
 * Mayastor's defaults (mayastor.md 5.1), but for the deadline of nodes: hosts of a volume wait for it when
 * the node that serves them dies. Four heartbeats in a row are missed by then, or two have gone
 * unanswered for their full second; and to be wrong costs no more than a move, which is safe at any time.
 */
export const settingsDefault: ClusterSettings = {
  poolCommitmentPercent: 250,
  volumeCommitmentPercent: 40,
  volumeCommitmentInitialPercent: 40,
  snapshotCommitmentPercent: 40,
  faultedChildWaitMs: 600_000,
  maxRebuilds: null,
  maxRebuildsPerNode: 8,
  maxVolumeCreates: 10,
  nodeDeadlineMs: 2_000,
  restrictHosts: true,
  switchOver: true,
  scrubIntervalMs: 30 * 24 * 60 * 60_000,
  scrubBytesPerSec: 64 << 20,
  maxScrubs: 4,
  maxScrubsPerNode: 1,
  scrubWindow: null,
};

const whole = (least: number, most: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(least), v.maxValue(most));

/** What each setting may be. */
export const SettingsSchema = v.strictObject({
  poolCommitmentPercent: whole(100, 100_000),
  volumeCommitmentPercent: whole(0, 100),
  volumeCommitmentInitialPercent: whole(0, 100),
  snapshotCommitmentPercent: whole(0, 100),
  faultedChildWaitMs: whole(0, 7 * 24 * 60 * 60_000),
  maxRebuilds: v.nullable(whole(1, 10_000)),
  maxRebuildsPerNode: v.nullable(whole(1, 1_000)),
  maxVolumeCreates: whole(1, 1_000),
  nodeDeadlineMs: whole(1_000, 600_000),
  restrictHosts: v.boolean(),
  switchOver: v.boolean(),
  scrubIntervalMs: whole(0, 366 * 24 * 60 * 60_000),
  scrubBytesPerSec: whole(0, 2 ** 40),
  maxScrubs: whole(1, 10_000),
  maxScrubsPerNode: whole(1, 10_000),
  scrubWindow: v.nullable(
    v.pipe(
      v.string(),
      v.regex(
        /^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$/,
        "not a time of the day such as 22:00-06:00 (UTC)",
      ),
    ),
  ),
} satisfies { [K in keyof ClusterSettings]: v.GenericSchema<unknown, ClusterSettings[K]> });

const settingNames = Object.keys(SettingsSchema.entries) as readonly (keyof ClusterSettings)[];

/** The settings that are in effect. One that the store holds and this version cannot read is as if unset. */
export function settingsOf(stored: ReadonlyMap<string, SettingRecord>): ClusterSettings {
  if (stored.size === 0) return settingsDefault;
  const settings: Record<string, unknown> = { ...settingsDefault };
  for (const name of settingNames) {
    const record = stored.get(name);
    if (record === undefined) continue;
    const parsed = v.safeParse(SettingsSchema.entries[name], JSON.parse(record.value));
    if (parsed.success) settings[name] = parsed.output;
  }
  return settings as unknown as ClusterSettings;
}

/** Remembers the settings of a table that has not changed. */
export function makeSettingsReader(): (
  stored: ReadonlyMap<string, SettingRecord>,
) => ClusterSettings {
  let read: ReadonlyMap<string, SettingRecord> | null = null;
  let settings = settingsDefault;
  return (stored) => {
    if (stored !== read) {
      settings = settingsOf(stored);
      read = stored;
    }
    return settings;
  };
}

/** What is to be written; `InvalidArgument` names the setting that is wrong or unknown. */
export function settingChanges(
  stored: ReadonlyMap<string, SettingRecord>,
  changes: SettingsChange,
): Change[] {
  const written: Change[] = [];
  for (const [name, value] of Object.entries(changes)) {
    const schema = SettingsSchema.entries[name as keyof ClusterSettings];
    if (schema === undefined) {
      throw new TrilithError(
        "InvalidArgument",
        `there is no setting ${name}`,
        `settings: ${settingNames.join(", ")}`,
      );
    }
    const before = stored.get(name);
    if (value === null && !v.is(schema, null)) {
      if (before !== undefined) written.push({ table: "settings", remove: name });
      continue;
    }
    const parsed = v.safeParse(schema, value);
    if (!parsed.success) {
      throw new TrilithError("InvalidArgument", `setting ${name}: ${parsed.issues[0].message}`);
    }
    const text = JSON.stringify(parsed.output);
    if (before?.value === text) continue;
    written.push({
      table: "settings",
      put: { key: name, value: text, revision: before?.revision ?? 0 },
    });
  }
  return written;
}
