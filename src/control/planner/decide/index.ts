/**
 * What each operation of the API changes in the store: pure functions `(state, request, ids) ->
 * Decision`, one file per resource. They throw a `TrilithError` with the code that the REST contract
 * gives the case (mayastor.md 1.3) and a remedy. Imports the planner and `errors.ts` only.
 *
 * Decisions only record what is wanted. Whoever reconciles carries it out, with these meanings:
 *
 * | record                        | means                                                            |
 * |-------------------------------|------------------------------------------------------------------|
 * | any, `Creating`               | not carried out yet: make it on its engine, then put `Created`   |
 * | any, `Deleting`               | destroy it on its engine, then remove the record                 |
 * | pool, `Creating`              | `createPool` with disks, uuid, clusterSizeBytes and `force`      |
 * |                               | (creates or imports); then `Created` with `force: false`         |
 * | volume, `Creating`            | `Created` when all its replicas are; when a replica cannot be    |
 * |                               | made and no other pool takes it: `Deleting`                      |
 * | volume, `Deleting`            | its replicas are `Deleting` and its nexuses `Shutdown`; remove   |
 * |                               | it with its watches and history when none of them is left        |
 * | replica, `snapshotUuid` set   | `Creating` makes a clone of the replica snapshot in its pool     |
 * | replica, `allowedHosts`       | null: not served. A list: served over NVMe/TCP to these hosts    |
 * | replica, `healthy`            | kept by the recorder. A new replica of a volume with data is     |
 * |                               | recorded unhealthy: only a rebuild makes it healthy              |
 * | replica of a nexus's volume   | one that is not among `children` is to be added and rebuilt      |
 * | nexus, `Creating`             | share the remote children to its node first, destroy any         |
 * |                               | `Shutdown` nexus of the volume on the same node, then create it  |
 * |                               | with epoch and children (`healthy` from the replica), then share |
 * |                               | it as `share`, `allowedHosts` and `controllerIds` say            |
 * | nexus, `Shutdown`             | a former target: destroy it when its node answers, then remove   |
 * |                               | the record; never waited for by the volume's next target         |
 * | nexus child, `uri`            | `bdev:///<replica uuid>` where the replica lies on the nexus's   |
 * |                               | node, else its NVMe share (`childUri` below)                     |
 * | volume, `target`              | where it is to be served. Its nexus record is made with it       |
 * | volume, `replicaCount`        | more replicas than this: remove one (`victimReplica` first, else |
 * |                               | `replicaToRemove`); fewer: place one (`placeReplicas`)           |
 * | volume, `sizeBytes`           | replicas and nexus whose record is larger than what the engine   |
 * |                               | reports are to be grown: replicas first, then the nexus          |
 * | snapshot, `Creating`          | take its replica snapshots: published through the nexus's node   |
 * |                               | with the volume paused, else one by one; `txnId` names the try   |
 * | node, `drainPhase` `draining` | move targets away (and replicas, when `evacuate`), then `drained`|
 *
 * A replica whose volume's nexus was opened without it may have missed writes: the recorder puts every
 * replica that the nexus's record does not list as `healthy: false` in the same transaction.
 *
 * A decision that takes room in a pool puts the pool's record unchanged (`touch`), so that of two
 * decisions on the same view one is refused and made again: capacity is never promised twice. Sums of
 * a pool's room are kept as long as its record is the same, so whatever changes the size or the
 * provisioning of a replica record touches the pool too. In the same way whatever hangs something onto
 * a node, volume or snapshot touches that record, and a single replica of an affinity group its node.
 *
 * Events of a decision say what took effect with it (labels, cordons, what was asked for). `Create` and
 * `Delete` of pools, replicas, nexuses, volumes and snapshots are said when they have been carried out.
 *
 * A decision without changes and events means: this is so, or is being done, already.
 */
export { addWatch, deregisterAppNode, registerAppNode, removeWatch } from "./app-nodes.ts";
export { decisionUuids, type FreshUuids } from "./changes.ts";
export {
  addNexusChild,
  createNexus,
  destroyNexus,
  removeNexusChild,
  shareNexus,
  unshareNexus,
} from "./nexuses.ts";
export {
  cordonNode,
  drainNode,
  labelNode,
  nodeRemovalImpact,
  poolRemovalImpact,
  removeNode,
  uncordonNode,
  unlabelNode,
} from "./nodes.ts";
export {
  checkExpandPool,
  cordonPool,
  createPool,
  destroyPool,
  labelPool,
  unlabelPool,
} from "./pools.ts";
export {
  controllerIdsOf,
  destroyShutdownTargets,
  newTarget,
  publishVolume,
  replicaHosts,
  shareVolume,
  unpublishVolume,
  unshareVolume,
} from "./publish.ts";
export { createReplica, destroyReplica, shareReplica, unshareReplica } from "./replicas.ts";
export {
  moveReplica,
  resizeVolume,
  setFaultedChildWait,
  setMaxSnapshots,
  setReplicaCount,
} from "./scale.ts";
export { acknowledgeScrub, startScrub, stopScrub } from "./scrubs.ts";
export { createSnapshot, destroySnapshot, restoreVolume } from "./snapshots.ts";
export { createVolume, destroyVolume, newReplica, placementOf, touchPlaces } from "./volumes.ts";
