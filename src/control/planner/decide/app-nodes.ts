/** Hosts that mount volumes, and watches of volumes. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { Labels, Uuid } from "../../model.ts";
import { WATCHES_MAX } from "../limits.ts";
import type { Decision } from "../plan.ts";
import { checkLabels, checkText } from "./arguments.ts";
import { isEqual, nothing, put, remove } from "./changes.ts";
import { invalid, notFound, requireVolume } from "./errors.ts";

/** Records where the agent of a host answers; a later registration takes the place of an earlier one. */
export function registerAppNode(
  state: ClusterState,
  id: string,
  endpoint: string,
  labels: Labels,
): Decision {
  checkText("id of the app node", id);
  checkText("endpoint", endpoint);
  checkLabels(labels);
  const there = state.stored.appNodes.get(id);
  if (there !== undefined && there.endpoint === endpoint && isEqual(there.labels, labels)) {
    return nothing;
  }
  const revision = there?.revision ?? 0;
  return { changes: [put("appNodes", { revision, id, endpoint, labels })], events: [] };
}

/** Throws `NotFound`. */
export function deregisterAppNode(state: ClusterState, id: string): Decision {
  const there = state.stored.appNodes.get(id);
  if (there === undefined) throw notFound(`app node ${id}`, "app-nodes");
  return { changes: [remove("appNodes", id, there.revision)], events: [] };
}

function watchId(volumeUuid: Uuid, callback: string): string {
  return `${volumeUuid} ${callback}`;
}

/** An equal watch is confirmed. Throws `NotFound` (the volume), `InvalidArgument`, `ResourceExhausted`. */
export function addWatch(state: ClusterState, volumeUuid: Uuid, callback: string): Decision {
  if (!/^https?:\/\/[^\s/]+/.test(callback) || callback.length > 2048) {
    throw invalid(`callback "${callback.slice(0, 100)}" is not a URL of http or https`);
  }
  requireVolume(state, volumeUuid);
  const id = watchId(volumeUuid, callback);
  if (state.stored.watches.has(id)) return nothing;
  let count = 0;
  for (const watch of state.stored.watches.values())
    if (watch.volumeUuid === volumeUuid) count += 1;
  if (count >= WATCHES_MAX) {
    throw new TrilithError(
      "ResourceExhausted",
      `volume ${volumeUuid} has ${count} watches, which is the most`,
      "remove some first",
    );
  }
  return { changes: [put("watches", { revision: 0, id, volumeUuid, callback })], events: [] };
}

/** Throws `NotFound`. */
export function removeWatch(state: ClusterState, volumeUuid: Uuid, callback: string): Decision {
  const there = state.stored.watches.get(watchId(volumeUuid, callback));
  if (there === undefined)
    throw notFound(`watch of volume ${volumeUuid} by ${callback}`, "volumes");
  return { changes: [remove("watches", there.id, there.revision)], events: [] };
}
