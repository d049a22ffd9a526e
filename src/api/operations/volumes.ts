/** Volumes. */
import * as v from "valibot";
import type { CreateVolumeRequest } from "../../control/control.ts";
import type { LabelledTopology, RebuildHistoryRecord, Topology } from "../../control/model.ts";
import { nexusesOf, targetNexus } from "../../control/planner/status.ts";
import { TrilithError } from "../../errors.ts";
import { notFound } from "../errors.ts";
import { generatedUuid } from "../identity.ts";
import { contractOperation, JsonText, ownOperation, type Scope } from "../operation.ts";
import { pageOf, replicaOf, sorted, volumeOf } from "../records.ts";
import {
  renderQueuedRebuilds,
  renderRebuildRecord,
  renderRunningRebuilds,
} from "../render/nexuses.ts";
import { renderPaths } from "../render/paths.ts";
import { renderVolume, volumeText } from "../render/volumes.ts";
import { MoveReplicaBody } from "../schemas/cluster.ts";
import {
  AnyName,
  pageQuery,
  QueryFlag,
  queryCount,
  Uuid,
  VolumeShareProtocol,
} from "../schemas/fields.ts";
import { RebuildHistory, VolumeRebuilds } from "../schemas/nexuses.ts";
import {
  CreateVolumeBody,
  NewVolumeBody,
  PublishVolumeBody,
  ResizeVolumeBody,
  SetFaultedChildWaitBody,
  SetVolumePropertyBody,
  type Topology as TopologyBody,
  Volume,
  VolumePath,
  Volumes,
} from "../schemas/volumes.ts";
import { assertNvmf } from "./nexuses.ts";
import { frontendNode, volumeParams } from "./parameters.ts";

const shownVolume = async (scope: Scope, uuid: string) => {
  const state = await scope.state();
  return renderVolume(state, volumeOf(state, uuid));
};

type LabelledBody = NonNullable<v.InferOutput<typeof TopologyBody>["pool_topology"]>["labelled"];

function labelled(body: LabelledBody): LabelledTopology {
  const { exclusion, inclusion, affinity_key = [] } = body;
  return { exclusion, inclusion, affinityKey: affinity_key };
}

function topologyOf(body: v.InferOutput<typeof TopologyBody> | undefined): Topology | null {
  if (body === undefined) return null;
  const { node_topology, pool_topology } = body;
  const node =
    node_topology === undefined
      ? null
      : "explicit" in node_topology
        ? {
            explicit: {
              allowedNodes: node_topology.explicit.allowed_nodes,
              preferredNodes: node_topology.explicit.preferred_nodes,
            },
          }
        : { labelled: labelled(node_topology.labelled) };
  return { node, pool: pool_topology === undefined ? null : labelled(pool_topology.labelled) };
}

/** What a body asks to be created. */
export function createRequest(
  uuid: string,
  body: v.InferOutput<typeof CreateVolumeBody>,
): CreateVolumeRequest {
  return {
    uuid,
    sizeBytes: body.size,
    replicaCount: body.replicas,
    thin: body.thin,
    selfHeal: body.policy.self_heal,
    topology: topologyOf(body.topology),
    labels: body.labels ?? {},
    affinityGroup: body.affinity_group?.id ?? null,
    maxSnapshots: body.max_snapshots ?? null,
  };
}

const reads = [
  contractOperation({
    id: "get_volumes",
    method: "get",
    path: "/volumes",
    tag: "Volumes",
    summary: "Volumes, in pages",
    description: "A `volume_id` that there is not gives an empty list.",
    query: v.object({ volume_id: v.optional(Uuid), ...pageQuery }),
    result: Volumes,
    handle: async ({ query }, scope) => {
      const state = await scope.state();
      const { volumes } = state.stored;
      const one = query.volume_id === undefined ? undefined : volumes.get(query.volume_id);
      const all =
        query.volume_id === undefined
          ? sorted(state.stored, "volumes")
          : one === undefined
            ? []
            : [one];
      const { entries, next_token } = pageOf(all, query);
      const list = entries.map((volume) => volumeText(state, volume)).join(",");
      const next = next_token === undefined ? "" : `,"next_token":${next_token}`;
      return new JsonText(`{"entries":[${list}]${next}}`);
    },
  }),
  contractOperation({
    id: "get_volume",
    method: "get",
    path: "/volumes/{volume_id}",
    tag: "Volumes",
    summary: "One volume",
    params: volumeParams,
    result: Volume,
    handle: ({ params }, scope) => shownVolume(scope, params.volume_id),
  }),
];

const paths = ownOperation({
  id: "get_volume_paths",
  method: "get",
  path: "/volumes/{volume_id}/paths",
  tag: "Volumes",
  summary: "The ways by which hosts reach a volume: its target, and the standbys beside it",
  description: "Hosts connect to all of them; when the target moves, I/O follows without a mount.",
  params: volumeParams,
  result: v.array(VolumePath),
  handle: async ({ params: { volume_id } }, scope) => {
    const state = await scope.state();
    return renderPaths(state, volumeOf(state, volume_id));
  },
});

