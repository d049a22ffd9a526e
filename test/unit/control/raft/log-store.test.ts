/** What raft keeps on disk: written, cut, written over, opened again, and found out when it is damaged. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { ConfState, Entry } from "../../../../src/control/raft/engine.ts";
import { LogStore } from "../../../../src/control/raft/log-store.ts";
import { TrilithError } from "../../../../src/errors.ts";

function entries(from: number, count: number, term: number): Entry[] {
  return Array.from(
    { length: count },
    (_, at) => new Entry({ index: from + at, term, data: `command ${from + at} of ${term}` }),
  );
}

/** A log 2..6 of terms 1 and 2 on a blank file; committed and applied up to 4. */
function filled(): { db: Database; log: LogStore } {
  const db = new Database(":memory:");
  const log = new LogStore(db, "n1");
  const conf = new ConfState({ voters: ["n1", "n2"] });
  const members = { conf, contexts: new Map([["n2", "there"]]), removed: new Set(["n0"]) };
  log.restart({ index: 1, term: 1 }, members, { term: 1, vote: "", commit: 1, applied: 1 });
  log.append([...entries(2, 2, 1), ...entries(4, 3, 2)]);
  log.saveState({ term: 2, vote: "n2", commit: 5, applied: 4 });
  return { db, log };
}

function terms(log: LogStore): number[] {
  const [all] = log.Entries(log.firstIndex, log.lastIndex + 1, Number.MAX_SAFE_INTEGER);
  return all.map((entry) => entry.term);
}

test("opens as it was closed", () => {
  const { db, log } = filled();
  const again = new LogStore(db, "n1");
  expect(terms(again)).toEqual([1, 1, 2, 2, 2]);
  expect(again.Entries(2, 7, 1e9)).toEqual(log.Entries(2, 7, 1e9));
  expect(again.state).toEqual({ term: 2, vote: "n2", commit: 5, applied: 4 });
  expect(again.members.conf.voters).toEqual(["n1", "n2"]);
  expect(again.members.contexts.get("n2")).toBe("there");
  expect(again.members.removed.has("n0")).toBe(true);
  expect(again.size).toEqual(log.size);
  expect(again.incarnation).toBe(log.incarnation + 1);
});

test("entries written over take all later ones with them", () => {
  const { db, log } = filled();
  log.append(entries(5, 1, 3));
  for (const store of [log, new LogStore(db, "n1")]) {
    expect(terms(store)).toEqual([1, 1, 2, 3]);
    expect(store.lastIndex).toBe(5);
  }
});

test("a gap or a write over what is cut away is refused", () => {
  const { log } = filled();
  expect(() => log.append(entries(8, 1, 3))).toThrow("append at 8");
  log.compact(3);
  expect(() => log.append(entries(3, 1, 3))).toThrow("append at 3");
});

test("a cut log keeps the term before it, and says what is gone", () => {
  const { db, log } = filled();
  log.compact(3);
  for (const store of [log, new LogStore(db, "n1")]) {
    expect(store.firstIndex).toBe(4);
    expect(store.Term(3)).toEqual([1, null]);
    expect(store.Term(2)[1]?.name).toBe("ErrCompacted");
    expect(store.Entries(3, 5, 1e9)[1]?.name).toBe("ErrCompacted");
    expect(store.Entries(4, 9, 1e9)[1]?.name).toBe("ErrUnavailable");
    expect(store.Term(7)[1]?.name).toBe("ErrUnavailable");
  }
});

test("is never cut beyond what is applied", () => {
  const { log } = filled();
  expect(() => log.compact(5)).toThrow("applied 4");
  expect(log.cutFor(0, 0)).toBe(4);
  expect(log.cutFor(100, 1e9)).toBe(1);
  // Two entries are not applied yet; with one more three remain.
  expect(log.cutFor(3, 1e9)).toBe(3);
  expect(log.cutFor(100, 1)).toBe(4);
});

test("gives at least one entry, however long", () => {
  const { log } = filled();
  expect(log.Entries(2, 7, 0)[0].length).toBe(1);
  expect(log.Entries(2, 7, 110)[0].length).toBe(2);
});

function expectCorrupted(db: Database, what: RegExp): void {
  let thrown: unknown;
  try {
    new LogStore(db, "n1");
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(TrilithError);
  const error = thrown as TrilithError;
  expect(error.code).toBe("Corrupted");
  expect(error.message).toMatch(what);
  expect(error.remedy).toContain("join it again");
}

const damages: [name: string, statement: string, what: RegExp][] = [
  ["a command", "UPDATE raft_log SET data = 'commanD 3 of 1' WHERE idx = 3", /entry 3 .*checksum/],
  ["a term", "UPDATE raft_log SET term = 2 WHERE idx = 3", /entry 3 .*checksum/],
  ["a missing command", "UPDATE raft_log SET data = NULL WHERE idx = 3", /entry 3 .*checksum/],
  ["an entry in another's place", "UPDATE raft_log SET idx = 99 WHERE idx = 6", /entry 99 .*check/],
  ["a missing entry", "DELETE FROM raft_log WHERE idx = 3", /entry 3 is missing/],
  ["a missing end", "DELETE FROM raft_log WHERE idx >= 5", /2\.\.4, committed 5/],
  [
    "the vote",
    `UPDATE raft_meta SET value = replace(value, 'n2', 'n1') WHERE name = 'hard'`,
    /"hard" .*checksum/,
  ],
  [
    "the members",
    `UPDATE raft_meta SET value = replace(value, 'n2', 'n3') WHERE name = 'members'`,
    /"members" .*checksum/,
  ],
];

for (const [name, statement, what] of damages) {
  test(`damage is found out when it is opened: ${name}`, () => {
    const { db } = filled();
    db.run(statement);
    expectCorrupted(db, what);
  });
}

test("a file of another member is refused", () => {
  const { db } = filled();
  expect(() => new LogStore(db, "n2")).toThrow("belongs to raft member n1");
});
