/** Nodes, their disks, and hosts that mount volumes. */
import * as v from "valibot";
import { drainRemainder } from "../../control/planner/reconcile/drain-progress.ts";
import type { BlockDevice as EngineBlockDevice } from "../../engine/rpc/bdevs.ts";
import { TrilithError } from "../../errors.ts";
import { notFound } from "../errors.ts";
import { contractOperation, ownOperation, type Scope } from "../operation.ts";
import { nodeOf, pageOf, sorted } from "../records.ts";
import { renderAppNode, renderBlockDevice, renderNode } from "../render/nodes.ts";
import { DrainProgress, RemovalImpact } from "../schemas/cluster.ts";
import {
  AnyName,
  LabelKey,
  LabelValue,
  Name,
  pageQuery,
  QueryFlag,
  ReasonLabel,
} from "../schemas/fields.ts";
import {
  AppNode,
  AppNodes,
  BlockDevice,
  Node,
  PurgeBody,
  RegisterAppNode,
} from "../schemas/nodes.ts";
import { forcedRemoval, idParams } from "./parameters.ts";

const shownNode = async (scope: Scope, id: string) => {
  const state = await scope.state();
  return renderNode(state, nodeOf(state, id));
};

const reads = [
  contractOperation({
    id: "get_nodes",
    method: "get",
    path: "/nodes",
    tag: "Nodes",
    summary: "All nodes, or the one that is named",
    query: v.object({ node_id: v.optional(AnyName) }),
    result: v.array(Node),
    handle: async ({ query }, scope) => {
      const state = await scope.state();
      return sorted(state.stored, "nodes")
        .filter(({ id }) => query.node_id === undefined || id === query.node_id)
        .map((node) => renderNode(state, node));
    },
  }),
  contractOperation({
    id: "get_node",
    method: "get",
    path: "/nodes/{id}",
    tag: "Nodes",
    summary: "One node",
    params: idParams,
    result: Node,
    handle: ({ params }, scope) => shownNode(scope, params.id),
  }),
  contractOperation({
    id: "get_node_block_devices",
    method: "get",
    path: "/nodes/{node}/block_devices",
    tag: "BlockDevices",
    summary: "Disks of a node; only those that can become a pool unless `all`",
    params: v.object({ node: AnyName }),
    query: v.object({ all: v.optional(QueryFlag, "false") }),
    result: v.array(BlockDevice),
    handle: async ({ params, query }, { state, control }) => {
      nodeOf(await state(), params.node);
      const devices = await control.blockDevices(params.node, query.all);
      return devices.map((device) => renderBlockDevice(device as EngineBlockDevice));
    },
  }),
  ownOperation({
    id: "get_node_removal_impact",
    method: "get",
    path: "/nodes/{id}/removal-impact",
    tag: "Nodes",
    summary: "What removing a node by force would cost",
    params: idParams,
    result: RemovalImpact,
    handle: async ({ params }, { state, control }) => {
      nodeOf(await state(), params.id);
      return impact(await control.nodeRemovalImpact(params.id));
    },
  }),
];

/** An impact report, as plain lists. */
export function impact(report: {
  readonly volumesLost: readonly string[];
  readonly volumesDegraded: readonly string[];
  readonly snapshotsLost: readonly string[];
  readonly replicasLost: readonly string[];
  readonly volumesMoved?: readonly string[];
  readonly volumesUnpublished?: readonly string[];
}) {
  const { volumesMoved, volumesUnpublished } = report;
  return {
    volumesLost: [...report.volumesLost],
    volumesDegraded: [...report.volumesDegraded],
    snapshotsLost: [...report.snapshotsLost],
    replicasLost: [...report.replicasLost],
    ...(volumesMoved === undefined ? {} : { volumesMoved: [...volumesMoved] }),
    ...(volumesUnpublished === undefined ? {} : { volumesUnpublished: [...volumesUnpublished] }),
  };
}

/** Forced removal is refused before anything is looked at when it is not said to be meant. */
export function assertAccepted(body: { readonly purge: boolean; readonly accept: boolean }): void {
  if (!body.purge || body.accept) return;
  throw new TrilithError(
    "FailedPrecondition",
    "purge forgets a resource without asking its node, and was not accepted",
    "look at .../removal-impact, then repeat with accept (and accept_volume_loss, accept_snapshot_loss)",
  );
}

const labelParams = v.object({ id: AnyName, label: ReasonLabel });

const cordons = [
  contractOperation({
    id: "put_node_cordon",
    method: "put",
    path: "/nodes/{id}/cordon/{label}",
    tag: "Nodes",
    summary: "Places nothing new on a node, for the reason that the label names",
    params: labelParams,
    result: Node,
    handle: async ({ params: { id, label } }, scope) => {
      await scope.control.cordonNode(id, label, scope.context);
      return shownNode(scope, id);
    },
  }),
  contractOperation({
    id: "delete_node_cordon",
    method: "delete",
    path: "/nodes/{id}/cordon/{label}",
    tag: "Nodes",
    summary: "Takes away a cordon or a drain label",
    params: labelParams,
    result: Node,
    handle: async ({ params: { id, label } }, scope) => {
      await scope.control.uncordonNode(id, label, scope.context);
      return shownNode(scope, id);
    },
  }),
  contractOperation({
    id: "put_node_drain",
    method: "put",
    path: "/nodes/{id}/drain/{label}",
    tag: "Nodes",
    summary: "Begins to move targets away from a node; with `evacuate` replicas too",
    description: "It goes on after the answer: the node's `cordondrainstate` says how far it is.",
    params: labelParams,
    query: v.object({ evacuate: v.optional(QueryFlag, "false") }),
    result: Node,
    handle: async ({ params: { id, label }, query }, scope) => {
      await scope.control.drainNode({ nodeId: id, label, evacuate: query.evacuate }, scope.context);
      return shownNode(scope, id);
    },
  }),
];

