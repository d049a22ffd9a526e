/**
 * Keeps raft's members as the table of nodes says, on the leader: what a leader began and did not
 * finish, the next one finds and finishes. One change at a time; learners become voters when they have
 * caught up.
 */
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { StoreView } from "../cluster-state.ts";
import type { NodeRecord } from "../model.ts";
import type { RaftNode } from "../raft/raft.ts";
import type { Proposal, Store } from "../store/store.ts";
import type { DataDir } from "./data-dir.ts";
import { KEEP_INTERVAL_MS } from "./limits.ts";
import {
  concernsMembers,
  isMember,
  membersIn,
  nextRaftId,
  nextRaftIdChange,
  removals,
  removedChanges,
} from "./members-table.ts";
import { finishRemoval, removalsUnderWay } from "./operations.ts";
import type { Announcement } from "./routes.ts";

export interface KeeperOptions {
  readonly dataDir: DataDir;
  readonly store: Store;
  readonly raft: RaftNode;
  readonly log: Log;
  readonly now: () => number;
  /** What this node says about itself. */
  readonly self: Announcement;
  /** Called whenever members may have changed: connections of removed ones are to end. */
  readonly onMembersChanged: () => void;
  /** Sends what this node says about itself to the leader. */
  readonly announce: (self: Announcement) => Promise<void>;
}

export interface Keeper {
  stop(): void;
}

/** This node's record as it is to be: the first node writes itself down; others were by the leader. */
export function decideSelf(
  view: StoreView,
  identity: DataDir["identity"],
  self: Announcement,
  recoveredLost: readonly string[],
  nowMs: number,
): Proposal & { readonly value: null } {
  const { nodeId, raftId } = identity;
  const present = view.nodes.get(nodeId);
  const fresh: NodeRecord = {
    id: nodeId,
    raftId,
    ...self,
    labels: {},
    cordonLabels: [],
    drainLabels: [],
    drainPhase: "none",
    evacuate: false,
    createdAtMs: Math.floor(nowMs),
    revision: 0,
  };
  const record = present === undefined ? fresh : { ...present, raftId, ...self };
  const isEqual =
    present !== undefined &&
    (Object.keys(record) as (keyof NodeRecord)[]).every((key) => record[key] === present[key]);
  const next = Math.max(nextRaftId(view), Number(raftId) + 1);
  const lost = new Set(recoveredLost.filter((id) => id !== raftId));
  const nodeOf = (id: string) =>
    [...view.nodes.values()].find((node) => node.raftId === id)?.id ?? "";
  return {
    value: null,
    changes: [
      ...(isEqual ? [] : [{ table: "nodes", put: record } as const]),
      ...(isEqual && lost.size === 0 ? [] : [nextRaftIdChange(view, next)]),
      ...[...lost].flatMap((id) => removedChanges(view, id, nodeOf(id), Math.floor(nowMs))),
    ],
    events:
      present === undefined
        ? [
            {
              category: "Node",
              action: "Create",
              target: nodeId,
              nodeId,
              component: "membership",
              message: `node ${nodeId} made the cluster`,
            },
          ]
        : [],
  };
}

/** Starts to keep. On followers it only tells the leader about this node. */
export function startKeeper(options: KeeperOptions): Keeper {
  const { dataDir, store, raft, log } = options;
  const promoting = new Set<string>();
  let isStopped = false;
  let isBusy = false;
  let isWanted = false;
  let hasAnnouncedTo: string | null = null;

  const keepSelf = async (): Promise<void> => {
    const recovered = dataDir.recovered();
    // Members that were lost with the majority, and those that only the store knows of, are shut out.
    const inStore = membersIn(store.view()).map(({ raftId }) => raftId);
    const lost = recovered === null ? [] : [...recovered.lostRaftIds, ...inStore];
    const decide = (view: StoreView) =>
      decideSelf(view, dataDir.identity, options.self, lost, options.now());
    if (recovered === null && decide(store.view()).changes.length === 0) return;
    await store.transact(decide);
    if (recovered !== null) {
      dataDir.setRecovered(null);
      log("warn", "the cluster goes on without members that were lost", { lost });
    }
  };

  const promote = async (raftId: string): Promise<void> => {
    if (promoting.has(raftId)) return;
    promoting.add(raftId);
    try {
      await raft.promote(raftId);
      log("info", "member has a vote now", { raftId });
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      log("debug", "learner has no vote yet", { raftId, reason: error.message });
    } finally {
      promoting.delete(raftId);
    }
  };

  const pass = async (): Promise<void> => {
    await keepSelf();
    const view = store.view();
    for (const raftId of removals(view)) {
      if (removalsUnderWay(raft).has(raftId)) continue;
      if (raftId === dataDir.identity.raftId) {
        const { voters } = raft.status();
        const heir = voters.find((id) => id !== raftId);
        if (heir !== undefined) await raft.transferLeadership(heir);
        return;
      }
      const node = [...view.nodes.values()].find((one) => one.raftId === raftId);
      await finishRemoval(options, raftId, node?.id ?? "");
    }
    const { voters, learners } = raft.status();
    for (const node of view.nodes.values()) {
      if (!isMember(view, node)) continue;
      const { raftId, id } = node;
      if (!voters.includes(raftId) && !learners.includes(raftId)) {
        await raft.addLearner(raftId, id);
        log("info", "member added", { node: id, raftId });
      }
    }
    for (const raftId of raft.status().learners) {
      const node = [...view.nodes.values()].find((one) => one.raftId === raftId);
      if (node !== undefined && isMember(view, node)) void promote(raftId);
    }
  };

  const announceSelf = async (): Promise<void> => {
    const { leader } = raft.status();
    if (leader === null || leader === hasAnnouncedTo) return;
    hasAnnouncedTo = leader;
    try {
      await options.announce(options.self);
    } catch (error) {
      hasAnnouncedTo = null;
      const reason = error instanceof Error ? error.message : String(error);
      log("debug", "the leader did not take the announcement", { leader, reason });
    }
  };

  const look = async (): Promise<void> => {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    try {
      while (isWanted && !isStopped) {
        isWanted = false;
        if (store.isLeader()) {
          hasAnnouncedTo = null;
          await pass();
        } else await announceSelf();
      }
    } catch (error) {
      // Tried again at the next turn of the timer.
      const reason = error instanceof Error ? error.message : String(error);
      log("info", "members are not yet as they should be", { reason });
    } finally {
      isBusy = false;
    }
  };

  let known = "";
  const membersChanged = (view: StoreView): void => {
    const members = membersIn(view);
    const text = JSON.stringify(members);
    if (text !== known && members.length > 0) {
      known = text;
      dataDir.setMembers(members);
    }
    options.onMembersChanged();
    void look();
  };
  const stops = [
    store.subscribe((touched, view) => {
      for (const name of touched) {
        if (!concernsMembers(name)) continue;
        membersChanged(view);
        break;
      }
    }),
    store.onLeadership(() => void look()),
  ];
  const timer = setInterval(() => void look(), KEEP_INTERVAL_MS);
  void look();
  return {
    stop() {
      isStopped = true;
      clearInterval(timer);
      for (const stop of stops) stop();
    },
  };
}
