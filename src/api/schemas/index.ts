/** All shapes of the HTTP API, by the name that the OpenAPI document gives them. Imports valibot only. */
import type * as v from "valibot";
import * as cluster from "./cluster.ts";
import {
  NexusShareProtocol,
  Protocol,
  ReplicaShareProtocol,
  SpecStatus,
  VolumeShareProtocol,
} from "./fields.ts";
import * as nexuses from "./nexuses.ts";
import * as nodes from "./nodes.ts";
import * as pools from "./pools.ts";
import * as scrubs from "./scrubs.ts";
import * as volumes from "./volumes.ts";

const { errorKinds: _errorKinds, ...clusterShapes } = cluster;

/** Shapes that have a name. */
export const components: Readonly<Record<string, v.GenericSchema>> = {
  Protocol,
  SpecStatus,
  VolumeShareProtocol,
  NexusShareProtocol,
  ReplicaShareProtocol,
  ...nodes,
  ...pools,
  ...nexuses,
  ...volumes,
  ...scrubs,
  ...clusterShapes,
} as unknown as Record<string, v.GenericSchema>;

export type Node = v.InferOutput<typeof nodes.Node>;
export type NodeSpec = v.InferOutput<typeof nodes.NodeSpec>;
export type CordonDrainState = v.InferOutput<typeof nodes.CordonDrainState>;
export type BlockDevice = v.InferOutput<typeof nodes.BlockDevice>;
export type AppNode = v.InferOutput<typeof nodes.AppNode>;
export type AppNodes = v.InferOutput<typeof nodes.AppNodes>;
export type Pool = v.InferOutput<typeof pools.Pool>;
export type PoolSpec = v.InferOutput<typeof pools.PoolSpec>;
export type PoolState = v.InferOutput<typeof pools.PoolState>;
export type Replica = v.InferOutput<typeof pools.Replica>;
export type ReplicaSpec = v.InferOutput<typeof pools.ReplicaSpec>;
export type Child = v.InferOutput<typeof nexuses.Child>;
export type Nexus = v.InferOutput<typeof nexuses.Nexus>;
export type NexusSpec = v.InferOutput<typeof nexuses.NexusSpec>;
export type RebuildRecord = v.InferOutput<typeof nexuses.RebuildRecord>;
export type RebuildHistory = v.InferOutput<typeof nexuses.RebuildHistory>;
export type RunningRebuild = v.InferOutput<typeof nexuses.RunningRebuild>;
export type QueuedRebuild = v.InferOutput<typeof nexuses.QueuedRebuild>;
export type VolumeRebuilds = v.InferOutput<typeof nexuses.VolumeRebuilds>;
export type Volume = v.InferOutput<typeof volumes.Volume>;
export type Volumes = v.InferOutput<typeof volumes.Volumes>;
export type VolumeSpec = v.InferOutput<typeof volumes.VolumeSpec>;
export type VolumeState = v.InferOutput<typeof volumes.VolumeState>;
export type VolumeUsage = v.InferOutput<typeof volumes.VolumeUsage>;
export type ReplicaTopology = v.InferOutput<typeof volumes.ReplicaTopology>;
export type VolumeSnapshot = v.InferOutput<typeof volumes.VolumeSnapshot>;
export type VolumeSnapshots = v.InferOutput<typeof volumes.VolumeSnapshots>;
export type ScrubSummary = v.InferOutput<typeof scrubs.ScrubSummary>;
export type VolumeScrub = v.InferOutput<typeof scrubs.VolumeScrub>;
export type Specs = v.InferOutput<typeof cluster.Specs>;
export type RestWatch = v.InferOutput<typeof cluster.RestWatch>;
export type Event = v.InferOutput<typeof cluster.Event>;
export type Events = v.InferOutput<typeof cluster.Events>;
export type Cluster = v.InferOutput<typeof cluster.Cluster>;
export type NewToken = v.InferOutput<typeof cluster.NewToken>;
export type Warning = v.InferOutput<typeof cluster.Warning>;
export type PlanView = v.InferOutput<typeof cluster.PlanView>;
export type RemovalImpact = v.InferOutput<typeof cluster.RemovalImpact>;
export type Status = v.InferOutput<typeof cluster.Status>;
export type { ErrorKind, RestJsonError } from "./cluster.ts";
