/**
 * What the store holds of membership besides the table of nodes, as records of the table of settings:
 *
 * | key                             | value |
 * |---------------------------------|-------|
 * | `membership.nextRaftId`         | lowest raft id that was never given out |
 * | `membership.removing.<raft id>` | the member is to be removed from raft: `{nodeId, atMs}` |
 * | `membership.removed.<raft id>`  | it was removed, and is refused for good: `{nodeId, atMs}` |
 * | `membership.joined.<token id>`  | what a used token was used for: `{nodeId, raftId, keySha256, atMs}` |
 *
 * A node is a member when its record's raft id is neither being removed nor removed.
 */
import * as v from "valibot";
import type { StoreView } from "../cluster-state.ts";
import type { NodeRecord } from "../model.ts";
import type { Change } from "../planner/plan.ts";
import type { KnownMember } from "./data-dir.ts";
import type { MemberDirectory } from "./members.ts";

const NEXT = "membership.nextRaftId";
const REMOVING = "membership.removing.";
const REMOVED = "membership.removed.";
const JOINED = "membership.joined.";

const Joined = v.object({
  nodeId: v.string(),
  raftId: v.string(),
  keySha256: v.string(),
  atMs: v.number(),
});
/** What a token was used for. */
export type Joined = v.InferOutput<typeof Joined>;

/** True when a change of a record named so (`settings/<key>`, `nodes/<id>`) may concern membership. */
export function concernsMembers(name: string): boolean {
  return name.startsWith("nodes/") || name.startsWith("settings/membership.");
}

function put(view: StoreView, key: string, value: unknown): Change {
  const revision = view.settings.get(key)?.revision ?? 0;
  return { table: "settings", put: { key, value: JSON.stringify(value), revision } };
}

function drop(view: StoreView, key: string): Change[] {
  return view.settings.has(key) ? [{ table: "settings", remove: key }] : [];
}

/** The lowest raft id that was never given out. */
export function nextRaftId(view: StoreView): number {
  const stored = view.settings.get(NEXT);
  const used = [...view.nodes.values()].map((node) => Number(node.raftId) + 1);
  return Math.max(2, stored === undefined ? 2 : Number(JSON.parse(stored.value)), ...used);
}

export function nextRaftIdChange(view: StoreView, next: number): Change {
  return put(view, NEXT, next);
}

export function isRemoving(view: StoreView, raftId: string): boolean {
  return view.settings.has(REMOVING + raftId);
}

export function isRemoved(view: StoreView, raftId: string): boolean {
  return view.settings.has(REMOVED + raftId);
}

/** True when a node's record stands for a member of raft, or one that is to become it. */
export function isMember(view: StoreView, node: NodeRecord): boolean {
  return !isRemoving(view, node.raftId) && !isRemoved(view, node.raftId);
}

/** Raft ids that are to be removed from raft. */
export function removals(view: StoreView): string[] {
  return [...view.settings.keys()]
    .filter((key) => key.startsWith(REMOVING))
    .map((key) => key.slice(REMOVING.length));
}

/** Notes that a member is to be removed; it goes on until raft has removed it. */
export function removingChange(
  view: StoreView,
  raftId: string,
  nodeId: string,
  atMs: number,
): Change {
  return put(view, REMOVING + raftId, { nodeId, atMs });
}

export function withdrawRemoval(view: StoreView, raftId: string): Change[] {
  return drop(view, REMOVING + raftId);
}

/** Shuts a raft id out for good. The node's record is not touched. */
export function removedChanges(
  view: StoreView,
  raftId: string,
  nodeId: string,
  atMs: number,
): Change[] {
  const mark = isRemoved(view, raftId) ? [] : [put(view, REMOVED + raftId, { nodeId, atMs })];
  return [...drop(view, REMOVING + raftId), ...mark];
}

/** What a token was used for; undefined when it was not used. */
export function joinedWith(view: StoreView, tokenId: string): Joined | undefined {
  const stored = view.settings.get(JOINED + tokenId);
  return stored && v.parse(Joined, JSON.parse(stored.value));
}

export function joinedChange(view: StoreView, tokenId: string, joined: Joined): Change {
  return put(view, JOINED + tokenId, joined);
}

/** Forgets what tokens were used for before `beforeMs`. */
export function forgetJoined(view: StoreView, beforeMs: number): Change[] {
  return [...view.settings.values()]
    .filter(({ key }) => key.startsWith(JOINED))
    .filter(({ value }) => v.parse(Joined, JSON.parse(value)).atMs < beforeMs)
    .flatMap(({ key }) => drop(view, key));
}

/** Members as the store has them. */
export function membersIn(view: StoreView): KnownMember[] {
  return [...view.nodes.values()]
    .filter((node) => isMember(view, node))
    .map(({ raftId, id, peerEndpoint }) => ({ raftId, nodeId: id, peerEndpoint }));
}

/**
 * Members as the store has them, else as they were known before: a node that has just joined, or whose
 * store is far behind, has to find the others.
 */
export function memberDirectory(
  clusterId: string,
  view: () => StoreView | undefined,
  known: () => readonly KnownMember[],
): MemberDirectory {
  let indexed: StoreView["nodes"] | undefined;
  let byRaftId = new Map<string, NodeRecord>();
  const index = (nodes: StoreView["nodes"]): Map<string, NodeRecord> => {
    if (indexed !== nodes) {
      indexed = nodes;
      byRaftId = new Map([...nodes.values()].map((node) => [node.raftId, node]));
    }
    return byRaftId;
  };
  return {
    clusterId,
    find(raftId) {
      const now = view();
      const node = now && index(now.nodes).get(raftId);
      if (node !== undefined) return { nodeId: node.id, peerEndpoint: node.peerEndpoint };
      return known().find((member) => member.raftId === raftId);
    },
    isRemoved(raftId) {
      const now = view();
      return now !== undefined && isRemoved(now, raftId);
    },
  };
}
