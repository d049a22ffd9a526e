/**
 * Messages between members as bytes: JSON in UTF-8, an array whose places are
 *
 *   0 version (1)   4 term      8 commit       11 context (null, text or number)
 *   1 type          5 logTerm   9 reject       12 entries: [term, index, type, data]...
 *   2 to            6 index    10 rejectHint   13 snapshot: null or [data, index, term, ConfState]
 *   3 from          7 unused
 *
 * The peer is a member with a certificate; still, nothing of a message is believed before it is looked at.
 */
import { TrilithError } from "../../errors.ts";
import { ConfState, Entry, EntryType, Message, MessageType, Snapshot } from "./engine.ts";

const VERSION = 1;

/** Type of the message that tells a node that it was removed; the engine does not know it. */
export const REMOVED_NOTICE = 100;

/** Messages that other members may send; everything else is the node's own. */
const acceptedTypes: ReadonlySet<number> = new Set([
  MessageType.MsgApp,
  MessageType.MsgAppResp,
  MessageType.MsgVote,
  MessageType.MsgVoteResp,
  MessageType.MsgPreVote,
  MessageType.MsgPreVoteResp,
  MessageType.MsgHeartbeat,
  MessageType.MsgHeartbeatResp,
  MessageType.MsgTimeoutNow,
  MessageType.MsgReadIndex,
  MessageType.MsgReadIndexResp,
  REMOVED_NOTICE,
]);

/** True for messages that other members may send, but for those with a snapshot. */
export function isAccepted(message: Message): boolean {
  return acceptedTypes.has(message.type);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export function encodeMessage(message: Message): Uint8Array {
  const { metadata, data } = message.snapshot;
  const fields = [
    VERSION,
    message.type,
    message.to,
    message.from,
    message.term,
    message.logTerm,
    message.index,
    0,
    message.commit,
    message.reject,
    message.rejectHint,
    message.context,
    message.entries.map((entry) => [entry.term, entry.index, entry.type, entry.data]),
    metadata.index === 0 ? null : [data, metadata.index, metadata.term, metadata.confState],
  ];
  return encoder.encode(JSON.stringify(fields));
}

/** The message to a member that was removed, and may not know it. */
export function encodeRemovedNotice(to: string, from: string): Uint8Array {
  const nothing = [0, 0, 0, 0, 0, false, 0, null, [], null];
  return encoder.encode(JSON.stringify([VERSION, REMOVED_NOTICE, to, from, ...nothing]));
}

function malformed(what: string): TrilithError {
  return new TrilithError("InvalidArgument", `raft message with ${what}`);
}

function textAt(fields: readonly unknown[], place: number): string {
  const value = fields[place];
  if (typeof value !== "string") throw malformed(`a wrong field ${place}`);
  return value;
}

function countAt(fields: readonly unknown[], place: number): number {
  const value = fields[place];
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw malformed(`a wrong field ${place}`);
  }
  return value as number;
}

function listOf(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw malformed(`wrong ${what}`);
  return value;
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null && name in value
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

/** Checks the data of an entry: a command, nothing, or a change of the members. */
export function isEntryData(type: number, data: unknown): boolean {
  if (type === EntryType.EntryNormal) return data === null || typeof data === "string";
  if (type !== EntryType.EntryConfChange) return false;
  const context = fieldOf(data, "context");
  return (
    Number.isSafeInteger(fieldOf(data, "type")) &&
    typeof fieldOf(data, "nodeId") === "string" &&
    (context === null || typeof context === "string")
  );
}

function decodeEntry(value: unknown): Entry {
  const fields = listOf(value, "entries");
  const type = countAt(fields, 2);
  const data = fields[3] ?? null;
  if (!isEntryData(type, data)) throw malformed("a wrong entry");
  return new Entry({ term: countAt(fields, 0), index: countAt(fields, 1), type, data });
}

function texts(value: unknown): string[] {
  return listOf(value, "members").map((id) => {
    if (typeof id !== "string") throw malformed("wrong members");
    return id;
  });
}

/** The configuration in a plain object. Throws `InvalidArgument`. */
export function confStateOf(value: unknown): ConfState {
  return new ConfState({
    voters: texts(fieldOf(value, "voters")),
    learners: texts(fieldOf(value, "learners")),
    votersOutgoing: texts(fieldOf(value, "votersOutgoing")),
    learnersNext: texts(fieldOf(value, "learnersNext")),
    autoLeave: fieldOf(value, "autoLeave") === true,
  });
}

function decodeSnapshot(value: unknown): Snapshot | undefined {
  if (value === null) return undefined;
  const fields = listOf(value, "snapshot");
  const confState = confStateOf(fields[3]);
  const metadata = { index: countAt(fields, 1), term: countAt(fields, 2), confState };
  return new Snapshot({ data: textAt(fields, 0), metadata });
}

/**
 * The message in `bytes`. Throws `InvalidArgument` when they are none. Entries of an append follow each
 * other without a gap: the engine relies on it.
 */
export function decodeMessage(bytes: Uint8Array): Message {
  let parsed: unknown;
  try {
    parsed = JSON.parse(decoder.decode(bytes));
  } catch {
    throw malformed("no JSON in it");
  }
  const fields = listOf(parsed, "fields");
  if (fields[0] !== VERSION) throw malformed(`version ${String(fields[0])}`);
  const type = countAt(fields, 1);
  if (MessageType[type] === undefined && type !== REMOVED_NOTICE) throw malformed(`type ${type}`);
  const context = fields[11] ?? null;
  const isContext = context === null || typeof context === "string" || Number.isFinite(context);
  if (!isContext) throw malformed("a wrong context");
  const entries = listOf(fields[12], "entries").map(decodeEntry);
  const index = countAt(fields, 6);
  if (
    type === MessageType.MsgApp &&
    entries.some((entry, at) => entry.index !== index + 1 + at || entry.term === 0)
  ) {
    throw malformed("entries out of order");
  }
  const snapshot = decodeSnapshot(fields[13] ?? null);
  return new Message({
    type,
    to: textAt(fields, 2),
    from: textAt(fields, 3),
    term: countAt(fields, 4),
    logTerm: countAt(fields, 5),
    index,
    commit: countAt(fields, 8),
    reject: fields[9] === true,
    rejectHint: countAt(fields, 10),
    context,
    entries,
    ...(snapshot === undefined ? {} : { snapshot }),
  });
}
