/** Snapshots of volumes, volumes made of them, and watches. */
import * as v from "valibot";
import { generatedUuid } from "../identity.ts";
import { contractOperation, ownOperation, type Scope } from "../operation.ts";
import { pageOf, snapshotOf, sorted, volumeOf } from "../records.ts";
import { renderSnapshot, renderVolume } from "../render/volumes.ts";
import { NewSnapshotBody, RestWatch } from "../schemas/cluster.ts";
import { pageQuery, Uuid } from "../schemas/fields.ts";
import { CreateVolumeBody, Volume, VolumeSnapshot, VolumeSnapshots } from "../schemas/volumes.ts";
import { snapshotParams, volumeParams } from "./parameters.ts";
import { createRequest } from "./volumes.ts";

const bothParams = v.object({ volume_id: Uuid, snapshot_id: Uuid });
const tag = "Snapshots";

const shownSnapshot = async (scope: Scope, uuid: string, volumeUuid?: string) => {
  const state = await scope.state();
  return renderSnapshot(state, snapshotOf(state, uuid, volumeUuid));
};

const reads = [
  contractOperation({
    id: "get_volumes_snapshots",
    method: "get",
    path: "/volumes/snapshots",
    tag,
    summary: "Snapshots of all volumes, in pages",
    query: v.object({
      snapshot_id: v.optional(Uuid),
      volume_id: v.optional(Uuid),
      ...pageQuery,
    }),
    result: VolumeSnapshots,
    handle: async ({ query }, scope) => {
      const state = await scope.state();
      const { snapshot_id, volume_id } = query;
      const wanted = sorted(state.stored, "snapshots").filter(
        ({ uuid, volumeUuid }) =>
          (snapshot_id === undefined || uuid === snapshot_id) &&
          (volume_id === undefined || volumeUuid === volume_id),
      );
      const { entries, ...rest } = pageOf(wanted, query);
      return { entries: entries.map((one) => renderSnapshot(state, one)), ...rest };
    },
  }),
  contractOperation({
    id: "get_volumes_snapshot",
    method: "get",
    path: "/volumes/snapshots/{snapshot_id}",
    tag,
    summary: "One snapshot",
    params: snapshotParams,
    result: VolumeSnapshot,
    handle: ({ params }, scope) => shownSnapshot(scope, params.snapshot_id),
  }),
  contractOperation({
    id: "get_volume_snapshots",
    method: "get",
    path: "/volumes/{volume_id}/snapshots",
    tag,
    summary: "Snapshots of a volume, in pages",
    params: volumeParams,
    query: v.object(pageQuery),
    result: VolumeSnapshots,
    handle: async ({ params, query }, scope) => {
      const state = await scope.state();
      // Snapshots outlive their volume: one that is gone may have some.
      const wanted = sorted(state.stored, "snapshots").filter(
        ({ volumeUuid }) => volumeUuid === params.volume_id,
      );
      if (wanted.length === 0) volumeOf(state, params.volume_id);
      const { entries, ...rest } = pageOf(wanted, query);
      return { entries: entries.map((one) => renderSnapshot(state, one)), ...rest };
    },
  }),
  contractOperation({
    id: "get_volume_snapshot",
    method: "get",
    path: "/volumes/{volume_id}/snapshots/{snapshot_id}",
    tag,
    summary: "One snapshot of a volume",
    params: bothParams,
    result: VolumeSnapshot,
    handle: ({ params }, scope) => shownSnapshot(scope, params.snapshot_id, params.volume_id),
  }),
];

const changes = [
  contractOperation({
    id: "put_volume_snapshot",
    method: "put",
    path: "/volumes/{volume_id}/snapshots/{snapshot_id}",
    tag,
    summary: "Takes a snapshot of a volume, or confirms the one that was taken",
    params: bothParams,
    result: VolumeSnapshot,
    handle: async ({ params: { volume_id, snapshot_id } }, scope) => {
      await scope.control.createSnapshot(volume_id, snapshot_id, scope.context);
      return shownSnapshot(scope, snapshot_id);
    },
  }),
  ownOperation({
    id: "post_volume_snapshot",
    method: "post",
    path: "/volumes/{volume_id}/snapshots",
    tag,
    summary: "Takes a snapshot with a generated UUID (or the one that the body gives)",
    params: volumeParams,
    body: NewSnapshotBody,
    bodyOptional: true,
    result: VolumeSnapshot,
    status: 201,
    handle: async ({ params, body }, scope) => {
      const uuid = body.uuid ?? generatedUuid("snapshot", scope.context);
      await scope.control.createSnapshot(params.volume_id, uuid, scope.context);
      return shownSnapshot(scope, uuid);
    },
  }),
  contractOperation({
    id: "del_volume_snapshot",
    method: "delete",
    path: "/volumes/{volume_id}/snapshots/{snapshot_id}",
    tag,
    summary: "Destroys a snapshot of a volume",
    params: bothParams,
    handle: ({ params: { volume_id, snapshot_id } }, { control, context }) =>
      control.destroySnapshot(snapshot_id, volume_id, context),
  }),
  contractOperation({
    id: "del_snapshot",
    method: "delete",
    path: "/volumes/snapshots/{snapshot_id}",
    tag,
    summary: "Destroys a snapshot",
    params: snapshotParams,
    handle: ({ params }, { control, context }) =>
      control.destroySnapshot(params.snapshot_id, null, context),
  }),
  contractOperation({
    id: "put_snapshot_volume",
    method: "put",
    path: "/snapshots/{snapshot_id}/volumes/{volume_id}",
    tag,
    summary: "Makes a volume of a snapshot",
    params: bothParams,
    body: CreateVolumeBody,
    result: Volume,
    handle: async ({ params: { volume_id, snapshot_id }, body }, scope) => {
      await scope.control.restoreVolume(snapshot_id, createRequest(volume_id, body), scope.context);
      const state = await scope.state();
      return renderVolume(state, volumeOf(state, volume_id));
    },
  }),
];

/** A callback is called by HTTP. */
const callbackQuery = v.object({
  callback: v.pipe(
    v.string(),
    v.maxLength(2048),
    v.url("not a URI"),
    v.regex(/^https?:\/\//, "neither http nor https"),
  ),
});

const watches = [
  contractOperation({
    id: "get_watch_volume",
    method: "get",
    path: "/watches/volumes/{volume_id}",
    tag: "Watches",
    summary: "Who is told of changes of a volume",
    params: volumeParams,
    result: v.array(RestWatch),
    handle: async ({ params: { volume_id } }, scope) => {
      const { stored } = await scope.state();
      return [...stored.watches.values()]
        .filter(({ volumeUuid }) => volumeUuid === volume_id)
        .map(({ callback }) => ({ callback, resource: volume_id }));
    },
  }),
  contractOperation({
    id: "put_watch_volume",
    method: "put",
    path: "/watches/volumes/{volume_id}",
    tag: "Watches",
    summary: "Has changes of a volume told to a URI",
    params: volumeParams,
    query: callbackQuery,
    handle: ({ params, query }, { control, context }) =>
      control.addWatch(params.volume_id, query.callback, context),
  }),
  contractOperation({
    id: "del_watch_volume",
    method: "delete",
    path: "/watches/volumes/{volume_id}",
    tag: "Watches",
    summary: "Ends that",
    params: volumeParams,
    query: callbackQuery,
    handle: ({ params, query }, { control, context }) =>
      control.removeWatch(params.volume_id, query.callback, context),
  }),
];

export const snapshotOperations = [...reads, ...changes, ...watches];
