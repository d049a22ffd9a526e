/** Scrubs of volumes. */
import * as v from "valibot";
import { keptScrub } from "../../control/planner/scrub-record.ts";
import { ownOperation, type Scope } from "../operation.ts";
import { sorted, volumeOf } from "../records.ts";
import { renderScrub } from "../render/scrubs.ts";
import { ScrubBody, VolumeScrub } from "../schemas/scrubs.ts";
import { volumeParams } from "./parameters.ts";

const shownScrub = async (scope: Scope, uuid: string) => {
  const state = await scope.state();
  return renderScrub(state, volumeOf(state, uuid));
};

export const scrubOperations = [
  ownOperation({
    id: "get_scrubs",
    method: "get",
    path: "/scrubs",
    tag: "Volumes",
    summary: "Scrubs of all volumes that have had one",
    result: v.array(VolumeScrub),
    handle: async (_request, scope) => {
      const state = await scope.state();
      return sorted(state.stored, "volumes")
        .filter(({ uuid }) => keptScrub(state.stored, uuid) !== undefined)
        .map((volume) => renderScrub(state, volume));
    },
  }),
  ownOperation({
    id: "get_volume_scrub",
    method: "get",
    path: "/volumes/{volume_id}/scrub",
    tag: "Volumes",
    summary: "How far the scrub of a volume is, and what it has found",
    params: volumeParams,
    result: VolumeScrub,
    handle: ({ params }, scope) => shownScrub(scope, params.volume_id),
  }),
  ownOperation({
    id: "post_volume_scrub",
    method: "post",
    path: "/volumes/{volume_id}/scrub",
    tag: "Volumes",
    summary: "Compares the replicas of a published volume while hosts use it",
    description:
      "Begun when it is answered. Differences are repaired where more than half of three or more " +
      "replicas agree, and warned of otherwise. One that was stopped goes on where it was.",
    params: volumeParams,
    body: ScrubBody,
    bodyOptional: true,
    result: VolumeScrub,
    status: 202,
    handle: async ({ params: { volume_id }, body }, scope) => {
      const request = { isAnew: body.restart, isRepairing: body.repair };
      await scope.control.startScrub(volume_id, request, scope.context);
      return shownScrub(scope, volume_id);
    },
  }),
  ownOperation({
    id: "del_volume_scrub",
    method: "delete",
    path: "/volumes/{volume_id}/scrub",
    tag: "Volumes",
    summary: "Stops the scrub of a volume where it is",
    params: volumeParams,
    result: VolumeScrub,
    handle: async ({ params }, scope) => {
      await scope.control.stopScrub(params.volume_id, scope.context);
      return shownScrub(scope, params.volume_id);
    },
  }),
  ownOperation({
    id: "post_volume_scrub_acknowledge",
    method: "post",
    path: "/volumes/{volume_id}/scrub/acknowledge",
    tag: "Volumes",
    summary: "What scrubs of a volume have repaired is known, and not warned of any more",
    params: volumeParams,
    result: VolumeScrub,
    handle: async ({ params }, scope) => {
      await scope.control.acknowledgeScrub(params.volume_id, scope.context);
      return shownScrub(scope, params.volume_id);
    },
  }),
];
