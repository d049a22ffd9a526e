/**
 * Random streams of commands: the same stream makes byte-equal tables, whether it was applied one by
 * one, in batches, after a restart, or from a snapshot on; and what is refused changes nothing.
 */
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import type { TableName } from "../../../../src/control/model.ts";
import type { Change } from "../../../../src/control/planner/plan.ts";
import { type Command, encodeCommand } from "../../../../src/control/store/command.ts";
import {
  EVENTS_KEPT,
  REQUEST_KEPT_MS,
  REQUESTS_PRUNED_AT_ONCE,
} from "../../../../src/control/store/limits.ts";
import { type Outcome, StoreMachine } from "../../../../src/control/store/machine.ts";
import { keyOf, tableNames } from "../../../../src/control/store/tables.ts";
import { TableView } from "../../../../src/control/store/view.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { type Random, withSeed } from "../../../support/random.ts";
import {
  newEvent,
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  snapshotRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

/** A machine on a database of its own. */
class Instance {
  readonly machine = new StoreMachine();
  db: Database;

  constructor(image?: Uint8Array) {
    this.db = image === undefined ? new Database(":memory:") : Database.deserialize(image);
  }

  open(appliedIndex: number): this {
    this.machine.restored(this.db, appliedIndex);
    return this;
  }

  /** Applies commands in one transaction, as one Ready of raft. */
  apply(from: number, texts: readonly string[]): Outcome[] {
    const outcomes = this.db.transaction(() =>
      texts.map((text, at) => this.machine.apply(this.db, from + at, text)),
    )();
    outcomes.forEach((outcome, at) => {
      this.machine.applied(from + at, outcome);
    });
    return outcomes;
  }

  /** All rows of all tables, as text. */
  dump(): string {
    const tables = this.db
      .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name")
      .all() as { name: string; sql: string }[];
    const parts = tables.map(({ name, sql }) => {
      const rows = this.db.prepare(`SELECT * FROM "${name}" ORDER BY 1`).values();
      return [sql, ...rows.map((row) => JSON.stringify(row))].join("\n");
    });
    return parts.join("\n\n");
  }

  /** What the view in memory holds, in the order of keys. */
  contents(): unknown {
    return contentsOf(this.machine.view());
  }

  close(): void {
    this.db.close();
  }
}

const indexNames = [
  "replicasOfVolume",
  "replicasOfPool",
  "nexusesOfVolume",
  "snapshotsOfVolume",
  "poolsOfNode",
] as const;

function contentsOf(view: TableView): unknown {
  const sorted = <T>(entries: Iterable<readonly [string, T]>) =>
    [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
  const tables = tableNames.map((table) => [table, sorted<unknown>(view.tables[table])]);
  const indexes = indexNames.map((index) => [
    index,
    sorted(view.tables[index]).map(([owner, members]) => [owner, [...members].sort()]),
  ]);
  return [...tables, ...indexes];
}

const few = (random: Random, prefix: string, count = 6) => `${prefix}${random.below(count)}`;

/** A record of a random table with a random key out of few, so that streams meet the same ones often. */
function randomRecord(random: Random): Change & { put: unknown } {
  const labels = random.chance(0.3) ? { zone: few(random, "z"), "10": "a", "2": "b" } : {};
  const volume = few(random, "v");
  const makers: (() => Change)[] = [
    () => ({ table: "nodes", put: nodeRecord(few(random, "n"), { labels }) }),
    () => ({
      table: "pools",
      put: poolRecord(few(random, "p"), few(random, "n"), { cordoned: random.chance(0.5) }),
    }),
    () => ({
      table: "volumes",
      put: volumeRecord(volume, {
        labels,
        epoch: random.below(100),
        topology: random.chance(0.5)
          ? null
          : { node: null, pool: { exclusion: {}, inclusion: labels, affinityKey: ["k"] } },
      }),
    }),
    () => ({
      table: "replicas",
      put: replicaRecord(
        few(random, "r", 20),
        random.chance(0.2) ? null : volume,
        few(random, "p"),
        {
          allowedHosts: random.chance(0.5) ? null : [few(random, "nqn.")],
        },
      ),
    }),
    () => ({ table: "nexuses", put: nexusRecord(few(random, "x"), { volumeUuid: volume }) }),
    () => ({ table: "snapshots", put: snapshotRecord(few(random, "s"), volume) }),
    () => ({
      table: "appNodes",
      put: { revision: 0, id: few(random, "a"), endpoint: "x:1", labels },
    }),
    () => ({
      table: "settings",
      put: { revision: 0, key: few(random, "k"), value: String(random.below(9)) },
    }),
    () => ({
      table: "watches",
      put: { revision: 0, id: few(random, "w"), volumeUuid: volume, callback: "http://x/" },
    }),
  ];
  return random.pick(makers)() as Change & { put: unknown };
}

/** Commands that were mostly made from what the instance has now, some from something older. */
function randomCommand(random: Random, now: Instance, nowMs: number): Command {
  const view = now.machine.view();
  const changes: Change[] = [];
  const checks: { table: TableName; key: string; revision: number }[] = [];
  const used = new Set<string>();
  for (let count = random.below(5); count > 0; count--) {
    const change = randomRecord(random);
    const key = keyOf(change.table, change.put as never);
    if (used.has(`${change.table}/${key}`)) continue;
    used.add(`${change.table}/${key}`);
    const found = view.revisionOf(change.table, key);
    const revision = random.chance(0.1) ? found + 1 : found;
    checks.push({ table: change.table, key, revision });
    if (random.chance(0.3)) changes.push({ table: change.table, remove: key } as Change);
    else changes.push(change);
  }
  return {
    kind: "transaction",
    nowMs,
    checks,
    changes,
    events: Array.from({ length: random.below(3) }, () => newEvent(few(random, "v"))),
    request: random.chance(0.4)
      ? { key: few(random, "request-", 30), outcome: JSON.stringify({ nowMs }) }
      : null,
  };
}

interface Stream {
  readonly texts: readonly string[];
  readonly outcomes: readonly Outcome[];
}

/** Makes a stream by applying it command by command, and checks each step. */
function makeStream(random: Random, instance: Instance, length: number): Stream {
  const texts: string[] = [];
  const outcomes: Outcome[] = [];
  const answered = new Map<string, string>();
  let nowMs = 1_700_000_000_000;
  for (let index = 1; index <= length; index++) {
    nowMs += random.chance(0.02) ? REQUEST_KEPT_MS / 2 : random.below(10_000);
    const command = randomCommand(random, instance, nowMs);
    const text = encodeCommand(command);
    const before = instance.dump();
    const [outcome] = instance.apply(index, [text]);
    if (outcome!.kind !== "applied") expect(instance.dump()).toBe(before);
    if (command.kind === "transaction" && command.request !== null) {
      const { key, outcome: answer } = command.request;
      // Until it is forgotten, a key stands for what it was answered first.
      if (outcome!.kind === "repeated") expect(outcome!.outcome).toBe(answered.get(key)!);
      if (outcome!.kind === "applied") answered.set(key, answer);
    }
    texts.push(text);
    outcomes.push(outcome!);
  }
  return { texts, outcomes };
}

describe("random streams", () => {
  test("make the same tables and views everywhere, and refused commands change nothing", () => {
    withSeed(import.meta.path, (random) => {
      for (let round = 0; round < 5; round++) {
        const first = new Instance().open(0);
        const { texts, outcomes } = makeStream(random, first, 150);
        const kinds = new Set(outcomes.map(({ kind }) => kind));
        expect([...kinds].sort()).toEqual(["applied", "conflict", "repeated"]);

        const batched = new Instance().open(0);
        for (let at = 0; at < texts.length; ) {
          const count = random.between(1, 20);
          batched.apply(at + 1, texts.slice(at, at + count));
          at += count;
        }
        expect(batched.dump()).toBe(first.dump());
        expect(batched.contents()).toEqual(first.contents());

        // Another member joins from a snapshot in the middle, a third is restarted there.
        const middle = random.below(texts.length);
        const early = new Instance().open(0);
        early.apply(1, texts.slice(0, middle));
        const late = new Instance(early.db.serialize()).open(middle);
        const outcomesLate = late.apply(middle + 1, texts.slice(middle));
        expect(late.dump()).toBe(first.dump());
        expect(late.contents()).toEqual(first.contents());
        expect(outcomesLate).toEqual(outcomes.slice(middle) as Outcome[]);

        const reread = TableView.load(first.machine.statements().tables, texts.length);
        expect(contentsOf(reread)).toEqual(first.contents());
        for (const instance of [first, batched, early, late]) instance.close();
      }
    });
  }, 60_000);
});

function transaction(parts: Partial<Extract<Command, { kind: "transaction" }>>): string {
  return encodeCommand({
    kind: "transaction",
    nowMs: 1,
    checks: [],
    changes: [],
    events: [],
    request: null,
    ...parts,
  });
}

describe("bounds", () => {
  test("the newest events are kept, and ids go on", () => {
    const instance = new Instance().open(0);
    const events = Array.from({ length: 1_000 }, (_, at) => newEvent(`v${at}`));
    const rounds = EVENTS_KEPT / 1_000 + 2;
    for (let index = 1; index <= rounds; index++) instance.apply(index, [transaction({ events })]);
    const { events: stored } = instance.machine.statements();
    expect(stored.range()).toEqual({ oldestId: 2_001, newestId: EVENTS_KEPT + 2_000 });
    expect(stored.after(0, 2).map(({ id }) => id)).toEqual([2_001, 2_002]);
    expect(stored.after(EVENTS_KEPT + 1_999, 5).map(({ id }) => id)).toEqual([EVENTS_KEPT + 2_000]);
    instance.close();
  });

  test("keys are forgotten after a day by the leader's clock, a few at a time", () => {
    const instance = new Instance().open(0);
    const begin = 1_700_000_000_000;
    const count = REQUESTS_PRUNED_AT_ONCE + 10;
    const request = (key: string) => ({ key, outcome: "1" });
    let index = 0;
    for (let at = 0; at < count; at++) {
      instance.apply(++index, [transaction({ nowMs: begin + at, request: request(`k${at}`) })]);
    }
    const known = () =>
      (instance.db.prepare("SELECT count(*) AS n FROM requests").get() as { n: number }).n;
    const late = begin + count + REQUEST_KEPT_MS;
    const [again] = instance.apply(++index, [transaction({ nowMs: late, request: request("k0") })]);
    expect(again!.kind).toBe("repeated");
    instance.apply(++index, [transaction({ nowMs: late, request: request("new-1") })]);
    expect(known()).toBe(11);
    instance.apply(++index, [transaction({ nowMs: late, request: request("new-2") })]);
    expect(known()).toBe(2);
    const [first] = instance.apply(++index, [transaction({ nowMs: late, request: request("k0") })]);
    expect(first!.kind).toBe("applied");
    instance.close();
  });
});

describe("what cannot be applied is not proposed", () => {
  const request = (key: string) => ({ key, outcome: "1" });
  const long = "x".repeat(10_000);
  const cases: [string, () => string][] = [
    ["a key that is too long", () => transaction({ request: request(long) })],
    ["a key that is empty", () => transaction({ request: request("") })],
    ["a removal without key", () => transaction({ changes: [{ table: "pools", remove: "" }] })],
    ["a time that is no number", () => transaction({ nowMs: Number.NaN })],
    [
      "a text that SQLite would cut off",
      () => transaction({ changes: [{ table: "pools", put: poolRecord("p\0q", "n") }] }),
    ],
    [
      "a text that is not well-formed",
      () => transaction({ changes: [{ table: "pools", put: poolRecord("p", "\ud800") }] }),
    ],
    [
      "a table that is not there",
      () => transaction({ changes: [{ table: "rooms" as "pools", remove: "p" }] }),
    ],
  ];
  test.each(cases)("%s", (_name, make) => {
    expect(make).toThrow(TrilithError);
  });

  test("but an event's message is made to fit", () => {
    const instance = new Instance().open(0);
    const message = `\0\ud800${"x".repeat(10_000)}`;
    instance.apply(1, [transaction({ events: [newEvent("v", { message })] })]);
    const [stored] = instance.machine.statements().events.after(0, 1);
    expect(stored!.message.slice(0, 3)).toBe("\ufffd\ufffdx");
    expect(stored!.message.length).toBe(4096);
    instance.close();
  });
});

describe("the log", () => {
  test("a command that is not known stops the process instead of being skipped", () => {
    const instance = new Instance().open(0);
    const apply = (text: string) => () => instance.apply(1, [text]);
    expect(apply('{"kind":"dance","nowMs":1}')).toThrow(TrilithError);
    expect(apply('{"kind":"migrate","nowMs":1,"toVersion":99}')).toThrow(TrilithError);
    expect(apply("not JSON")).toThrow(SyntaxError);
    instance.close();
  });

  test("tables of a newer version than is known are not opened", () => {
    const instance = new Instance().open(0);
    instance.db.run("UPDATE meta SET value = 99 WHERE name = 'schema_version'");
    expect(() => new StoreMachine().restored(instance.db, 5)).toThrow("version 99");
    instance.close();
  });
});
