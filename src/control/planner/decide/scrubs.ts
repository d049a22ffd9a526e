/** Scrubs of volumes on request: begun, stopped, and their repairs acknowledged. */
import { TrilithError } from "../../../errors.ts";
import type { ClusterState } from "../../cluster-state.ts";
import type { Uuid } from "../../model.ts";
import type { Decision } from "../plan.ts";
import { begunScrub, keepScrub, keptScrub, type ScrubPass } from "../scrub-record.ts";
import { event, type FreshUuids, fresh, nothing } from "./changes.ts";
import { notFound, precondition, requireVolume } from "./errors.ts";

export interface ScrubRequest {
  /** From the beginning, though one was stopped in the middle. */
  readonly isAnew: boolean;
  /** Differences are repaired where a majority of three or more copies agrees. */
  readonly isRepairing: boolean;
}

/** Throws `NotPublished`, `FailedPrecondition` (there is one copy). One that runs is confirmed. */
export function startScrub(
  state: ClusterState,
  uuid: Uuid,
  request: ScrubRequest,
  uuids: FreshUuids,
): Decision {
  const volume = requireVolume(state, uuid);
  const kept = keptScrub(state.stored, uuid);
  if (volume.target === null) {
    throw new TrilithError(
      "NotPublished",
      `volume ${uuid} is not published: only a volume that is served is scrubbed`,
      `publish it: trilith publish volume ${uuid}`,
    );
  }
  if (volume.replicaCount < 2) {
    throw precondition(
      `volume ${uuid} has one replica: there is nothing to compare it with`,
      `give it another: trilith scale volume ${uuid} 2`,
    );
  }
  if (kept?.state === "Running" && !request.isAnew) return nothing;
  const scrub = begunScrub(kept, {
    ...request,
    id: fresh(uuids, 0),
    nowMs: state.nowMs,
    sizeBytes: volume.sizeBytes,
    cause: "request",
  });
  const { nodeId } = volume.target;
  return {
    changes: [keepScrub(state.stored, uuid, scrub)],
    events: [event("Volume", "ScrubBegin", uuid, "on request", nodeId)],
  };
}

/** Stops the scrub of a volume where it is; nothing when none runs. */
export function stopScrub(state: ClusterState, uuid: Uuid): Decision {
  requireVolume(state, uuid);
  const kept = keptScrub(state.stored, uuid);
  if (kept?.state !== "Running") return nothing;
  const scrub = { ...kept, state: "Stopped" as const, updatedAtMs: state.nowMs };
  return {
    changes: [keepScrub(state.stored, uuid, scrub)],
    events: [event("Volume", "ScrubStop", uuid, "on request")],
  };
}

/** What was repaired so far needs no warning any more. Throws `NotFound` (never scrubbed). */
export function acknowledgeScrub(state: ClusterState, uuid: Uuid): Decision {
  requireVolume(state, uuid);
  const kept = keptScrub(state.stored, uuid);
  if (kept === undefined) throw notFound(`a scrub of volume ${uuid}`, "scrubs");
  const known = <T extends ScrubPass>(pass: T): T => ({
    ...pass,
    acknowledgedBytes: pass.counts.repairedBytes,
  });
  const scrub = {
    ...kept,
    pass: known(kept.pass),
    completed: kept.completed === null ? null : known(kept.completed),
  };
  return { changes: [keepScrub(state.stored, uuid, scrub)], events: [] };
}
