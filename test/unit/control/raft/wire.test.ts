/** Messages as bytes: back as they were, and nothing but `InvalidArgument` for whatever else comes. */
import { expect, test } from "bun:test";
import {
  ConfChange,
  ConfChangeType,
  ConfState,
  Entry,
  EntryType,
  Message,
  MessageType,
  Snapshot,
} from "../../../../src/control/raft/engine.ts";
import { decodeMessage, encodeMessage } from "../../../../src/control/raft/wire.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { withSeed } from "../../../support/random.ts";

const change = new ConfChange({
  type: ConfChangeType.ConfChangeAddLearnerNode,
  nodeId: "n4",
  context: "10.0.0.4:10125",
});

const append = new Message({
  type: MessageType.MsgApp,
  to: "n2",
  from: "n1",
  term: 7,
  logTerm: 6,
  index: 41,
  commit: 40,
  entries: [
    new Entry({ term: 7, index: 42, data: null }),
    new Entry({ term: 7, index: 43, data: '{"größe":"4 KiB – 𝔘"}' }),
    new Entry({ term: 7, index: 44, type: EntryType.EntryConfChange, data: change }),
  ],
});

const snapshot = new Message({
  type: MessageType.MsgSnap,
  to: "n2",
  from: "n1",
  term: 7,
  snapshot: new Snapshot({
    data: "{}",
    metadata: { index: 9, term: 3, confState: new ConfState({ voters: ["n1"], learners: ["n2"] }) },
  }),
});

const read = new Message({
  type: MessageType.MsgReadIndex,
  to: "n1",
  from: "n2",
  entries: [new Entry({ data: "n2:1/5" })],
});

for (const message of [append, snapshot, read]) {
  test(`${MessageType[message.type]} comes back as it was`, () => {
    const back = decodeMessage(encodeMessage(message));
    expect(JSON.parse(JSON.stringify(back))).toEqual(JSON.parse(JSON.stringify(message)));
    expect(back).toBeInstanceOf(Message);
    expect(back.snapshot.metadata.confState).toBeInstanceOf(ConfState);
    for (const entry of back.entries) expect(entry).toBeInstanceOf(Entry);
  });
}

test("entries that do not follow each other are refused", () => {
  const gap = new Message({ ...append, index: 40 });
  expect(() => decodeMessage(encodeMessage(gap))).toThrow("out of order");
});

test("another version is refused", () => {
  const text = new TextDecoder().decode(encodeMessage(append));
  const other = new TextEncoder().encode(text.replace("[1,", "[2,"));
  expect(() => decodeMessage(other)).toThrow("version 2");
});

test("whatever else comes is refused, or is a message", () => {
  withSeed(import.meta.path, (random) => {
    const values: unknown[] = [null, -1, 1.5, 2 ** 60, "", "x", [], {}, true, [[]], { voters: 1 }];
    let refused = 0;
    for (let round = 0; round < 5_000; round++) {
      const original = encodeMessage(random.pick([append, snapshot, read]));
      let bytes: Uint8Array = original;
      if (random.chance(0.5)) {
        // A value in some place replaced by another.
        const fields = JSON.parse(new TextDecoder().decode(original)) as unknown[];
        let list: unknown[] = fields;
        let at = random.below(list.length);
        while (
          Array.isArray(list[at]) &&
          (list[at] as unknown[]).length > 0 &&
          random.chance(0.7)
        ) {
          list = list[at] as unknown[];
          at = random.below(list.length);
        }
        list[at] = random.pick(values);
        bytes = new TextEncoder().encode(JSON.stringify(fields));
      } else {
        bytes = original.slice(0, random.between(0, original.length));
        if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
      }
      try {
        const message = decodeMessage(bytes);
        expect(message).toBeInstanceOf(Message);
      } catch (error) {
        expect(error).toBeInstanceOf(TrilithError);
        expect((error as TrilithError).code).toBe("InvalidArgument");
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(2_000);
  });
});
