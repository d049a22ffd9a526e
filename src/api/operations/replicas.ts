/** Replicas. Each operation exists by pool, and by node and pool. */
import * as v from "valibot";
import { contractOperation, type Scope } from "../operation.ts";
import { nodeOf, poolOf, replicaOf, sorted } from "../records.ts";
import { renderReplica } from "../render/pools.ts";
import { AnyName, Nqn, queryList, Uuid } from "../schemas/fields.ts";
import { CreateReplicaBody, Replica } from "../schemas/pools.ts";
import { idParams, nodePoolParams } from "./parameters.ts";

const byPool = v.object({ pool_id: AnyName, replica_id: Uuid });
const byNode = v.object({ node_id: AnyName, pool_id: AnyName, replica_id: Uuid });
const hostsQuery = v.object({ "allowed-hosts": v.optional(queryList(Nqn)) });

interface Place {
  readonly node_id?: string;
  readonly pool_id: string;
  readonly replica_id: string;
}

/** Throws `NotFound` when the replica is not where the path says. */
async function assertPlace(scope: Scope, place: Place): Promise<void> {
  const where =
    place.node_id === undefined
      ? { poolId: place.pool_id }
      : { poolId: place.pool_id, nodeId: place.node_id };
  replicaOf(await scope.state(), place.replica_id, where);
}

async function create(
  scope: Scope,
  place: Place,
  body: v.InferOutput<typeof CreateReplicaBody>,
): Promise<v.InferOutput<typeof Replica>> {
  poolOf(await scope.state(), place.pool_id, place.node_id);
  await scope.control.createReplica(
    {
      poolId: place.pool_id,
      uuid: place.replica_id,
      sizeBytes: body.size,
      thin: body.thin,
      share: body.share !== undefined,
      allowedHosts: body["allowed-hosts"] ?? [],
    },
    scope.context,
  );
  const state = await scope.state();
  return renderReplica(state, replicaOf(state, place.replica_id));
}

async function destroy(scope: Scope, place: Place): Promise<void> {
  await assertPlace(scope, place);
  await scope.control.destroyReplica(place.replica_id, place.pool_id, scope.context);
}

async function share(
  scope: Scope,
  place: Place,
  hosts: readonly string[] | undefined,
): Promise<string> {
  await assertPlace(scope, place);
  const { replica_id, pool_id } = place;
  return scope.control.shareReplica(replica_id, pool_id, hosts ?? [], scope.context);
}

async function unshare(scope: Scope, place: Place): Promise<void> {
  await assertPlace(scope, place);
  await scope.control.unshareReplica(place.replica_id, place.pool_id, scope.context);
}

const reads = [
  contractOperation({
    id: "get_replicas",
    method: "get",
    path: "/replicas",
    tag: "Replicas",
    summary: "All replicas",
    result: v.array(Replica),
    handle: async (_request, scope) => {
      const state = await scope.state();
      return sorted(state.stored, "replicas").map((replica) => renderReplica(state, replica));
    },
  }),
  contractOperation({
    id: "get_replica",
    method: "get",
    path: "/replicas/{id}",
    tag: "Replicas",
    summary: "One replica",
    params: v.object({ id: Uuid }),
    result: Replica,
    handle: async ({ params }, scope) => {
      const state = await scope.state();
      return renderReplica(state, replicaOf(state, params.id));
    },
  }),
  contractOperation({
    id: "get_node_replicas",
    method: "get",
    path: "/nodes/{id}/replicas",
    tag: "Replicas",
    summary: "Replicas of a node",
    params: idParams,
    result: v.array(Replica),
    handle: async ({ params }, scope) => {
      const state = await scope.state();
      nodeOf(state, params.id);
      return sorted(state.stored, "replicas")
        .filter(({ nodeId }) => nodeId === params.id)
        .map((replica) => renderReplica(state, replica));
    },
  }),
  contractOperation({
    id: "get_node_pool_replicas",
    method: "get",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas",
    tag: "Replicas",
    summary: "Replicas in a pool",
    params: nodePoolParams,
    result: v.array(Replica),
    handle: async ({ params }, scope) => {
      const state = await scope.state();
      poolOf(state, params.pool_id, params.node_id);
      return sorted(state.stored, "replicas")
        .filter(({ poolId }) => poolId === params.pool_id)
        .map((replica) => renderReplica(state, replica));
    },
  }),
  contractOperation({
    id: "get_node_pool_replica",
    method: "get",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}",
    tag: "Replicas",
    summary: "One replica in a pool",
    params: byNode,
    result: Replica,
    handle: async ({ params }, scope) => {
      await assertPlace(scope, params);
      const state = await scope.state();
      return renderReplica(state, replicaOf(state, params.replica_id));
    },
  }),
];

const tag = "Replicas";
const texts = {
  create: "Makes a replica by hand, or confirms an equal one",
  destroy: "Destroys a replica that nothing uses",
  share: "Serves a replica over NVMe/TCP; the answer is its URI",
  unshare: "Stops serving a replica",
} as const;

const nodePath = "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}";
const poolPath = "/pools/{pool_id}/replicas/{replica_id}";

const changesByNode = [
  contractOperation({
    id: "put_node_pool_replica",
    method: "put",
    path: nodePath,
    tag,
    summary: texts.create,
    params: byNode,
    body: CreateReplicaBody,
    result: Replica,
    handle: ({ params, body }, scope) => create(scope, params, body),
  }),
  contractOperation({
    id: "del_node_pool_replica",
    method: "delete",
    path: nodePath,
    tag,
    summary: texts.destroy,
    params: byNode,
    handle: ({ params }, scope) => destroy(scope, params),
  }),
  contractOperation({
    id: "put_node_pool_replica_share",
    method: "put",
    path: `${nodePath}/share/nvmf`,
    tag,
    summary: texts.share,
    params: byNode,
    query: hostsQuery,
    result: v.string(),
    handle: ({ params, query }, scope) => share(scope, params, query["allowed-hosts"]),
  }),
  contractOperation({
    id: "del_node_pool_replica_share",
    method: "delete",
    path: `${nodePath}/share`,
    tag,
    summary: texts.unshare,
    params: byNode,
    handle: ({ params }, scope) => unshare(scope, params),
  }),
];

const changesByPool = [
  contractOperation({
    id: "put_pool_replica",
    method: "put",
    path: poolPath,
    tag,
    summary: texts.create,
    params: byPool,
    body: CreateReplicaBody,
    result: Replica,
    handle: ({ params, body }, scope) => create(scope, params, body),
  }),
  contractOperation({
    id: "del_pool_replica",
    method: "delete",
    path: poolPath,
    tag,
    summary: texts.destroy,
    params: byPool,
    handle: ({ params }, scope) => destroy(scope, params),
  }),
  contractOperation({
    id: "put_pool_replica_share",
    method: "put",
    path: `${poolPath}/share/nvmf`,
    tag,
    summary: texts.share,
    params: byPool,
    query: hostsQuery,
    result: v.string(),
    handle: ({ params, query }, scope) => share(scope, params, query["allowed-hosts"]),
  }),
  contractOperation({
    id: "del_pool_replica_share",
    method: "delete",
    path: `${poolPath}/share`,
    tag,
    summary: texts.unshare,
    params: byPool,
    handle: ({ params }, scope) => unshare(scope, params),
  }),
];

export const replicaOperations = [...reads, ...changesByNode, ...changesByPool];
