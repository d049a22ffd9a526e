/** What names, labels, sizes and topologies of requests may be. Pure; throws `InvalidArgument`. */
import type { LabelledTopology, Labels, Topology } from "../../model.ts";
import {
  LABEL_CHARACTERS_MAX,
  LABELS_MAX,
  NAME_CHARACTERS_MAX,
  REPLICAS_MAX,
  VOLUME_BYTES_MAX,
} from "../limits.ts";
import { invalid } from "./errors.ts";

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Names of pools and the like: what the engine's API takes. */
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
/** One part of a label: letters and digits at both ends, between them `-`, `_` and `.` as well. */
const labelPart = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/;

export function checkUuid(what: string, uuid: string): void {
  if (!uuidPattern.test(uuid)) throw invalid(`${what} "${uuid}" is not a lower-case UUID`);
}

/** Ids of pools. */
export function checkName(what: string, name: string): void {
  if (namePattern.test(name)) return;
  const rule = "1 to 128 letters, digits or . _ : - (beginning with a letter or digit)";
  throw invalid(`${what} "${name}" is not ${rule}`);
}

/** Free text of one line: labels of cordons, ids of app nodes, affinity groups. */
export function checkText(what: string, text: string): void {
  if (text === "" || text.length > NAME_CHARACTERS_MAX || /\p{Cc}/u.test(text)) {
    throw invalid(`${what} is not 1 to ${NAME_CHARACTERS_MAX} printable characters`);
  }
}

export function checkNqn(what: string, nqn: string): void {
  if (!/^nqn\.[\x21-\x7e]+$/.test(nqn) || nqn.length > NAME_CHARACTERS_MAX) {
    throw invalid(`${what} "${nqn}" is not an NVMe qualified name`);
  }
}

/** Keys of labels: at most one prefix before a slash, each part of at most 63 characters. */
export function checkLabelKey(key: string): void {
  const parts = key.split("/");
  const wellFormed =
    parts.length <= 2 &&
    parts.every((part) => part.length <= LABEL_CHARACTERS_MAX && labelPart.test(part));
  if (wellFormed) return;
  throw invalid(
    `label key "${key}" is not well formed`,
    `letters and digits at both ends, - _ . between, at most one /, ${LABEL_CHARACTERS_MAX} characters`,
  );
}

export function checkLabelValue(key: string, value: string): void {
  if (value.length <= LABEL_CHARACTERS_MAX && labelPart.test(value)) return;
  throw invalid(
    `value "${value}" of label ${key} is not well formed`,
    `letters and digits at both ends, - _ . between, ${LABEL_CHARACTERS_MAX} characters`,
  );
}

export function checkLabels(labels: Labels): void {
  const entries = Object.entries(labels);
  if (entries.length > LABELS_MAX) throw invalid(`more than ${LABELS_MAX} labels`);
  for (const [key, value] of entries) {
    checkLabelKey(key);
    checkLabelValue(key, value);
  }
}

function checkLabelled(topology: LabelledTopology): void {
  for (const labels of [topology.inclusion, topology.exclusion]) {
    for (const [key, value] of Object.entries(labels)) {
      checkLabelKey(key);
      if (value !== "") checkLabelValue(key, value);
    }
  }
  for (const key of topology.affinityKey) checkLabelKey(key);
  for (const [key, value] of Object.entries(topology.inclusion)) {
    if (value !== "" && topology.exclusion[key] === value) {
      throw invalid(`topology: label ${key}=${value} is both included and excluded`);
    }
  }
  for (const key of topology.affinityKey) {
    if (topology.exclusion[key] === "") {
      throw invalid(`topology: label ${key} is to agree and to differ at once`);
    }
  }
}

/** Throws for what no cluster could satisfy. */
export function checkTopology(topology: Topology | null): void {
  if (topology === null) return;
  if (topology.pool !== null) checkLabelled(topology.pool);
  if (topology.node === null) return;
  if ("labelled" in topology.node) checkLabelled(topology.node.labelled);
}

export function checkSize(what: string, sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes <= VOLUME_BYTES_MAX) return;
  throw invalid(
    `${what}: size ${sizeBytes} is not a number of bytes from 1 to ${VOLUME_BYTES_MAX}`,
  );
}

export function checkReplicaCount(count: number): void {
  if (Number.isInteger(count) && count >= 1 && count <= REPLICAS_MAX) return;
  throw invalid(`replica count ${count} is not a number from 1 to ${REPLICAS_MAX}`);
}

export function checkMaxSnapshots(max: number | null): void {
  if (max === null || (Number.isInteger(max) && max >= 0)) return;
  throw invalid(`${max} is not a number of snapshots`);
}
