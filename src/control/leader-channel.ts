/**
 * The way to the leader: requests that only the leader can answer, carried over the port for other
 * nodes. Imports raft's and the transport's types.
 */
import { TrilithError } from "../errors.ts";
import type { PeerTransport } from "./membership/peer-transport.ts";
import type { RaftNode } from "./raft/raft.ts";

export interface LeaderChannel {
  /** Where the leader is. */
  leadership(): "here" | "elsewhere" | "none";
  /** Has the leader answer; `Unavailable` when there is none, or it is this node. */
  ask(request: Request): Promise<Response>;
  /** Like `ask`; null when there is no other node that leads. */
  forward(request: Request): Promise<Response> | null;
}

export function leaderChannel(
  raft: Pick<RaftNode, "status">,
  transport: Pick<PeerTransport, "forward">,
  isLeader: () => boolean,
): LeaderChannel {
  const elsewhere = (): string | null => {
    const { leader, raftId } = raft.status();
    return leader === raftId ? null : leader;
  };
  return {
    leadership: () => (isLeader() ? "here" : elsewhere() === null ? "none" : "elsewhere"),
    ask(request) {
      const leader = elsewhere();
      if (leader !== null) return transport.forward(leader, request);
      return Promise.reject(
        new TrilithError(
          "Unavailable",
          "the cluster has no leader that can be reached from here",
          "see `trilith cluster status`: a majority of the members has to be up and connected",
        ),
      );
    },
    forward(request) {
      const leader = elsewhere();
      return leader === null ? null : transport.forward(leader, request);
    },
  };
}
