/**
 * Who is a member, for those who let others in and call them. The store's table of nodes is the
 * authority; before it is open, and while it is behind, what was known last is used.
 */
import { TrilithError } from "../../errors.ts";
import type { PeerCertificate } from "../../net/peer-certificate.ts";
import { type MemberName, memberOf } from "./names.ts";

/** What is known of members now. */
export interface MemberDirectory {
  readonly clusterId: string;
  /** Where a member's control process answers; undefined when it is not known here (yet). */
  find(raftId: string): { readonly nodeId: string; readonly peerEndpoint: string } | undefined;
  /** It was a member and will never be one again. */
  isRemoved(raftId: string): boolean;
}

/**
 * The member that a certificate stands for. `Unauthorized` when it was removed, `PermissionDenied` when
 * it is of another cluster.
 *
 * A member that is unknown here is let in: one that joined lately may lead already while this node has
 * yet to hear of it, and could not be told by anybody else. The authority has signed for it, and every
 * removal is on record.
 */
export function admitMember(directory: MemberDirectory, certificate: PeerCertificate): MemberName {
  const member = memberOf(certificate);
  if (member.clusterId !== directory.clusterId) {
    throw new TrilithError(
      "PermissionDenied",
      `the certificate is of cluster ${member.clusterId}, this is ${directory.clusterId}`,
    );
  }
  if (directory.isRemoved(member.raftId)) {
    throw new TrilithError(
      "Unauthorized",
      `node ${member.nodeId} (raft id ${member.raftId}) was removed from the cluster`,
      "to bring it back, clear its data directory and join it again",
    );
  }
  const known = directory.find(member.raftId);
  if (known !== undefined && known.nodeId !== member.nodeId) {
    throw new TrilithError(
      "PermissionDenied",
      `raft id ${member.raftId} belongs to node ${known.nodeId}, not to ${member.nodeId}`,
    );
  }
  return member;
}
