/**
 * How long a replica of a volume may be away before another is built: the cluster's setting, unless the
 * volume has one of its own. That is kept as a record of the settings' table.
 */
import type { ClusterState, StoreView } from "../cluster-state.ts";
import type { SettingRecord, Uuid } from "../model.ts";

function keyOf(volumeUuid: Uuid): string {
  return `faulted-child-wait/${volumeUuid}`;
}

/** The volume's own wait; undefined: it has none. */
export function ownWait(view: StoreView, volumeUuid: Uuid): SettingRecord | undefined {
  return view.settings.get(keyOf(volumeUuid));
}

export function faultedChildWaitMs(state: ClusterState, volumeUuid: Uuid): number {
  const own = ownWait(state.stored, volumeUuid);
  return own === undefined ? state.settings.faultedChildWaitMs : Number(own.value);
}

/** The record that gives a volume a wait of its own. */
export function waitRecord(view: StoreView, volumeUuid: Uuid, ms: number): SettingRecord {
  const revision = ownWait(view, volumeUuid)?.revision ?? 0;
  return { key: keyOf(volumeUuid), value: String(ms), revision };
}