const life = [
  contractOperation({
    id: "put_volume",
    method: "put",
    path: "/volumes/{volume_id}",
    tag: "Volumes",
    summary: "Creates a volume, or confirms an equal one",
    params: volumeParams,
    body: CreateVolumeBody,
    result: Volume,
    handle: async ({ params, body }, scope) => {
      await scope.control.createVolume(createRequest(params.volume_id, body), scope.context);
      return shownVolume(scope, params.volume_id);
    },
  }),
  ownOperation({
    id: "post_volume",
    method: "post",
    path: "/volumes",
    tag: "Volumes",
    summary: "Creates a volume with a generated UUID (or the one that the body gives)",
    body: NewVolumeBody,
    result: Volume,
    status: 201,
    handle: async ({ body }, scope) => {
      const uuid = body.uuid ?? generatedUuid("volume", scope.context);
      await scope.control.createVolume(createRequest(uuid, body), scope.context);
      return shownVolume(scope, uuid);
    },
  }),
  contractOperation({
    id: "del_volume",
    method: "delete",
    path: "/volumes/{volume_id}",
    tag: "Volumes",
    summary: "Destroys a volume and its data",
    params: volumeParams,
    handle: ({ params }, { control, context }) => control.destroyVolume(params.volume_id, context),
  }),
  contractOperation({
    id: "put_volume_size",
    method: "put",
    path: "/volumes/{volume_id}/size",
    tag: "Volumes",
    summary: "Grows a volume",
    params: volumeParams,
    body: ResizeVolumeBody,
    result: Volume,
    handle: async ({ params, body }, scope) => {
      await scope.control.resizeVolume(params.volume_id, body.size, scope.context);
      return shownVolume(scope, params.volume_id);
    },
  }),
  contractOperation({
    id: "put_volume_property",
    method: "put",
    path: "/volumes/{volume_id}/property",
    tag: "Volumes",
    summary: "Sets how many snapshots a volume may have",
    params: volumeParams,
    body: SetVolumePropertyBody,
    result: Volume,
    handle: async ({ params, body }, scope) => {
      await scope.control.setMaxSnapshots(params.volume_id, body.max_snapshots, scope.context);
      return shownVolume(scope, params.volume_id);
    },
  }),
];

const healing = [
  ownOperation({
    id: "put_volume_faulted_child_wait",
    method: "put",
    path: "/volumes/{volume_id}/faulted-child-wait",
    tag: "Volumes",
    summary: "Sets how long a replica may be away before another is built",
    params: volumeParams,
    body: SetFaultedChildWaitBody,
    result: Volume,
    handle: async ({ params: { volume_id }, body }, scope) => {
      await scope.control.setFaultedChildWait(volume_id, body.wait, scope.context);
      return shownVolume(scope, volume_id);
    },
  }),
];

const publication = [
  contractOperation({
    id: "put_volume_target",
    method: "put",
    path: "/volumes/{volume_id}/target",
    tag: "Volumes",
    summary: "Publishes a volume; the answer's `state.target.deviceUri` is where to connect",
    params: volumeParams,
    body: PublishVolumeBody,
    result: Volume,
    handle: async ({ params, body }, scope) => {
      assertNvmf(body.protocol);
      await scope.control.publishVolume(
        {
          uuid: params.volume_id,
          publishContext: body.publish_context,
          nodeId: body.node ?? null,
          reuseExisting: body.reuse_existing ?? false,
          republish: body.republish ?? false,
          frontendNode: body.frontend_node === undefined ? null : frontendNode(body.frontend_node),
        },
        scope.context,
      );
      return shownVolume(scope, params.volume_id);
    },
  }),
  contractOperation({
    id: "del_volume_target",
    method: "delete",
    path: "/volumes/{volume_id}/target",
    tag: "Volumes",
    summary: "Ends the publication of a volume",
    params: volumeParams,
    query: v.object({
      force: v.optional(QueryFlag, "false"),
      /** Only the publication to this host ends. Ours. */
      frontend_node: v.optional(AnyName),
    }),
    result: Volume,
    handle: async ({ params: { volume_id }, query }, scope) => {
      const { force, frontend_node = null } = query;
      await scope.control.unpublishVolume(volume_id, force, frontend_node, scope.context);
      return shownVolume(scope, volume_id);
    },
  }),
  contractOperation({
    id: "del_volume_shutdown_targets",
    method: "delete",
    path: "/volumes/{volume_id}/shutdown_targets",
    tag: "Volumes",
    summary: "Forgets nexuses of former targets",
    params: volumeParams,
    handle: ({ params }, { control, context }) =>
      control.destroyShutdownTargets(params.volume_id, context),
  }),
  contractOperation({
    id: "put_volume_share",
    method: "put",
    path: "/volumes/{volume_id}/share/{protocol}",
    tag: "Volumes",
    summary: "Serves the target of a published volume; the answer is its URI",
    params: v.object({ volume_id: Uuid, protocol: VolumeShareProtocol }),
    query: v.object({ frontend_host: v.optional(AnyName) }),
    result: v.string(),
    handle: async ({ params, query }, { control, context }) => {
      assertNvmf(params.protocol);
      return control.shareVolume(params.volume_id, query.frontend_host ?? null, context);
    },
  }),
  contractOperation({
    id: "del_share",
    method: "delete",
    // The contract's own spelling: the slash is missing.
    path: "/volumes{volume_id}/share",
    tag: "Volumes",
    summary: "Stops serving the target of a volume",
    params: volumeParams,
    handle: ({ params }, { control, context }) => control.unshareVolume(params.volume_id, context),
  }),
  ownOperation({
    id: "del_volume_share",
    method: "delete",
    path: "/volumes/{volume_id}/share",
    tag: "Volumes",
    summary: "Stops serving the target of a volume (the path that was meant)",
    params: volumeParams,
    handle: ({ params }, { control, context }) => control.unshareVolume(params.volume_id, context),
  }),
];

