/** Nexuses and their children. */
import * as v from "valibot";
import type { ClusterState } from "../../control/cluster-state.ts";
import type { NexusRecord } from "../../control/model.ts";
import { TrilithError } from "../../errors.ts";
import { notFound } from "../errors.ts";
import { contractOperation, type Scope } from "../operation.ts";
import { nexusOf, nodeOf, sorted } from "../records.ts";
import { renderNexus } from "../render/nexuses.ts";
import { AnyName, NexusShareProtocol, Uuid } from "../schemas/fields.ts";
import { Child, CreateNexusBody, Nexus } from "../schemas/nexuses.ts";
import { idParams, nexusParams, nodeNexusParams } from "./parameters.ts";

const shownNexus = async (scope: Scope, uuid: string, nodeId?: string) => {
  const state = await scope.state();
  return renderNexus(state, nexusOf(state, uuid, nodeId));
};

/** iSCSI stands in the contract; neither Mayastor nor this serves it (mayastor.md 1.2). */
export function assertNvmf(protocol: "nvmf" | "iscsi"): void {
  if (protocol === "nvmf") return;
  throw new TrilithError("InvalidArgument", "protocol iscsi is not served", "use nvmf");
}

const reads = [
  contractOperation({
    id: "get_nexuses",
    method: "get",
    path: "/nexuses",
    tag: "Nexuses",
    summary: "All nexuses",
    result: v.array(Nexus),
    handle: async (_request, scope) => {
      const state = await scope.state();
      return sorted(state.stored, "nexuses").map((nexus) => renderNexus(state, nexus));
    },
  }),
  contractOperation({
    id: "get_nexus",
    method: "get",
    path: "/nexuses/{nexus_id}",
    tag: "Nexuses",
    summary: "One nexus",
    params: nexusParams,
    result: Nexus,
    handle: ({ params }, scope) => shownNexus(scope, params.nexus_id),
  }),
  contractOperation({
    id: "get_node_nexuses",
    method: "get",
    path: "/nodes/{id}/nexuses",
    tag: "Nexuses",
    summary: "Nexuses of a node",
    params: idParams,
    result: v.array(Nexus),
    handle: async ({ params }, scope) => {
      const state = await scope.state();
      nodeOf(state, params.id);
      return sorted(state.stored, "nexuses")
        .filter(({ nodeId }) => nodeId === params.id)
        .map((nexus) => renderNexus(state, nexus));
    },
  }),
  contractOperation({
    id: "get_node_nexus",
    method: "get",
    path: "/nodes/{node_id}/nexuses/{nexus_id}",
    tag: "Nexuses",
    summary: "One nexus of a node",
    params: nodeNexusParams,
    result: Nexus,
    handle: ({ params }, scope) => shownNexus(scope, params.nexus_id, params.node_id),
  }),
];

const life = [
  contractOperation({
    id: "put_node_nexus",
    method: "put",
    path: "/nodes/{node_id}/nexuses/{nexus_id}",
    tag: "Nexuses",
    summary: "Opens a nexus by hand, or confirms an equal one",
    params: nodeNexusParams,
    body: CreateNexusBody,
    result: Nexus,
    handle: async ({ params: { node_id, nexus_id }, body }, scope) => {
      await scope.control.createNexus(
        { nodeId: node_id, uuid: nexus_id, sizeBytes: body.size, children: body.children },
        scope.context,
      );
      return shownNexus(scope, nexus_id);
    },
  }),
  contractOperation({
    id: "del_nexus",
    method: "delete",
    path: "/nexuses/{nexus_id}",
    tag: "Nexuses",
    summary: "Closes a nexus that was opened by hand",
    params: nexusParams,
    handle: ({ params }, { control, context }) =>
      control.destroyNexus(params.nexus_id, null, context),
  }),
  contractOperation({
    id: "del_node_nexus",
    method: "delete",
    path: "/nodes/{node_id}/nexuses/{nexus_id}",
    tag: "Nexuses",
    summary: "Closes a nexus that was opened by hand",
    params: nodeNexusParams,
    handle: ({ params }, { control, context }) =>
      control.destroyNexus(params.nexus_id, params.node_id, context),
  }),
  contractOperation({
    id: "put_node_nexus_share",
    method: "put",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/share/{protocol}",
    tag: "Nexuses",
    summary: "Serves a nexus; the answer is its URI",
    params: v.object({ node_id: AnyName, nexus_id: Uuid, protocol: NexusShareProtocol }),
    result: v.string(),
    handle: async ({ params }, { control, context }) => {
      assertNvmf(params.protocol);
      return control.shareNexus(params.nexus_id, params.node_id, context);
    },
  }),
  contractOperation({
    id: "del_node_nexus_share",
    method: "delete",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/share",
    tag: "Nexuses",
    summary: "Stops serving a nexus",
    params: nodeNexusParams,
    handle: ({ params }, { control, context }) =>
      control.unshareNexus(params.nexus_id, params.node_id, context),
  }),
];

