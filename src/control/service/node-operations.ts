/** Operations on nodes, cluster members, app nodes and settings. */
import { TrilithError } from "../../errors.ts";
import type { Control } from "../control.ts";
import { rebuildFromDisks } from "../membership/rebuild/rebuild.ts";
import type { NodeId } from "../model.ts";
import { deregisterAppNode, registerAppNode } from "../planner/decide/app-nodes.ts";
import {
  cordonNode,
  drainNode,
  labelNode,
  nodeRemovalImpact,
  removeNode,
  uncordonNode,
  unlabelNode,
} from "../planner/decide/nodes.ts";
import type { Operations } from "./operation.ts";
import { settingChanges } from "./settings.ts";

type NodeOperations = Pick<
  Control,
  | "cordonNode"
  | "uncordonNode"
  | "drainNode"
  | "labelNode"
  | "unlabelNode"
  | "removeNode"
  | "nodeRemovalImpact"
  | "registerAppNode"
  | "deregisterAppNode"
  | "blockDevices"
  | "changeSettings"
  | "members"
  | "raft"
  | "createToken"
  | "transferLeadership"
  | "rebuildFromDisks"
>;

function nodeChanges(operations: Operations) {
  return {
    cordonNode: (id, label, context) =>
      operations.commit({
        name: "cordonNode",
        request: [id, label],
        context,
        decide: (state) => cordonNode(state, id, label),
      }),
    async uncordonNode(id, label, context) {
      await operations.carryOut({
        name: "uncordonNode",
        request: [id, label],
        context,
        decide: (state) => uncordonNode(state, id, label),
        subject: `node/${id}`,
        goal: null,
      });
    },
    async drainNode(request, context) {
      await operations.carryOut({
        name: "drainNode",
        request: [request],
        context,
        decide: (state) => drainNode(state, request),
        subject: `node/${request.nodeId}`,
        goal: null,
      });
    },
    labelNode: (id, key, value, overwrite, context) =>
      operations.commit({
        name: "labelNode",
        request: [id, key, value, overwrite],
        context,
        decide: (state) => labelNode(state, id, key, value, overwrite),
      }),
    unlabelNode: (id, key, context) =>
      operations.commit({
        name: "unlabelNode",
        request: [id, key],
        context,
        decide: (state) => unlabelNode(state, id, key),
      }),
    async removeNode(id, force, context) {
      const { store, membership } = operations.parts;
      await operations.commit({
        name: "removeNode",
        request: [id, force],
        context,
        decide: (state) => {
          const decision = removeNode(state, id, force);
          const voters = store.status().members.filter(({ isVoter }) => isVoter);
          if (!voters.some(({ nodeId }) => nodeId !== id)) {
            throw new TrilithError(
              "FailedPrecondition",
              `node ${id} is the last one of the cluster`,
              "to end a cluster, stop its nodes and clear their data directories",
            );
          }
          // What it has goes here; its record goes with its membership.
          const changes = decision.changes.filter(({ table }) => table !== "nodes");
          return { changes, events: [] };
        },
      });
      await membership.removeMember(id);
    },
    async nodeRemovalImpact(id) {
      return nodeRemovalImpact(await operations.latestState(), id);
    },
  } satisfies Partial<Control>;
}

export function nodeOperations(operations: Operations): NodeOperations {
  const { store, observation, membership } = operations.parts;
  return {
    ...nodeChanges(operations),
    registerAppNode: (id, endpoint, labels, context) =>
      operations.commit({
        name: "registerAppNode",
        request: [id, endpoint, labels],
        context,
        decide: (state) => registerAppNode(state, id, endpoint, labels),
      }),
    deregisterAppNode: (id, context) =>
      operations.commit({
        name: "deregisterAppNode",
        request: [id],
        context,
        decide: (state) => deregisterAppNode(state, id),
      }),
    async blockDevices(nodeId, all) {
      operations.requireLeader();
      return observation.engine(nodeId).listBlockDevices({ all });
    },
    async changeSettings(changes, context) {
      await operations.record("changeSettings", [changes], context, (state) =>
        settingChanges(state.stored.settings, changes),
      );
      return operations.state().settings;
    },
    members: () => store.status().members,
    raft: () => store.status(),
    // Never remembered by a key: that would store the secret. A repetition makes another token.
    createToken: (kind, validMs, note) => membership.createToken(kind, validMs, note),
    transferLeadership: (toNode) => membership.transferLeadership(toNode),
    rebuildFromDisks(disks, apply) {
      operations.requireLeader();
      const engineOf = (nodeId: NodeId) => observation.engine(nodeId);
      return rebuildFromDisks({ store, engineOf, now: operations.parts.now, disks, apply });
    },
  };
}
