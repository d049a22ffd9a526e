/** Shapes of nodes, of hosts that mount volumes, and of disks (mayastor.md 1.2). */
import * as v from "valibot";
import { AnyName, Labels, ShownLabels, Time } from "./fields.ts";

export const NodeStatus = v.picklist(["Unknown", "Online", "Offline"]);

export const CordonedState = v.object({ cordonlabels: v.array(v.string()) });
export const DrainState = v.object({
  cordonlabels: v.array(v.string()),
  drainlabels: v.array(v.string()),
});
/** Exactly one of the three. */
export const CordonDrainState = v.union([
  v.object({ cordonedstate: CordonedState }),
  v.object({ drainingstate: DrainState }),
  v.object({ drainedstate: DrainState }),
]);

export const NodeSpec = v.strictObject({
  grpcEndpoint: v.string(),
  id: v.string(),
  labels: v.optional(ShownLabels),
  cordondrainstate: v.optional(CordonDrainState),
  node_nqn: v.optional(v.string()),
  version: v.optional(v.string()),
});
export const NodeState = v.object({
  grpcEndpoint: v.string(),
  id: v.string(),
  status: NodeStatus,
  node_nqn: v.optional(v.string()),
  version: v.optional(v.string()),
  /** When its engine was heard of last. Ours. */
  lastSeen: v.optional(Time),
});
export const Node = v.object({
  id: v.string(),
  spec: v.optional(NodeSpec),
  state: v.optional(NodeState),
});

const int32 = v.pipe(v.number(), v.integer());
export const BlockDevice = v.object({
  available: v.boolean(),
  connection_type: v.string(),
  devlinks: v.array(v.string()),
  devmajor: int32,
  devminor: int32,
  devname: v.string(),
  devpath: v.string(),
  devtype: v.string(),
  model: v.string(),
  /** In blocks of 512 bytes. */
  size: v.pipe(v.number(), v.integer(), v.minValue(0)),
  is_rotational: v.optional(v.boolean()),
  filesystem: v.optional(
    v.object({
      fstype: v.string(),
      label: v.string(),
      mountpoint: v.string(),
      uuid: v.string(),
    }),
  ),
  partition: v.optional(
    v.object({
      name: v.string(),
      number: int32,
      parent: v.string(),
      scheme: v.string(),
      typeid: v.string(),
      uuid: v.string(),
    }),
  ),
  /** Why it is not available. Ours. */
  unavailable_reason: v.optional(v.string()),
});

export const RegisterAppNode = v.object({
  endpoint: v.pipe(v.string(), v.minLength(1), v.maxLength(1024)),
  labels: v.optional(Labels),
});
export const AppNodeSpec = v.object({
  id: v.string(),
  endpoint: v.string(),
  labels: v.optional(ShownLabels),
});
export const AppNode = v.object({ id: AnyName, spec: AppNodeSpec });
export const AppNodes = v.object({
  entries: v.array(AppNode),
  next_token: v.optional(v.pipe(v.number(), v.integer())),
});

/** What forced removal of a node or a pool has to be told (mayastor.md 1.4). */
export const PurgeBody = v.object({
  /** Forget it although it cannot be asked. */
  purge: v.optional(v.boolean(), false),
  /** That this is meant. */
  accept: v.optional(v.boolean(), false),
  accept_volume_loss: v.optional(v.boolean(), false),
  accept_snapshot_loss: v.optional(v.boolean(), false),
});
