/**
 * What is recorded of the children of a nexus that no volume owns: a setting of its own per nexus, the
 * JSON of a recorder's record.
 */
import type { VolumeRecord as ChildrenRecord } from "../../../engine/rpc/records.ts";
import type { NexusRecord, Uuid } from "../../model.ts";
import type { Planning } from "./planning.ts";

/** Key of the setting. */
export function recordKey(nexusUuid: Uuid): string {
  return `nexus-record/${nexusUuid}`;
}

/** What is recorded; undefined before anything was. */
export function childrenRecord(
  settings: ReadonlyMap<string, { readonly value: string }>,
  nexusUuid: Uuid,
): ChildrenRecord | undefined {
  const setting = settings.get(recordKey(nexusUuid));
  return setting === undefined ? undefined : (JSON.parse(setting.value) as ChildrenRecord);
}

/** The children of a nexus with what is recorded of each; those that it does not know are new. */
export function recordedChildren(
  p: Planning,
  record: NexusRecord,
): { uri: string; healthy: boolean }[] {
  const known = childrenRecord(p.stored.settings, record.uuid);
  return record.children.map(({ uri }) => ({
    uri,
    healthy: known === undefined || known.children.some((c) => c.uri === uri && c.healthy),
  }));
}
