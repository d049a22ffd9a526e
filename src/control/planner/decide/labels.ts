/** Setting and removing labels of whatever carries them (mayastor.md 1.3). */
import { TrilithError } from "../../../errors.ts";
import type { Labels } from "../../model.ts";
import { LABELS_MAX } from "../limits.ts";
import { checkLabelKey, checkLabelValue } from "./arguments.ts";
import { invalid, precondition } from "./errors.ts";

/**
 * The labels with one set. Throws `AlreadyExists` when it has that value, `FailedPrecondition` when it
 * has another and is not to be overwritten.
 */
export function withLabel(
  what: string,
  labels: Labels,
  key: string,
  value: string,
  overwrite: boolean,
): Labels {
  checkLabelKey(key);
  checkLabelValue(key, value);
  const before = labels[key];
  if (before === value) {
    throw new TrilithError("AlreadyExists", `${what} has label ${key}=${value} already`);
  }
  if (before !== undefined && !overwrite) {
    throw precondition(
      `${what} has label ${key}=${before}`,
      "set it with `--overwrite` (in the API: ?overwrite=true)",
    );
  }
  if (before === undefined && Object.keys(labels).length >= LABELS_MAX) {
    throw invalid(`${what} has ${LABELS_MAX} labels, which is the most`);
  }
  return { ...labels, [key]: value };
}

/** The labels without one. Throws `FailedPrecondition` when it is not among them. */
export function withoutLabel(what: string, labels: Labels, key: string): Labels {
  if (labels[key] === undefined) {
    throw precondition(`${what} has no label ${key}`, "list them with --show-labels");
  }
  return Object.fromEntries(Object.entries(labels).filter(([name]) => name !== key));
}
