/** Routes and shapes of what is served to hosts: NVMe subsystems, NBD exports. */
import * as v from "valibot";
import {
  AllowedHosts,
  AnaStateName,
  Bytes,
  ControllerIds,
  Count,
  Name,
  Nqn,
  Share,
} from "./fields.ts";
import { routes } from "./route.ts";

/** How to serve a device over NVMe/TCP. Absent fields take the defaults of what is shared. */
export const shareNvmfEntries = {
  /** Default: `nqn.2019-05.io.openebs:` and the device's UUID (a nexus: its volume's). */
  nqn: v.optional(Nqn),
  /** Default: every host. */
  allowedHosts: v.optional(AllowedHosts),
  /** Default: `optimized`. */
  anaState: v.optional(AnaStateName),
  /** Default: 1 to 0xffef. */
  controllerIds: v.optional(ControllerIds),
} as const;

export const ShareNvmf = v.strictObject(shareNvmfEntries);
export type ShareNvmf = v.InferOutput<typeof ShareNvmf>;

/** How to serve a device over NBD. */
export const ShareNbd = v.strictObject({
  /** Name of the export. Default: the device's UUID (a nexus: its volume's). */
  exportName: v.optional(Name),
  readOnly: v.optional(v.boolean(), false),
});
export type ShareNbd = v.InferOutput<typeof ShareNbd>;

export const ShareProtocol = v.picklist(["nvmf", "nbd"]);
export type ShareProtocol = v.InferOutput<typeof ShareProtocol>;

/** A host's association with a subsystem. */
export const SubsystemController = v.object({
  id: Count,
  hostNqn: v.string(),
  hostId: v.string(),
  /** I/O queues that are connected. */
  ioQueues: Count,
  keepAliveMs: Count,
  /** Of the admin queue's connection; null when it is not known any more. */
  hostAddress: v.nullable(v.string()),
});

export const Subsystem = v.object({
  nqn: v.string(),
  /** Device that is its namespace. */
  bdev: v.string(),
  bdevUuid: v.string(),
  serial: v.string(),
  model: v.string(),
  /** Hosts that may connect; null: every host. */
  allowedHosts: v.nullable(v.array(v.string())),
  anaState: AnaStateName,
  controllers: v.array(SubsystemController),
  reactor: Count,
});
export type Subsystem = v.InferOutput<typeof Subsystem>;

export const NbdExport = v.object({
  name: v.string(),
  bdev: v.string(),
  sizeBytes: Bytes,
  readOnly: v.boolean(),
  connections: Count,
  uri: v.string(),
  reactor: Count,
});
export type NbdExport = v.InferOutput<typeof NbdExport>;

export const shareRoutes = routes({
  listSubsystems: {
    method: "GET",
    path: "/v1/subsystems",
    summary: "NVMe subsystems that this engine serves, with the hosts connected to each",
    query: v.strictObject({ nqn: v.optional(Nqn) }),
    result: v.array(Subsystem),
  },
  listNbdExports: {
    method: "GET",
    path: "/v1/nbd-exports",
    summary: "NBD exports that this engine serves",
    result: v.array(NbdExport),
  },
});

export { Share };
