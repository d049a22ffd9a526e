/**
 * Nexuses: mirrored volumes as block devices over 1 to 8 children, local and remote.
 * Imports reactor, bdev; knows replicas only through `ReplicaLink`.
 */
export type { ChildDevice, OpenChild } from "./child.ts";
export { RebuildMemory } from "./child-io.ts";
export type { NexusContext, NexusEvent, NexusIdentity } from "./core.ts";
export { NexusRequests } from "./io-path.ts";
export { READ_LEASE_HELD_MS, REBUILD_ARENA_SHARE, REGION_BYTES } from "./limits.ts";
export { type ChildInfo, Nexus, type NexusInfo } from "./nexus.ts";
export { type NexusOptions, openNexus } from "./open-nexus.ts";
export type { RebuildRecord, RebuildState } from "./rebuild.ts";
export type { FaultRecorder, NexusRecord } from "./recorder.ts";
export type { Allocation, Claim, LeaseLink, ReplicaLink, SyncState } from "./replica-link.ts";
export type { ScrubFinding, ScrubRecord } from "./scrub-record.ts";
export type { ChildReason, ChildState, NexusState } from "./states.ts";
