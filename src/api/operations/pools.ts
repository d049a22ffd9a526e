/** Pools. */
import * as v from "valibot";
import type { PoolRecord } from "../../control/model.ts";
import { TrilithError } from "../../errors.ts";
import { generatedName } from "../identity.ts";
import { contractOperation, ownOperation, type Scope } from "../operation.ts";
import { nodeOf, poolOf, sorted } from "../records.ts";
import { renderPool } from "../render/pools.ts";
import { RemovalImpact } from "../schemas/cluster.ts";
import { AnyName, LabelKey, LabelValue, Name, QueryFlag, Uuid } from "../schemas/fields.ts";
import { PurgeBody } from "../schemas/nodes.ts";
import { CreatePoolBody, NewPoolBody, Pool, PoolCordonReq } from "../schemas/pools.ts";
import { assertAccepted, impact } from "./nodes.ts";
import { forcedRemoval, idParams, nodePoolParams, poolParams } from "./parameters.ts";

const shownPool = async (scope: Scope, id: string, nodeId?: string) => {
  const state = await scope.state();
  return renderPool(state, poolOf(state, id, nodeId));
};

const reads = [
  contractOperation({
    id: "get_pools",
    method: "get",
    path: "/pools",
    tag: "Pools",
    summary: "All pools, or those that hold replicas of a volume",
    query: v.object({ volume_id: v.optional(Uuid) }),
    result: v.array(Pool),
    handle: async ({ query: { volume_id } }, { state: read }) => {
      const state = await read();
      const { stored } = state;
      const wanted = new Set<string>();
      for (const uuid of stored.replicasOfVolume.get(volume_id ?? "") ?? []) {
        const replica = stored.replicas.get(uuid);
        if (replica !== undefined) wanted.add(replica.poolId);
      }
      return sorted(stored, "pools")
        .filter(({ id }) => volume_id === undefined || wanted.has(id))
        .map((pool) => renderPool(state, pool));
    },
  }),
  contractOperation({
    id: "get_pool",
    method: "get",
    path: "/pools/{pool_id}",
    tag: "Pools",
    summary: "One pool",
    params: poolParams,
    result: Pool,
    handle: ({ params }, scope) => shownPool(scope, params.pool_id),
  }),
  contractOperation({
    id: "get_node_pools",
    method: "get",
    path: "/nodes/{id}/pools",
    tag: "Pools",
    summary: "Pools of a node",
    params: idParams,
    result: v.array(Pool),
    handle: async ({ params }, { state: read }) => {
      const state = await read();
      nodeOf(state, params.id);
      return sorted(state.stored, "pools")
        .filter(({ nodeId }) => nodeId === params.id)
        .map((pool: PoolRecord) => renderPool(state, pool));
    },
  }),
  contractOperation({
    id: "get_node_pool",
    method: "get",
    path: "/nodes/{node_id}/pools/{pool_id}",
    tag: "Pools",
    summary: "One pool of a node",
    params: nodePoolParams,
    result: Pool,
    handle: ({ params }, scope) => shownPool(scope, params.pool_id, params.node_id),
  }),
  ownOperation({
    id: "get_pool_removal_impact",
    method: "get",
    path: "/pools/{pool_id}/removal-impact",
    tag: "Pools",
    summary: "What removing a pool by force would cost",
    params: poolParams,
    result: RemovalImpact,
    handle: async ({ params }, { state, control }) => {
      poolOf(await state(), params.pool_id);
      return impact(await control.poolRemovalImpact(params.pool_id));
    },
  }),
];

