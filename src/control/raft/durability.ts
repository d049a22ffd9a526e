/**
 * What may leave a member before its disk has what it wrote, and what may not.
 *
 * A Ready needs the disk when it carries what raft's safety rests on: entries, a term or a vote. Its
 * messages vouch for those to other members and go out when they are durable. The commit index needs
 * no disk (it is learnt again), and neither does the effect of commands: they are in the logs of a
 * majority, this member's transaction with the effect holds the applied index as well, and what a power
 * loss takes are whole transactions, the last ones. A member that lost some opens with an older state
 * and the applied index of just that state, and applies the same entries again when it learns that they
 * are committed. It still has them, for two reasons: each entry was durable before it was acknowledged,
 * and the log is cut, or replaced by a snapshot, by transactions that stand after those whose effect they
 * build on. Changes of the members wait for the disk all the same: nobody ever goes back to members of
 * before, so that nobody needs to think about what it does then.
 *
 * A leader sends entries and heartbeats before it has written the entries itself, so that all disks
 * work at the same time (Ongaro's thesis, 10.2.1). It does not count itself before: the core counts it
 * when it appends, but is told nothing, the answers of others least of all, until the disk is there. What is
 * sent that way must rest on nothing that could be lost: the term and the vote for itself are durable,
 * and so is every entry that it calls committed. If the leader loses its entries, they were those of
 * a term in which it leads no more: no others ever stand at their indexes under the same term.
 */
import {
  EntryType,
  type HardState,
  type Message,
  MessageType,
  type RawNode,
  type Ready,
  StateType,
} from "./engine.ts";
import type { LogStore } from "./log-store.ts";

/** True when messages and answers of a Ready wait for the disk. `state`: what was durable before it. */
export function needsDisk(ready: Ready, state: Pick<HardState, "term" | "vote">): boolean {
  const { hardState, entries, committedEntries } = ready;
  const isHardStateNew =
    !hardState.isEmptyHardState() &&
    (hardState.term !== state.term || hardState.vote !== state.vote);
  return (
    isHardStateNew ||
    entries.length > 0 ||
    committedEntries.some(({ type }) => type === EntryType.EntryConfChange)
  );
}

/** Messages of a Ready that need not wait for it to be written. `log`: as it was before, durable. */
export function mayGoEarly(ready: Ready, { raft }: RawNode, log: LogStore): ReadonlySet<Message> {
  const { term, vote } = log.state;
  if (raft.state !== StateType.StateLeader || raft.term !== term || vote !== raft.id) {
    return new Set();
  }
  return new Set(
    ready.messages.filter(
      (message) =>
        (message.type === MessageType.MsgApp || message.type === MessageType.MsgHeartbeat) &&
        message.term === term &&
        message.commit <= log.lastIndex,
    ),
  );
}
