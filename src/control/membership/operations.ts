/** What operators do with members and tokens; on the leader. */
import { TrilithError } from "../../errors.ts";
import type { RaftNode } from "../raft/raft.ts";
import type { Store } from "../store/store.ts";
import { fingerprintOf } from "./certificates.ts";
import type { DataDir } from "./data-dir.ts";
import { isRemoved, removedChanges, removingChange, withdrawRemoval } from "./members-table.ts";
import { mintToken, type TokenKind } from "./tokens.ts";

export interface MembershipOptions {
  readonly dataDir: DataDir;
  readonly store: Store;
  readonly raft: RaftNode;
  readonly now: () => number;
}

/** Makes a token and stores its digest. Expired ones are forgotten on the way. */
export async function createToken(
  options: Pick<MembershipOptions, "dataDir" | "store" | "now">,
  kind: TokenKind,
  validMs: number,
  note: string,
): Promise<{ id: string; token: string; expiresAtMs: number }> {
  const nowMs = options.now();
  const fingerprint = await fingerprintOf(options.dataDir.credentials().caPem);
  const { token, record } = mintToken(kind, { fingerprint, validMs, note, nowMs });
  await options.store.transact((view) => {
    const expired = [...view.tokens.values()].filter(({ expiresAtMs }) => expiresAtMs <= nowMs);
    return {
      value: null,
      changes: [
        { table: "tokens", put: record },
        ...expired.map(({ id }) => ({ table: "tokens", remove: id }) as const),
      ],
      events: [],
    };
  });
  return { id: record.id, token, expiresAtMs: record.expiresAtMs };
}

/** Hands leadership to a node; resolves when it leads. */
export async function transferLeadership(
  options: Pick<MembershipOptions, "store" | "raft">,
  toNode: string,
): Promise<void> {
  const node = options.store.view().nodes.get(toNode);
  if (node === undefined) throw new TrilithError("NotFound", `there is no node ${toNode}`);
  if (!options.raft.status().voters.includes(node.raftId)) {
    throw new TrilithError("FailedPrecondition", `node ${toNode} has no vote yet`);
  }
  await options.raft.transferLeadership(node.raftId);
}

const removalsOf = new WeakMap<RaftNode, Set<string>>();

/** Raft ids whose removal an operation is carrying out: nobody else is to do the same meanwhile. */
export function removalsUnderWay(raft: RaftNode): Set<string> {
  let underWay = removalsOf.get(raft);
  if (underWay === undefined) {
    underWay = new Set();
    removalsOf.set(raft, underWay);
  }
  return underWay;
}

/** A voter that leadership can go to: the one whose log is the longest. */
function heirOf(raft: RaftNode, leavingRaftId: string): string {
  const { voters, matchIndexOf } = raft.status();
  const [heir] = voters
    .filter((raftId) => raftId !== leavingRaftId)
    .sort((a, b) => (matchIndexOf.get(b) ?? 0) - (matchIndexOf.get(a) ?? 0));
  if (heir !== undefined) return heir;
  throw new TrilithError(
    "FailedPrecondition",
    "the last node of a cluster cannot be removed",
    "to end a cluster, stop its nodes and clear their data directories",
  );
}

/**
 * Removes a node from the cluster for good. What else the node has (pools, replicas) is the caller's to
 * look after, before. In three steps, each of which a later leader may find and finish (`keeper.ts`): the
 * intent is written down; raft removes the member; its raft id is shut out and its record removed.
 *
 * A leader that removes itself hands leadership over first; then this resolves when another node leads,
 * which finishes the removal. `FailedPrecondition` when the cluster would lose its majority: the intent is
 * withdrawn then.
 */
export async function removeMember(options: MembershipOptions, nodeId: string): Promise<void> {
  const { store, raft, now } = options;
  const node = store.view().nodes.get(nodeId);
  if (node === undefined) throw new TrilithError("NotFound", `there is no node ${nodeId}`);
  const { raftId } = node;
  if (isRemoved(store.view(), raftId)) {
    await forgetMember(options, raftId, nodeId);
    return;
  }
  const status = raft.status();
  const isVoter = status.voters.includes(raftId);
  const heir = isVoter ? heirOf(raft, raftId) : null;
  const underWay = removalsUnderWay(raft);
  underWay.add(raftId);
  try {
    await store.transact((view) => ({
      value: null,
      changes: [removingChange(view, raftId, nodeId, Math.floor(now()))],
      events: [],
    }));
    await undoWhenRefused(options, raftId, () =>
      heir !== null && status.raftId === raftId
        ? handOver(raft, heir)
        : finishRemoval(options, raftId, nodeId),
    );
  } finally {
    underWay.delete(raftId);
  }
}

/** Hands leadership over; done, too, when another node has taken it meanwhile. */
async function handOver(raft: RaftNode, heir: string): Promise<void> {
  try {
    await raft.transferLeadership(heir);
  } catch (error) {
    const { leader, raftId } = raft.status();
    if (leader === null || leader === raftId) throw error;
  }
}

async function undoWhenRefused(
  { store }: MembershipOptions,
  raftId: string,
  act: () => Promise<void>,
): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (error instanceof TrilithError && error.code === "FailedPrecondition") {
      await store.transact((view) => ({
        value: null,
        changes: withdrawRemoval(view, raftId),
        events: [],
      }));
    }
    throw error;
  }
}

/** The second and third step. */
export async function finishRemoval(
  options: Pick<MembershipOptions, "store" | "raft" | "now">,
  raftId: string,
  nodeId: string,
): Promise<void> {
  const { voters, learners } = options.raft.status();
  if (voters.includes(raftId) || learners.includes(raftId)) await options.raft.remove(raftId);
  await forgetMember(options, raftId, nodeId);
}

async function forgetMember(
  { store, now }: Pick<MembershipOptions, "store" | "now">,
  raftId: string,
  nodeId: string,
): Promise<void> {
  await store.transact((view) => {
    const node = view.nodes.get(nodeId);
    const isIts = node?.raftId === raftId;
    return {
      value: null,
      changes: [
        ...removedChanges(view, raftId, nodeId, Math.floor(now())),
        ...(isIts ? [{ table: "nodes", remove: nodeId } as const] : []),
      ],
      events: isIts
        ? [
            {
              category: "Node",
              action: "Delete",
              target: nodeId,
              nodeId,
              component: "membership",
              message: `node ${nodeId} was removed from the cluster (raft id ${raftId})`,
            },
          ]
        : [],
    };
  });
}