const life = [
  contractOperation({
    id: "put_node_pool",
    method: "put",
    path: "/nodes/{node_id}/pools/{pool_id}",
    tag: "Pools",
    summary: "Makes a pool on a disk, imports the one that is there, or confirms an equal one",
    params: v.object({ node_id: AnyName, pool_id: Name }),
    body: CreatePoolBody,
    result: Pool,
    handle: async ({ params: { node_id, pool_id }, body }, scope) => {
      await scope.control.createPool(
        {
          nodeId: node_id,
          poolId: pool_id,
          disks: body.disks,
          labels: body.labels ?? {},
          clusterSizeBytes: body.cluster_size ?? null,
          force: body.force,
        },
        scope.context,
      );
      return shownPool(scope, pool_id);
    },
  }),
  ownOperation({
    id: "post_node_pool",
    method: "post",
    path: "/nodes/{id}/pools",
    tag: "Pools",
    summary: "Makes a pool with a generated id (or the one that the body gives)",
    params: idParams,
    body: NewPoolBody,
    result: Pool,
    status: 201,
    handle: async ({ params, body }, scope) => {
      const poolId = body.id ?? generatedName("pool", scope.context);
      await scope.control.createPool(
        {
          nodeId: params.id,
          poolId,
          disks: body.disks,
          labels: body.labels ?? {},
          clusterSizeBytes: body.cluster_size ?? null,
          force: body.force,
        },
        scope.context,
      );
      return shownPool(scope, poolId);
    },
  }),
  contractOperation({
    id: "del_pool",
    method: "delete",
    path: "/pools/{pool_id}",
    tag: "Pools",
    summary: "Destroys a pool that is empty; forgets it by force with `purge`",
    params: poolParams,
    body: PurgeBody,
    bodyOptional: true,
    handle: async ({ params, body }, { control, context }) => {
      assertAccepted(body);
      await control.destroyPool(params.pool_id, null, forcedRemoval(body), context);
    },
  }),
  contractOperation({
    id: "del_node_pool",
    method: "delete",
    path: "/nodes/{node_id}/pools/{pool_id}",
    tag: "Pools",
    summary: "Destroys a pool that is empty; forgets it by force with `purge`",
    params: nodePoolParams,
    body: PurgeBody,
    bodyOptional: true,
    handle: async ({ params: { node_id, pool_id }, body }, { control, context }) => {
      assertAccepted(body);
      await control.destroyPool(pool_id, node_id, forcedRemoval(body), context);
    },
  }),
];

const labels = [
  contractOperation({
    id: "put_pool_label",
    method: "put",
    path: "/pools/{pool_id}/label/{key}={value}",
    tag: "Pools",
    summary: "Labels a pool",
    params: v.object({ pool_id: AnyName, key: LabelKey, value: LabelValue }),
    query: v.object({ overwrite: v.optional(QueryFlag, "false") }),
    result: Pool,
    handle: async ({ params: { pool_id, key, value }, query }, scope) => {
      await scope.control.labelPool(pool_id, key, value, query.overwrite, scope.context);
      return shownPool(scope, pool_id);
    },
  }),
  contractOperation({
    id: "del_pool_label",
    method: "delete",
    // The contract names this parameter differently from its neighbour.
    path: "/pools/{id}/label/{key}",
    tag: "Pools",
    summary: "Takes a label off a pool",
    params: v.object({ id: AnyName, key: LabelKey }),
    result: Pool,
    handle: async ({ params: { id, key } }, scope) => {
      await scope.control.unlabelPool(id, key, scope.context);
      return shownPool(scope, id);
    },
  }),
];

/** A cordon of ours keeps everything new away; narrower ones are refused rather than widened silently. */
function assertWholeCordon(body: v.InferOutput<typeof PoolCordonReq>): void {
  const { replicas = true, snapshots = true, restores = true } = body;
  if (replicas && snapshots && restores && body.import !== true) return;
  throw new TrilithError(
    "Unimplemented",
    "a pool is cordoned for replicas, snapshots and restores together, and imported always",
    "leave the body out",
  );
}

const own = [
  ownOperation({
    id: "put_pool_cordon",
    method: "put",
    path: "/pools/{pool_id}/cordon",
    tag: "Pools",
    summary: "Places nothing new in a pool",
    params: poolParams,
    body: PoolCordonReq,
    bodyOptional: true,
    result: Pool,
    handle: async ({ params, body }, scope) => {
      assertWholeCordon(body);
      await scope.control.cordonPool(params.pool_id, true, scope.context);
      return shownPool(scope, params.pool_id);
    },
  }),
  ownOperation({
    id: "del_pool_cordon",
    method: "delete",
    path: "/pools/{pool_id}/cordon",
    tag: "Pools",
    summary: "Lets a pool take what is new again",
    params: poolParams,
    body: PoolCordonReq,
    bodyOptional: true,
    result: Pool,
    handle: async ({ params, body }, scope) => {
      assertWholeCordon(body);
      await scope.control.cordonPool(params.pool_id, false, scope.context);
      return shownPool(scope, params.pool_id);
    },
  }),
  ownOperation({
    id: "put_pool_expand",
    method: "put",
    path: "/pools/{pool_id}/expand",
    tag: "Pools",
    summary: "Takes in what a pool's disk has grown by",
    params: poolParams,
    result: Pool,
    handle: async ({ params }, scope) => {
      await scope.control.expandPool(params.pool_id, scope.context);
      return shownPool(scope, params.pool_id);
    },
  }),
];

export const poolOperations = [...reads, ...life, ...labels, ...own];
