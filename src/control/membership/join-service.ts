/**
 * The cluster's side of `trilith join`: the leader checks the token, gives out a raft id, writes the
 * node down, and signs. Raft takes the node in afterwards (`keeper.ts`).
 *
 * A token is used once: the transaction that writes the node down removes it. A joiner whose answer was
 * lost asks again with the same key and gets the same answer; nobody else does.
 */
import * as v from "valibot";
import { TrilithError } from "../../errors.ts";
import type { StoreView } from "../cluster-state.ts";
import type { NodeRecord } from "../model.ts";
import type { Proposal, Store } from "../store/store.ts";
import { requestKeyDigest, signNodeCertificate } from "./certificates.ts";
import type { DataDir } from "./data-dir.ts";
import { addressesOf, checkNewNode } from "./init.ts";
import { NODE_LIFE_MS_DEFAULT } from "./limits.ts";
import {
  forgetJoined,
  isMember,
  isRemoved,
  type Joined,
  joinedChange,
  joinedWith,
  membersIn,
  nextRaftId,
  nextRaftIdChange,
} from "./members-table.ts";
import { checkToken, type ParsedToken, parseToken } from "./tokens.ts";

const Short = v.pipe(v.string(), v.maxLength(512));

export const JoinRequest = v.strictObject({
  token: Short,
  nodeId: Short,
  csrPem: v.pipe(v.string(), v.maxLength(16_384)),
  peerEndpoint: Short,
  engineEndpoint: Short,
  hostNqn: Short,
  version: Short,
});
/** What a joiner says. */
export type JoinRequest = v.InferOutput<typeof JoinRequest>;

export const JoinAnswer = v.object({
  clusterId: v.string(),
  raftId: v.string(),
  certPem: v.string(),
  members: v.array(v.object({ raftId: v.string(), nodeId: v.string(), peerEndpoint: v.string() })),
});
/** What it gets. */
export type JoinAnswer = v.InferOutput<typeof JoinAnswer>;

export interface JoinServiceOptions {
  readonly dataDir: DataDir;
  readonly store: Store;
  readonly now: () => number;
  readonly certificateLifeMs?: number;
}

/** For how long a joiner may ask again with a token that it has used. */
const ASK_AGAIN_MS = 24 * 3600_000;

/** The node's record as it is to be. A node that was lost comes back under its name and keeps its labels. */
function nodeRecordOf(
  view: StoreView,
  request: JoinRequest,
  raftId: string,
  nowMs: number,
): NodeRecord {
  const { nodeId: id, peerEndpoint, engineEndpoint, hostNqn, version } = request;
  const present = view.nodes.get(id);
  const said = { id, raftId, peerEndpoint, engineEndpoint, hostNqn, version };
  if (present !== undefined) {
    if (isRemoved(view, present.raftId)) return { ...present, ...said };
    throw new TrilithError(
      "AlreadyExists",
      isMember(view, present)
        ? `the cluster has a node ${id} already`
        : `node ${id} is being removed from the cluster`,
      `choose another name with --node-name, or first remove it with \`trilith node remove ${id}\``,
    );
  }
  return {
    ...said,
    labels: {},
    cordonLabels: [],
    drainLabels: [],
    drainPhase: "none",
    evacuate: false,
    createdAtMs: nowMs,
    revision: 0,
  };
}

/** Two nodes at one address would be taken for each other. */
function checkEndpointFree(view: StoreView, request: JoinRequest): void {
  for (const node of view.nodes.values()) {
    if (node.id === request.nodeId || !isMember(view, node)) continue;
    if (node.peerEndpoint === request.peerEndpoint) {
      throw new TrilithError(
        "AlreadyExists",
        `node ${node.id} has the address ${node.peerEndpoint} already`,
        "give the address that the others reach this node at with --address",
      );
    }
  }
}

/** The transaction that makes a member of a joiner. */
function decideJoin(
  view: StoreView,
  request: JoinRequest,
  token: ParsedToken,
  keySha256: string,
  nowMs: number,
): Proposal & { readonly value: Joined } {
  const before = joinedWith(view, token.id);
  if (before !== undefined) {
    const isSame = before.keySha256 === keySha256 && before.nodeId === request.nodeId;
    if (isSame) return { changes: [], events: [], value: before };
    throw new TrilithError(
      "Unauthenticated",
      `the token was used already, by node ${before.nodeId}`,
      "make a new one with `trilith token create`: each is for one node",
    );
  }
  checkToken(view.tokens, "join", token, nowMs);
  checkEndpointFree(view, request);
  const raftId = nextRaftId(view);
  const joined: Joined = {
    nodeId: request.nodeId,
    raftId: String(raftId),
    keySha256,
    atMs: Math.floor(nowMs),
  };
  return {
    value: joined,
    changes: [
      { table: "nodes", put: nodeRecordOf(view, request, joined.raftId, joined.atMs) },
      { table: "tokens", remove: token.id },
      nextRaftIdChange(view, raftId + 1),
      joinedChange(view, token.id, joined),
      ...forgetJoined(view, nowMs - ASK_AGAIN_MS),
    ],
    events: [
      {
        category: "Node",
        action: "Create",
        target: request.nodeId,
        nodeId: request.nodeId,
        component: "membership",
        message: `node ${request.nodeId} joined from ${request.peerEndpoint} (raft id ${raftId})`,
      },
    ],
  };
}

/** Carries a join out; on the leader only. Errors change nothing. */
export async function acceptJoin(
  options: JoinServiceOptions,
  request: JoinRequest,
): Promise<JoinAnswer> {
  const { dataDir, store, now } = options;
  checkNewNode({ ...request, dataDir: "", nowMs: now() });
  const token = parseToken(request.token);
  // Before the transaction: what cannot be signed must not use the token up.
  const keySha256 = await requestKeyDigest(request.csrPem);
  const { raftId } = await store.transact((view) =>
    decideJoin(view, request, token, keySha256, now()),
  );
  const { clusterId } = dataDir.identity;
  const certPem = await signNodeCertificate({
    authority: dataDir.authority(),
    csrPem: request.csrPem,
    member: { clusterId, nodeId: request.nodeId, raftId },
    addresses: addressesOf(request),
    nowMs: now(),
    lifeMs: options.certificateLifeMs ?? NODE_LIFE_MS_DEFAULT,
  });
  return { clusterId, raftId, certPem, members: membersIn(store.view()) };
}