function historyOf(
  records: ReadonlyMap<string, RebuildHistoryRecord>,
  wanted: (record: RebuildHistoryRecord) => boolean,
) {
  return [...records.values()]
    .filter(wanted)
    .sort((a, b) => b.startTimeMs - a.startTimeMs || (a.id < b.id ? -1 : 1))
    .map(renderRebuildRecord);
}

const replicas = [
  contractOperation({
    id: "put_volume_replica_count",
    method: "put",
    path: "/volumes/{volume_id}/replica_count/{replica_count}",
    tag: "Volumes",
    summary: "Adds or removes one replica",
    params: v.object({ volume_id: Uuid, replica_count: queryCount(255, 1) }),
    query: v.object({
      /** Which replica is to go when the count goes down. Ours. */
      victim: v.optional(Uuid),
    }),
    result: Volume,
    handle: async ({ params: { volume_id, replica_count }, query }, scope) => {
      const victim = query.victim ?? null;
      await scope.control.setReplicaCount(volume_id, replica_count, victim, scope.context);
      return shownVolume(scope, volume_id);
    },
  }),
  ownOperation({
    id: "post_volume_replica_move",
    method: "post",
    path: "/volumes/{volume_id}/replicas/{replica_id}/move",
    tag: "Volumes",
    summary: "Builds a replica anew in another pool, then gives the old one up",
    description: "Begun when it is answered: `/rebuilds` says how far it is.",
    params: v.object({ volume_id: Uuid, replica_id: Uuid }),
    body: MoveReplicaBody,
    bodyOptional: true,
    result: Volume,
    status: 202,
    handle: async ({ params: { volume_id, replica_id }, body }, scope) => {
      const state = await scope.state();
      volumeOf(state, volume_id);
      if (replicaOf(state, replica_id).volumeUuid !== volume_id) {
        throw notFound(`replica of volume ${volume_id}`, replica_id);
      }
      await scope.control.moveReplica(replica_id, body.pool ?? null, scope.context);
      return shownVolume(scope, volume_id);
    },
  }),
  contractOperation({
    id: "get_rebuild_history",
    method: "get",
    path: "/volumes/{volume_id}/rebuild-history",
    tag: "Volumes",
    summary: "Rebuilds that a published volume has had, on former targets too",
    params: volumeParams,
    result: RebuildHistory,
    handle: async ({ params }, scope) => {
      const state = await scope.state();
      const nexus = targetNexus(state, volumeOf(state, params.volume_id));
      if (nexus === undefined) {
        throw new TrilithError(
          "NotPublished",
          `volume ${params.volume_id} is not published`,
          `GET /v0/volumes/${params.volume_id}/rebuilds shows its history all the same`,
        );
      }
      // Of former targets too: the history is the volume's, wherever it was served.
      const records = historyOf(
        state.stored.rebuildHistory,
        ({ volumeUuid }) => volumeUuid === params.volume_id,
      );
      return { targetUuid: nexus.uuid, records };
    },
  }),
  ownOperation({
    id: "get_volume_rebuilds",
    method: "get",
    path: "/volumes/{volume_id}/rebuilds",
    tag: "Volumes",
    summary: "Rebuilds of a volume: those that run, that wait for their turn and why, that ended",
    params: volumeParams,
    result: VolumeRebuilds,
    handle: async ({ params: { volume_id } }, scope) => {
      const state = await scope.state();
      volumeOf(state, volume_id);
      const running = nexusesOf(state, volume_id).flatMap((one) =>
        renderRunningRebuilds(state, one),
      );
      const history = historyOf(
        state.stored.rebuildHistory,
        ({ volumeUuid }) => volumeUuid === volume_id,
      );
      const queued = renderQueuedRebuilds(state).filter(({ volume }) => volume === volume_id);
      return { volume: volume_id, running, queued, history };
    },
  }),
];

export const volumeOperations = [...reads, paths, ...life, ...healing, ...publication, ...replicas];
