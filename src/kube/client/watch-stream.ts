/** What a watch sends: one JSON object per line (Kubernetes API concepts, "Efficient detection of changes"). Pure. */
import { TrilithError } from "../../errors.ts";
import { errorOfStatus } from "./errors.ts";
import { WATCH_LINE_MAX } from "./limits.ts";
import type { KubeObject } from "./objects.ts";

export type WatchEvent<T extends KubeObject> =
  | { readonly type: "changed"; readonly object: T }
  | { readonly type: "deleted"; readonly object: T }
  /** Nothing changed up to this version. */
  | { readonly type: "bookmark"; readonly resourceVersion: string };

/** Takes the text of a stream in pieces as they come, and returns the lines that are whole. */
export function lineSplitter(lengthMax = WATCH_LINE_MAX): (text: string) => string[] {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    if (rest.length > lengthMax) {
      throw new TrilithError("Unavailable", "the watch holds a line without an end");
    }
    return lines.filter((line) => line.trim() !== "");
  };
}

/** One line of a watch. Throws a `KubeError` for an event of type ERROR (410: list anew). */
export function watchEventOf<T extends KubeObject>(line: string): WatchEvent<T> | null {
  let event: { readonly type?: string; readonly object?: unknown };
  try {
    event = JSON.parse(line) as typeof event;
  } catch {
    throw new TrilithError("Unavailable", `the watch holds no JSON: ${line.slice(0, 80)}`);
  }
  const object = event.object as T;
  switch (event.type) {
    case "ADDED":
    case "MODIFIED":
      return { type: "changed", object };
    case "DELETED":
      return { type: "deleted", object };
    case "BOOKMARK":
      return { type: "bookmark", resourceVersion: object.metadata.resourceVersion ?? "" };
    case "ERROR":
      throw errorOfStatus(500, event.object, "watch");
    default:
      // The API may get new types; what is not understood is no change.
      return null;
  }
}
