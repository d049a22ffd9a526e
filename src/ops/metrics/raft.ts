/** Metrics of this node's part in raft. */
import type { StoreStatus } from "../../control/store/store.ts";
import { gauge } from "./definition.ts";
import type { Exposition } from "./exposition.ts";

export const raftMetrics = {
  term: gauge("trilith_raft_term", "Term of raft that this member is in"),
  commit: gauge("trilith_raft_commit_index", "Highest log index known to be committed"),
  applied: gauge("trilith_raft_applied_index", "Highest log index that is applied here"),
  first: gauge("trilith_raft_first_index", "Lowest log index that is kept"),
  role: gauge("trilith_raft_role", "1 for the role that this member has", "role"),
  hasLeader: gauge("trilith_raft_has_leader", "1 when this member knows of a leader"),
  isLeader: gauge("trilith_raft_is_leader", "1 on the leader"),
  members: gauge("trilith_raft_members", "Members of the cluster by kind", "kind"),
  lag: gauge(
    "trilith_raft_member_lag_entries",
    "Log entries that a member is behind; known to the leader only",
    "member",
  ),
} as const;

const roles: readonly StoreStatus["role"][] = ["leader", "follower", "candidate", "learner"];

export function collectRaft(out: Exposition, status: StoreStatus): void {
  const m = raftMetrics;
  out.add(m.term, [], status.term);
  out.add(m.commit, [], status.commitIndex);
  out.add(m.applied, [], status.appliedIndex);
  out.add(m.first, [], status.firstIndex);
  for (const role of roles) out.add(m.role, [role], status.role === role ? 1 : 0);
  out.add(m.hasLeader, [], status.leader === null ? 0 : 1);
  out.add(m.isLeader, [], status.role === "leader" ? 1 : 0);
  const voters = status.members.filter((member) => member.isVoter).length;
  out.add(m.members, ["voter"], voters);
  out.add(m.members, ["learner"], status.members.length - voters);
  for (const { nodeId, matchIndex } of status.members) {
    if (matchIndex === null) continue;
    out.add(m.lag, [nodeId], Math.max(0, status.commitIndex - matchIndex));
  }
}
