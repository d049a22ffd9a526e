/**
 * Routes and shapes of the recorder: which children of a volume are healthy, and whether its last
 * nexus was closed in an orderly way (mayastor.md 4.7, NexusInfo).
 */
import * as v from "valibot";
import { Count, Uri, Uuid } from "./fields.ts";
import { type Handlers, routes } from "./route.ts";

/** A child's URI and what it is from now on. */
export const RecordedChild = v.strictObject({ uri: Uri, healthy: v.boolean() });

const recordEntries = {
  nexusUuid: Uuid,
  /** Raised at every publish or move: a nexus with an older one is superseded. */
  epoch: Count,
  children: v.pipe(v.array(RecordedChild), v.minLength(1), v.maxLength(64)),
  cleanShutdown: v.boolean(),
} as const;

export const VolumeRecord = v.object({
  volumeUuid: v.string(),
  ...recordEntries,
  recordedAt: v.string(),
});
export type VolumeRecord = v.InferOutput<typeof VolumeRecord>;

const volumeParams = v.strictObject({ volumeUuid: Uuid });

export const recordRoutes = routes({
  listRecords: {
    method: "GET",
    path: "/v1/records",
    summary: "What is recorded of every volume",
    result: v.array(VolumeRecord),
  },
  getRecord: {
    method: "GET",
    path: "/v1/records/:volumeUuid",
    summary: "What is recorded of a volume",
    params: volumeParams,
    result: VolumeRecord,
  },
  deleteRecord: {
    method: "DELETE",
    path: "/v1/records/:volumeUuid",
    summary: "Forgets a volume that was destroyed",
    params: volumeParams,
  },
});

/** Longest time that an engine waits for its targets to leave before it stops. */
export const VACATION_MS_MAX = 60_000;

/** What an engine asks of the control process of its node besides recording. */
export const vacationContract = routes({
  vacate: {
    method: "POST",
    path: "/v1/vacation",
    summary: "Has the targets of an engine that is about to stop moved to other nodes",
    body: v.strictObject({
      /** The process that stops. */
      instanceUuid: Uuid,
      timeoutMs: v.pipe(Count, v.maxValue(VACATION_MS_MAX)),
    }),
    /** Nothing is left that could have left. */
    result: v.object({ isVacant: v.boolean() }),
  },
});
export type VacationHandlers = Handlers<typeof vacationContract>;

/** The recorder's own API: reading, and writing by the nexuses of other engines. */
export const recorderContract = {
  ...recordRoutes,
  ...routes({
    putRecord: {
      method: "PUT",
      path: "/v1/records/:volumeUuid",
      summary: "Records the state of a volume's children; refused for a superseded epoch",
      params: volumeParams,
      body: v.strictObject(recordEntries),
      result: VolumeRecord,
    },
  }),
} as const;

export type RecorderHandlers = Handlers<typeof recorderContract>;