/** A URI in a path. */
const childId = v.pipe(v.string(), v.minLength(1), v.maxLength(1024));
const childParams = v.object({ nexus_id: Uuid, child_id: childId });
const nodeChildParams = v.object({ node_id: AnyName, nexus_id: Uuid, child_id: childId });

interface ChildPlace {
  readonly node_id?: string;
  readonly nexus_id: string;
  readonly child_id: string;
}

/**
 * The URI that a path names: percent-encoded, or with its slashes and its query as they are; what is
 * no URI is a file or disk (mayastor.md 1.1).
 */
function childUri(child: string, request: Request): string {
  const { search } = new URL(request.url);
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(child)) return `aio://${child}${search}`;
  return child + search;
}

function childOf(state: ClusterState, nexus: NexusRecord, uri: string) {
  const child = renderNexus(state, nexus).children.find((one) => one.uri === uri);
  if (child === undefined) throw notFound(`child of nexus ${nexus.uuid}`, uri);
  return child;
}

async function getChild(place: ChildPlace, scope: Scope) {
  const state = await scope.state();
  const nexus = nexusOf(state, place.nexus_id, place.node_id);
  return childOf(state, nexus, childUri(place.child_id, scope.request));
}

async function listChildren(place: Omit<ChildPlace, "child_id">, scope: Scope) {
  return (await shownNexus(scope, place.nexus_id, place.node_id)).children;
}

async function addChild(place: ChildPlace, scope: Scope) {
  const uri = childUri(place.child_id, scope.request);
  nexusOf(await scope.state(), place.nexus_id, place.node_id);
  const { control, context } = scope;
  await control.addNexusChild(place.nexus_id, place.node_id ?? null, uri, context);
  return getChild(place, scope);
}

async function removeChild(place: ChildPlace, scope: Scope): Promise<void> {
  const uri = childUri(place.child_id, scope.request);
  nexusOf(await scope.state(), place.nexus_id, place.node_id);
  const { control, context } = scope;
  await control.removeNexusChild(place.nexus_id, place.node_id ?? null, uri, context);
}

const tag = "Children";
const texts = {
  list: "Children of a nexus",
  get: "One child of a nexus",
  put: "Adds a child to a nexus and rebuilds it",
  delete: "Removes a child from a nexus",
} as const;

const children = [
  contractOperation({
    id: "get_nexus_children",
    method: "get",
    path: "/nexuses/{nexus_id}/children",
    tag,
    summary: texts.list,
    params: nexusParams,
    result: v.array(Child),
    handle: ({ params }, scope) => listChildren(params, scope),
  }),
  contractOperation({
    id: "get_nexus_child",
    method: "get",
    path: "/nexuses/{nexus_id}/children/{child_id}",
    tag,
    summary: texts.get,
    params: childParams,
    result: Child,
    handle: ({ params }, scope) => getChild(params, scope),
  }),
  contractOperation({
    id: "put_nexus_child",
    method: "put",
    path: "/nexuses/{nexus_id}/children/{child_id}",
    tag,
    summary: texts.put,
    params: childParams,
    result: Child,
    handle: ({ params }, scope) => addChild(params, scope),
  }),
  contractOperation({
    id: "del_nexus_child",
    method: "delete",
    path: "/nexuses/{nexus_id}/children/{child_id}",
    tag,
    summary: texts.delete,
    params: childParams,
    handle: ({ params }, scope) => removeChild(params, scope),
  }),
  contractOperation({
    id: "get_node_nexus_children",
    method: "get",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children",
    tag,
    summary: texts.list,
    params: nodeNexusParams,
    result: v.array(Child),
    handle: ({ params }, scope) => listChildren(params, scope),
  }),
  contractOperation({
    id: "get_node_nexus_child",
    method: "get",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children/{child_id}",
    tag,
    summary: texts.get,
    params: nodeChildParams,
    result: Child,
    handle: ({ params }, scope) => getChild(params, scope),
  }),
  contractOperation({
    id: "put_node_nexus_child",
    method: "put",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children/{child_id}",
    tag,
    summary: texts.put,
    params: nodeChildParams,
    result: Child,
    handle: ({ params }, scope) => addChild(params, scope),
  }),
  contractOperation({
    id: "del_node_nexus_child",
    method: "delete",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children/{child_id}",
    tag,
    summary: texts.delete,
    params: nodeChildParams,
    handle: ({ params }, scope) => removeChild(params, scope),
  }),
];

export const nexusOperations = [...reads, ...life, ...children];