const drains = [
  ownOperation({
    id: "get_node_drain",
    method: "get",
    path: "/nodes/{id}/drain",
    tag: "Nodes",
    summary: "What a drained node still has that is to leave, and what each thing waits for",
    params: idParams,
    result: DrainProgress,
    handle: async ({ params }, scope) => {
      const state = await scope.state();
      const node = nodeOf(state, params.id);
      const remaining = drainRemainder(state, node).map(({ volumeUuid, ...one }) => ({
        ...one,
        ...(volumeUuid === null ? {} : { volume: volumeUuid }),
      }));
      return { node: node.id, phase: node.drainPhase, remaining };
    },
  }),
];

const labels = [
  contractOperation({
    id: "put_node_label",
    method: "put",
    path: "/nodes/{id}/label/{key}={value}",
    tag: "Nodes",
    summary: "Labels a node",
    params: v.object({ id: AnyName, key: LabelKey, value: LabelValue }),
    query: v.object({ overwrite: v.optional(QueryFlag, "false") }),
    result: Node,
    handle: async ({ params: { id, key, value }, query }, scope) => {
      await scope.control.labelNode(id, key, value, query.overwrite, scope.context);
      return shownNode(scope, id);
    },
  }),
  contractOperation({
    id: "delete_node_label",
    method: "delete",
    path: "/nodes/{id}/label/{key}",
    tag: "Nodes",
    summary: "Takes a label off a node",
    params: v.object({ id: AnyName, key: LabelKey }),
    result: Node,
    handle: async ({ params: { id, key } }, scope) => {
      await scope.control.unlabelNode(id, key, scope.context);
      return shownNode(scope, id);
    },
  }),
];

const removal = [
  ownOperation({
    id: "del_node",
    method: "delete",
    path: "/nodes/{id}",
    tag: "Nodes",
    summary: "Removes a node from the cluster; by force with `purge`",
    params: idParams,
    body: PurgeBody,
    bodyOptional: true,
    handle: async ({ params, body }, { control, context }) => {
      assertAccepted(body);
      await control.removeNode(params.id, forcedRemoval(body), context);
    },
  }),
  contractOperation({
    id: "put_node_jsongrpc",
    method: "put",
    path: "/nodes/{node}/jsongrpc/{method}",
    tag: "JsonGrpc",
    summary: "Raw JSON-RPC of SPDK: there is none here",
    params: v.object({ node: AnyName, method: AnyName }),
    body: v.looseObject({}) as never,
    result: v.looseObject({}),
    handle: async ({ params }, { state }) => {
      nodeOf(await state(), (params as { node: string }).node);
      throw new TrilithError(
        "Unimplemented",
        "engines are not SPDK and take no JSON-RPC",
        "use the engine's own HTTP interface (port 10124)",
      );
    },
  }),
];

const appNodes = [
  contractOperation({
    id: "get_app_nodes",
    method: "get",
    path: "/app-nodes",
    tag: "AppNodes",
    summary: "Hosts that mount volumes",
    query: v.object(pageQuery),
    result: AppNodes,
    handle: async ({ query }, { state }) => {
      const { entries, ...rest } = pageOf(sorted((await state()).stored, "appNodes"), query);
      return { entries: entries.map(renderAppNode), ...rest };
    },
  }),
  contractOperation({
    id: "get_app_node",
    method: "get",
    path: "/app-nodes/{app_node_id}",
    tag: "AppNodes",
    summary: "One host",
    params: v.object({ app_node_id: AnyName }),
    result: AppNode,
    handle: async ({ params }, { state }) => {
      const record = (await state()).stored.appNodes.get(params.app_node_id);
      if (record === undefined) throw notFound("app node", params.app_node_id);
      return renderAppNode(record);
    },
  }),
  contractOperation({
    id: "register_app_node",
    method: "put",
    path: "/app-nodes/{app_node_id}",
    tag: "AppNodes",
    summary: "Registers a host, or changes where its agent answers",
    params: v.object({ app_node_id: Name }),
    body: RegisterAppNode,
    handle: async ({ params, body }, { control, context }) => {
      const { endpoint, labels = {} } = body;
      await control.registerAppNode(params.app_node_id, endpoint, labels, context);
    },
  }),
  contractOperation({
    id: "deregister_app_node",
    method: "delete",
    path: "/app-nodes/{app_node_id}",
    tag: "AppNodes",
    summary: "Forgets a host",
    params: v.object({ app_node_id: AnyName }),
    handle: async ({ params }, { control, context }) => {
      await control.deregisterAppNode(params.app_node_id, context);
    },
  }),
];

export const nodeOperations = [...reads, ...cordons, ...drains, ...labels, ...removal, ...appNodes];
