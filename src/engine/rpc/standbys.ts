/**
 * Routes and shapes of standbys: paths to a volume on engines that do not run its nexus. Hosts connect to
 * them from the start; what they ask of one is sent to the volume's other paths (ANA inaccessible, NVMe
 * Base 2.0, 8.1) until the nexus comes to this engine.
 */
import * as v from "valibot";
import { AllowedHosts, Bytes, ControllerIds, Count, Size, Uuid } from "./fields.ts";
import { routes } from "./route.ts";

export const Standby = v.object({
  volumeUuid: v.string(),
  nqn: v.string(),
  /**
   * `listening`: hosts are connected here and sent elsewhere. `serving`: the volume's nexus is on this
   * engine, and its subsystem stays as a standby when it goes.
   */
  state: v.picklist(["listening", "serving"]),
  sizeBytes: Bytes,
  blockSize: Count,
  /** Hosts that may connect; null: every host. */
  allowedHosts: v.nullable(v.array(v.string())),
  controllerIds: v.object({ min: Count, max: Count }),
  /** Host associations. */
  controllers: Count,
  /** How hosts reach it: `nvmf+tcp://address:port/nqn?uuid=`. */
  uri: v.string(),
  reactor: Count,
});
export type Standby = v.InferOutput<typeof Standby>;

const volumeParams = v.strictObject({ volumeUuid: Uuid });

export const standbyRoutes = routes({
  createStandby: {
    method: "PUT",
    path: "/v1/standbys/:volumeUuid",
    summary:
      "Listens for a volume whose nexus is elsewhere, or changes size and hosts of the standby",
    params: volumeParams,
    body: v.strictObject({
      /** Size of the volume's device, and of its blocks. */
      sizeBytes: Size,
      blockSize: v.picklist([512, 4096]),
      /** Default: every host. */
      allowedHosts: v.optional(AllowedHosts),
      /** Those of no other engine, so that a host can tell its paths apart. Default: 1 to 0xffef. */
      controllerIds: v.optional(ControllerIds),
      /** A replica of the volume on this engine: a nexus that comes here will live beside it. */
      replicaUuid: v.optional(Uuid),
    }),
    result: Standby,
  },
  listStandbys: {
    method: "GET",
    path: "/v1/standbys",
    summary: "Standbys of this engine",
    result: v.array(Standby),
  },
  removeStandby: {
    method: "DELETE",
    path: "/v1/standbys/:volumeUuid",
    summary: "Ends a standby and the connections to it; a nexus that serves here stays",
    params: volumeParams,
  },
});
