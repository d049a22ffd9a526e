/** Operations on pools, and on replicas and nexuses that belong to no volume. */
import type { Control } from "../control.ts";
import {
  addNexusChild,
  createNexus,
  destroyNexus,
  removeNexusChild,
  shareNexus,
  unshareNexus,
} from "../planner/decide/nexuses.ts";
import { poolRemovalImpact } from "../planner/decide/nodes.ts";
import {
  checkExpandPool,
  cordonPool,
  createPool,
  destroyPool,
  labelPool,
  unlabelPool,
} from "../planner/decide/pools.ts";
import {
  createReplica,
  destroyReplica,
  shareReplica,
  unshareReplica,
} from "../planner/decide/replicas.ts";
import {
  nexusAsRecorded,
  nexusGone,
  poolCreated,
  poolExpanded,
  poolGone,
  replicaCreated,
  replicaGone,
  replicaServed,
} from "./goals.ts";
import type { Operations } from "./operation.ts";
import { markFailures, waitFor } from "./wait.ts";

type PoolOperations = Pick<
  Control,
  | "createPool"
  | "destroyPool"
  | "poolRemovalImpact"
  | "labelPool"
  | "unlabelPool"
  | "cordonPool"
  | "expandPool"
>;
type ReplicaOperations = Pick<
  Control,
  "createReplica" | "destroyReplica" | "shareReplica" | "unshareReplica"
>;
type NexusOperations = Pick<
  Control,
  | "createNexus"
  | "destroyNexus"
  | "shareNexus"
  | "unshareNexus"
  | "addNexusChild"
  | "removeNexusChild"
>;

export function poolOperations(operations: Operations): PoolOperations {
  return {
    async createPool(request, context) {
      await operations.carryOut({
        name: "createPool",
        request: [request],
        context,
        decide: (state, uuids) => createPool(state, request, uuids),
        subject: `pool/${request.poolId}`,
        goal: poolCreated(request.poolId),
      });
    },
    async destroyPool(id, nodeId, force, context) {
      await operations.carryOut({
        name: "destroyPool",
        request: [id, nodeId, force],
        context,
        decide: (state) => destroyPool(state, id, nodeId, force),
        subject: `pool/${id}`,
        goal: poolGone(id),
      });
    },
    async poolRemovalImpact(id) {
      return poolRemovalImpact(await operations.latestState(), id);
    },
    labelPool: (id, key, value, overwrite, context) =>
      operations.commit({
        name: "labelPool",
        request: [id, key, value, overwrite],
        context,
        decide: (state) => labelPool(state, id, key, value, overwrite),
      }),
    unlabelPool: (id, key, context) =>
      operations.commit({
        name: "unlabelPool",
        request: [id, key],
        context,
        decide: (state) => unlabelPool(state, id, key),
      }),
    cordonPool: (id, cordoned, context) =>
      operations.commit({
        name: "cordonPool",
        request: [id, cordoned],
        context,
        decide: (state) => cordonPool(state, id, cordoned),
      }),
    async expandPool(id, context) {
      const { observation, execution } = operations.parts;
      operations.requireLeader();
      const nodeId = checkExpandPool(await operations.latestState(), id);
      const { signal } = context;
      const call = signal === undefined ? {} : { signal };
      const { current } = await observation.engine(nodeId).growPool({ name: id }, call);
      execution.wake(`pool/${id}`, context.requestId);
      // An engine says nothing of its own of a pool that has grown.
      await observation.refresh(nodeId);
      const { waits } = operations;
      const goal = poolExpanded(id, current.capacityBytes);
      await waitFor(waits, goal, markFailures(waits, goal), signal);
    },
  };
}

export function replicaOperations(operations: Operations): ReplicaOperations {
  return {
    async createReplica(request, context) {
      await operations.carryOut({
        name: "createReplica",
        request: [request],
        context,
        decide: (state) => createReplica(state, request),
        subject: `replica/${request.uuid}`,
        goal: replicaCreated(request.uuid),
      });
    },
    async destroyReplica(uuid, poolId, context) {
      await operations.carryOut({
        name: "destroyReplica",
        request: [uuid, poolId],
        context,
        decide: (state) => destroyReplica(state, uuid, poolId),
        subject: `replica/${uuid}`,
        goal: replicaGone(uuid),
      });
    },
    async shareReplica(uuid, poolId, allowedHosts, context) {
      const uri = await operations.carryOut({
        name: "shareReplica",
        request: [uuid, poolId, allowedHosts],
        context,
        decide: (state) => shareReplica(state, uuid, poolId, allowedHosts),
        subject: `replica/${uuid}`,
        goal: replicaServed(uuid),
      });
      return uri ?? "";
    },
    async unshareReplica(uuid, poolId, context) {
      await operations.carryOut({
        name: "unshareReplica",
        request: [uuid, poolId],
        context,
        decide: (state) => unshareReplica(state, uuid, poolId),
        subject: `replica/${uuid}`,
        goal: replicaServed(uuid),
      });
    },
  };
}

export function nexusOperations(operations: Operations): NexusOperations {
  return {
    async createNexus(request, context) {
      await operations.carryOut({
        name: "createNexus",
        request: [request],
        context,
        decide: (state) => createNexus(state, request),
        subject: `nexus/${request.uuid}`,
        goal: nexusAsRecorded(request.uuid, "creation"),
      });
    },
    async destroyNexus(uuid, nodeId, context) {
      await operations.carryOut({
        name: "destroyNexus",
        request: [uuid, nodeId],
        context,
        decide: (state) => destroyNexus(state, uuid, nodeId),
        subject: `nexus/${uuid}`,
        goal: nexusGone(uuid),
      });
    },
    async shareNexus(uuid, nodeId, context) {
      const uri = await operations.carryOut({
        name: "shareNexus",
        request: [uuid, nodeId],
        context,
        decide: (state) => shareNexus(state, uuid, nodeId),
        subject: `nexus/${uuid}`,
        goal: nexusAsRecorded(uuid, "sharing"),
      });
      return uri ?? "";
    },
    async unshareNexus(uuid, nodeId, context) {
      await operations.carryOut({
        name: "unshareNexus",
        request: [uuid, nodeId],
        context,
        decide: (state) => unshareNexus(state, uuid, nodeId),
        subject: `nexus/${uuid}`,
        goal: nexusAsRecorded(uuid, "unsharing"),
      });
    },
    async addNexusChild(uuid, nodeId, childUri, context) {
      await operations.carryOut({
        name: "addNexusChild",
        request: [uuid, nodeId, childUri],
        context,
        decide: (state) => addNexusChild(state, uuid, nodeId, childUri),
        subject: `nexus/${uuid}`,
        goal: nexusAsRecorded(uuid, "change of a child"),
      });
    },
    async removeNexusChild(uuid, nodeId, childUri, context) {
      await operations.carryOut({
        name: "removeNexusChild",
        request: [uuid, nodeId, childUri],
        context,
        decide: (state) => removeNexusChild(state, uuid, nodeId, childUri),
        subject: `nexus/${uuid}`,
        goal: nexusAsRecorded(uuid, "change of a child"),
      });
    },
  };
}
