/**
 * Raft with real files and processes that are killed (SIGKILL) while they are proposed to: what was
 * acknowledged is there, on every member, and all are equal.
 */
import { afterEach, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Random, withSeed } from "../../support/random.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const PROGRAM = join(import.meta.dir, "../../support/raft/member-process.ts");
const WAIT_MS = 60_000;
/** Longer than a member takes to give up a proposal. */
const ANSWER_MS = 5_000;
const ROUNDS = 12;
const CLIENTS = 6;

const folder = tempFolders();

interface Status {
  readonly role: string;
  readonly term: number;
  readonly appliedIndex: number;
  readonly firstIndex: number;
  readonly voters: readonly string[];
}

interface Content {
  readonly chain: string;
  readonly keys: readonly { readonly key: string; readonly value: string }[];
}

class Processes {
  readonly #folder: string;
  readonly #running = new Map<string, Bun.Subprocess>();

  constructor(inFolder: string) {
    this.#folder = inFolder;
  }

  start(raftId: string, bootstrap = false): void {
    const options = bootstrap ? ["--bootstrap"] : [];
    const child = Bun.spawn([process.execPath, PROGRAM, raftId, this.#folder, ...options], {
      stdin: "ignore",
      stdout: "inherit",
      stderr: "inherit",
    });
    this.#running.set(raftId, child);
  }

  async kill(raftId: string): Promise<void> {
    const child = this.#running.get(raftId);
    this.#running.delete(raftId);
    child?.kill("SIGKILL");
    await child?.exited;
  }

  async killAll(): Promise<void> {
    for (const raftId of [...this.#running.keys()]) await this.kill(raftId);
  }

  /** The body of an answer; null when nobody answered, or with an error. */
  async ask<T>(raftId: string, path: string, body?: string): Promise<T | null> {
    const unix = join(this.#folder, `${raftId}.sock`);
    if (!existsSync(unix)) return null;
    try {
      const method = body === undefined ? "GET" : "POST";
      const answer = await fetch(`http://member/${path}`, {
        method,
        unix,
        ...(body === undefined ? {} : { body }),
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      return answer.ok ? ((await answer.json()) as T) : null;
    } catch {
      return null;
    }
  }

  async leader(): Promise<string | null> {
    const asked = [...this.#running.keys()].map(async (id) => {
      const status = await this.ask<Status>(id, "status");
      return { id, status };
    });
    const leaders = (await Promise.all(asked)).filter(({ status }) => status?.role === "leader");
    leaders.sort((a, b) => b.status!.term - a.status!.term);
    return leaders[0]?.id ?? null;
  }
}

let processes: Processes | null = null;

afterEach(async () => {
  await processes?.killAll();
  processes = null;
});

async function until<T>(what: string, look: () => Promise<T | null | false>): Promise<T> {
  const endMs = performance.now() + WAIT_MS;
  for (;;) {
    const found = await look();
    if (found !== null && found !== false) return found;
    if (performance.now() > endMs) throw new Error(`not in time: ${what}`);
    await Bun.sleep(5);
  }
}

/** Proposes one value after the other, whoever leads; returns what was acknowledged. */
async function client(
  all: Processes,
  name: string,
  isOver: () => boolean,
): Promise<{ acknowledged: string[]; asked: number }> {
  const acknowledged: string[] = [];
  let asked = 0;
  while (!isOver()) {
    const leader = await all.leader();
    if (leader === null) {
      await Bun.sleep(5);
      continue;
    }
    const key = `${name}-${asked++}`;
    const command = JSON.stringify({ op: "set", key, value: "x".repeat(50) });
    const outcome = await all.ask(leader, "propose", command);
    if (outcome !== null) acknowledged.push(key);
  }
  return { acknowledged, asked };
}

async function form(all: Processes, raftIds: readonly string[]): Promise<void> {
  const [first, ...others] = raftIds as [string, ...string[]];
  all.start(first, true);
  await until("a leader", () => all.leader());
  for (const raftId of others) {
    all.start(raftId);
    await until(`${raftId} to answer`, () => all.ask(raftId, "status"));
    const change = (kind: string) => async () => {
      await all.ask(first, `change/${kind}/${raftId}`, "");
      const status = await all.ask<Status>(first, "status");
      return kind !== "promote" || status?.voters.includes(raftId) === true;
    };
    await until(`${raftId} to be a learner`, change("add-learner"));
    await until(`${raftId} to be a voter`, change("promote"));
  }
}

async function killing(random: Random, raftIds: readonly string[]): Promise<void> {
  const all = new Processes(folder());
  processes = all;
  await form(all, raftIds);
  let isOver = false;
  const clients = Array.from({ length: CLIENTS }, (_, at) => client(all, `c${at}`, () => isOver));
  const progress = async () => {
    const leader = await all.leader();
    const status = leader === null ? null : await all.ask<Status>(leader, "status");
    return status?.appliedIndex ?? 0;
  };
  const leads = async () => (await progress()) || null;
  for (let round = 0; round < ROUNDS; round++) {
    const from = await until("a leader", leads);
    const target = from + random.between(1, 60);
    await until("progress", async () => (await progress()) >= target);
    const victim = random.chance(0.5)
      ? ((await all.leader()) ?? raftIds[0]!)
      : random.pick(raftIds);
    await all.kill(victim);
    // Now and then the others go on without it for a while, so that it needs a snapshot.
    if (raftIds.length > 1 && random.chance(0.5)) {
      const without = await until("a leader", leads);
      await until("progress", async () => (await progress()) >= without + 400);
    }
    all.start(victim);
  }
  isOver = true;
  const results = await Promise.all(clients);
  const acknowledged = results.flatMap((result) => result.acknowledged);
  expect(acknowledged.length).toBeGreaterThan(ROUNDS);

  const contents = await until("all to be equal", async () => {
    const found = await Promise.all(raftIds.map((id) => all.ask<Content>(id, "all")));
    const isEqual = found.every((content) => content !== null && content.chain === found[0]!.chain);
    return isEqual && (found as Content[]);
  });
  for (const { keys } of contents) {
    const there = new Set(keys.map(({ key }) => key));
    expect(acknowledged.filter((key) => !there.has(key))).toEqual([]);
  }
}

test("one node, killed again and again", async () => {
  await withSeed(import.meta.path, (random) => killing(random, ["n1"]));
}, 120_000);

test("three nodes, one killed again and again, mostly the leader", async () => {
  await withSeed(import.meta.path, (random) => killing(random, ["n1", "n2", "n3"]));
}, 120_000);
