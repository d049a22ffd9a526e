/** What an operator has to know of the members that keep the store, as the leader sees them. Pure. */
import type { NodeId } from "../model.ts";
import type { Warning } from "../planner/plan.ts";
import type { StoreStatus } from "../store/store.ts";
import { EXPIRY_WARNING_MS } from "./limits.ts";
import type { PeerLinkStatus } from "./peer-transport.ts";

/** Members that do not answer, and what that means for the store. */
export function memberWarnings(
  { raftId, members }: Pick<StoreStatus, "raftId" | "members">,
  links: readonly Pick<PeerLinkStatus, "raftId" | "isConnected">[],
): Warning[] {
  const connected = new Set(links.filter((link) => link.isConnected).map((link) => link.raftId));
  const voters = members.filter(({ isVoter }) => isVoter);
  const isThere = (id: string): boolean => id === raftId || connected.has(id);
  const majority = Math.floor(voters.length / 2) + 1;
  const spare = voters.filter((member) => isThere(member.raftId)).length - majority;
  const state =
    spare > 0
      ? `the store goes on without ${spare} more`
      : "without one more the store has no majority and takes no change";
  const away = members.filter((member) => !isThere(member.raftId));
  const warnings = away.map(({ nodeId }): Warning => {
    const lost = `if it is lost for good: trilith node remove ${nodeId} --purge`;
    return {
      severity: spare > 0 ? "warning" : "critical",
      subject: `node/${nodeId}`,
      message: `its control process cannot be reached; ${state}`,
      remedy: `on ${nodeId}: systemctl status trilith; ${lost}`,
    };
  });
  if (voters.length === 2 && away.length === 0) {
    warnings.push({
      severity: "info",
      subject: "store",
      message: "it is kept by two nodes: when either is away it takes no change",
      remedy: "join a third: trilith token create, then trilith join on it",
    });
  }
  return warnings;
}

/** When a certificate that the cluster rests on ends. */
export interface CertificateEnd {
  /** Whose it is; `authority` for the one that signs all others. */
  readonly owner: NodeId | "authority";
  readonly endsMs: number;
}

/** Certificates that end soon although nodes renew theirs by themselves. */
export function certificateWarnings(ends: readonly CertificateEnd[], nowMs: number): Warning[] {
  return ends
    .filter(({ endsMs }) => endsMs - nowMs < EXPIRY_WARNING_MS)
    .map(({ owner, endsMs }) => {
      const isAuthority = owner === "authority";
      const days = Math.floor((endsMs - nowMs) / 86_400_000);
      const when = days < 0 ? `ended ${-days} days ago` : `ends in ${days} days`;
      const day = new Date(endsMs).toISOString().slice(0, 10);
      return {
        severity: endsMs - nowMs < EXPIRY_WARNING_MS / 2 ? "critical" : "warning",
        subject: isAuthority ? "store" : `node/${owner}`,
        message: isAuthority
          ? `the certificate of the cluster's authority ${when} (${day}): nodes shut each other out then`
          : `its certificate ${when} (${day}) and was not renewed: other nodes shut it out then`,
        remedy: isAuthority
          ? "make a new cluster authority and join every node again: trilith join"
          : `on ${owner}: look for "the certificate cannot be renewed" in journalctl -u trilith, and check its clock and disk`,
      };
    });
}
