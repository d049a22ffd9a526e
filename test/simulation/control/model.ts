/**
 * A cluster in one thread: the planner and the steps of works over engines and a store in memory. What
 * happens next is drawn from a seed: steps, observations, operations, crashes, lost and late answers,
 * the death of the executor between any two steps. Watches that no acknowledged write is ever lost.
 */

import type {
  ClusterSettings,
  ClusterState,
  ObservedNode,
} from "../../../src/control/cluster-state.ts";
import { SubjectMemory } from "../../../src/control/executor/memory.ts";
import { type Outcome, runWork } from "../../../src/control/executor/run-work.ts";
import { kindOf, nodesOf } from "../../../src/control/executor/subjects.ts";
import { takeOver } from "../../../src/control/observer/read-engine.ts";
import type { Decision, Work } from "../../../src/control/planner/plan.ts";
import { plan, planFor } from "../../../src/control/planner/reconcile/index.ts";
import { controlRecorder } from "../../../src/control/recorder/recorder.ts";
import { settingsDefault } from "../../../src/control/service/settings.ts";
import type { EngineClient } from "../../../src/engine/rpc/client.ts";
import { TrilithError } from "../../../src/errors.ts";
import { FakeEngine, type FakeNexus, type Replica } from "../../support/control/fake-engine.ts";
import { MemoryStore } from "../../support/control/memory-store.ts";
import type { Random } from "../../support/random.ts";
import { nodeRecord } from "../../support/store-records.ts";

const START_MS = 1_700_000_000_000;

interface Active {
  readonly work: Work;
  /** Lets the next step be taken; null while one is under way. */
  go: (() => void) | null;
  outcome: Outcome | null;
}

export interface ModelOptions {
  readonly nodes: number;
  /** Chances of a call of an engine being refused, losing its answer, or taking effect later. */
  readonly trouble: number;
  readonly settings?: Partial<ClusterSettings>;
}

export class Model {
  readonly store = new MemoryStore();
  readonly engines = new Map<string, FakeEngine>();
  readonly random: Random;
  readonly trace: string[] = [];
  trouble: number;
  /** Nodes that are at work, and whose engines nobody can ask. */
  readonly unreachable = new Set<string>();
  nowMs = START_MS;
  isRecorderUp = true;
  readonly #settings: ClusterSettings;
  readonly #clients = new Map<string, EngineClient>();
  readonly #observed = new Map<string, ObservedNode>();
  readonly #active = new Map<string, Active>();
  readonly #unread = new Map<string, Set<string>>();
  readonly memory = new SubjectMemory();
  readonly #late: (() => Promise<unknown>)[] = [];
  /** Acknowledged writes by volume, and the epoch that acknowledged last. */
  readonly acknowledged = new Map<string, Set<number>>();
  readonly #epochs = new Map<string, number>();
  #writes = 0;
  #uuids = 0;

  constructor(random: Random, options: ModelOptions) {
    this.random = random;
    this.trouble = options.trouble;
    this.#settings = { ...settingsDefault, ...options.settings };
    const recorder = controlRecorder({
      store: this.store,
      forward: () => Promise.reject(new TrilithError("Unavailable", "no leader")),
      nowMs: () => this.nowMs,
      log: () => {},
    });
    const network = {
      engines: this.engines,
      recorder: {
        record: async (record: Parameters<typeof recorder.record>[0]) => {
          if (!this.isRecorderUp) throw new TrilithError("Unavailable", "the recorder is away");
          await recorder.record(record);
        },
      },
      acknowledged: (nexus: FakeNexus, write: number) => this.#acknowledge(nexus, write),
      destroying: (replica: Replica) => this.#checkDestroying(replica),
    };
    for (let i = 1; i <= options.nodes; i++) {
      const id = `node-${i}`;
      const engine = new FakeEngine(id, network);
      this.#clients.set(
        id,
        engine.client((method, run) => this.#call(id, method, run)),
      );
      this.store.seed({ table: "nodes", put: nodeRecord(id) });
      this.#observed.set(id, unknownNode(id));
    }
  }

  uuid(): string {
    this.#uuids++;
    return `00000000-0000-4000-8000-${String(this.#uuids).padStart(12, "0")}`;
  }

  log(text: string): void {
    this.trace.push(text);
    if (this.trace.length > 4_000) this.trace.splice(0, 2_000);
  }

  fail(what: string): never {
    throw new Error(`${what}\n${this.trace.slice(-Number(process.env.TRACE ?? 120)).join("\n")}`);
  }

  state(): ClusterState {
    const observed = new Map(this.#observed);
    return { nowMs: this.nowMs, settings: this.#settings, stored: this.store.view(), observed };
  }

  // ------------------------------------------------------------------------------- what is promised

  #acknowledge(nexus: FakeNexus, write: number): void {
    const { volumeUuid, epoch } = nexus;
    const highest = this.#epochs.get(volumeUuid) ?? 0;
    if (epoch < highest) this.fail(`epoch ${epoch} of ${volumeUuid} acknowledged after ${highest}`);
    this.#epochs.set(volumeUuid, epoch);
    const writes = this.acknowledged.get(volumeUuid) ?? new Set();
    this.acknowledged.set(volumeUuid, writes);
    writes.add(write);
  }

  holdsAll(replica: Replica): boolean {
    const writes = this.acknowledged.get(replica.volumeUuid) ?? new Set<number>();
    return writes.isSubsetOf(replica.holds);
  }

  #checkDestroying(replica: Replica): void {
    const volume = this.store.view().volumes.get(replica.volumeUuid);
    if (volume === undefined || volume.status === "Deleting") return;
    if (!this.holdsAll(replica)) return;
    for (const engine of this.engines.values()) {
      for (const disk of engine.disks.values()) {
        for (const other of disk.replicas.values()) {
          if (other === replica || other.volumeUuid !== replica.volumeUuid) continue;
          if (this.holdsAll(other)) return;
        }
      }
    }
    if (volume.status === "Created")
      this.fail(`the last good replica ${replica.uuid} of ${volume.uuid} is destroyed`);
  }

  // ----------------------------------------------------------------------------------------- calls

  async #call(node: string, method: string, run: () => Promise<unknown>): Promise<unknown> {
    const { random } = this;
    if (this.unreachable.has(node) || random.chance(this.trouble)) {
      this.log(`  ${node} ${method}: refused`);
      throw new TrilithError("Unavailable", `${node}: no connection`);
    }
    if (random.chance(this.trouble)) {
      const mayBeLate = method !== "createPool" && method !== "importPool";
      if (mayBeLate && random.chance(0.3)) {
        this.log(`  ${node} ${method}: late`);
        this.#late.push(run);
      } else {
        this.log(`  ${node} ${method}: answer lost`);
        await run().catch(() => {});
      }
      throw new TrilithError("Timeout", `${node}: no answer`);
    }
    return run();
  }

  async lateOne(): Promise<void> {
    if (this.#late.length === 0) return;
    const [run] = this.#late.splice(this.random.below(this.#late.length), 1);
    this.log("late call");
    await run!().catch(() => {});
  }

  async lateAll(): Promise<void> {
    while (this.#late.length > 0) await this.lateOne();
  }

  // --------------------------------------------------------------------------------- observing, doing

  observe(id: string): void {
    const engine = this.engines.get(id)!;
    const before = this.#observed.get(id)!;
    if (!engine.isUp || this.unreachable.has(id)) {
      if (before.status !== "Offline") {
        this.#observed.set(id, { ...before, status: "Offline", offlineSinceMs: this.nowMs });
      }
      for (const nodes of this.#unread.values()) nodes.delete(id);
      return;
    }
    const byKey = <T>(list: readonly T[], key: (one: T) => string) =>
      new Map(list.map((one) => [key(one), one]));
    const reading = structuredClone({
      info: engine.info(),
      pools: byKey(engine.pools(), ({ name }) => name),
      replicas: byKey(engine.replicas(), ({ uuid }) => uuid),
      snapshots: byKey(engine.snapshots(), ({ uuid }) => uuid),
      nexuses: byKey(engine.nexusList(), ({ uuid }) => uuid),
    });
    const { node } = takeOver(before, reading);
    this.#observed.set(id, {
      ...node,
      status: "Online",
      lastSeenMs: this.nowMs,
      offlineSinceMs: null,
    });
    for (const nodes of this.#unread.values()) nodes.delete(id);
  }

  observeAll(): void {
    for (const id of this.engines.keys()) this.observe(id);
  }

  subjects(): string[] {
    const { works } = plan(this.state(), this.memory.failures);
    return works.map(({ subject }) => subject);
  }

  get activeSubjects(): string[] {
    return [...this.#active.keys()];
  }

  /** Plans a subject and begins its work, unless one runs or its nodes have not been read since. */
  begin(subject: string): boolean {
    if (this.#active.has(subject)) return false;
    const unread = this.#unread.get(subject);
    if (unread !== undefined && unread.size > 0) return false;
    this.#unread.delete(subject);
    const { work } = planFor(this.state(), subject, this.memory.failures);
    if (work === null) {
      this.memory.rested(subject);
      return false;
    }
    const active: Active = { work, go: null, outcome: null };
    this.#active.set(subject, active);
    const running = runWork(work, {
      store: this.store,
      engine: (id) => this.#clients.get(id)!,
      log: (level, text, fields) => {
        const { call, store, reason, error } = fields ?? {};
        if (level !== "debug")
          this.log(`  ${subject}: ${text}: ${call ?? store} (${reason}) ${error ?? ""}`);
      },
      signal: new AbortController().signal,
      monotonicMs: () => this.nowMs,
      requestId: undefined,
      beforeStep: () =>
        new Promise<void>((resolve) => {
          active.go = resolve;
        }),
    });
    void running.then((outcome) => {
      active.outcome = outcome;
    });
    return true;
  }

  /** One step of a work; ends it when that was the last. */
  async advance(subject: string): Promise<void> {
    const active = this.#active.get(subject);
    if (active === undefined) return;
    while (active.go === null && active.outcome === null) await Promise.resolve();
    const { go } = active;
    active.go = null;
    go?.();
    while (active.go === null && active.outcome === null) await Promise.resolve();
    if (active.outcome === null) return;
    this.#active.delete(subject);
    const { work, outcome } = active;
    if (outcome.kind === "failed") {
      this.memory.failed(subject, kindOf(work), outcome.error, this.nowMs);
    } else if (outcome.kind === "done") this.memory.succeeded(subject, kindOf(work), this.nowMs);
    const nodes = nodesOf(work);
    if (nodes.size > 0) this.#unread.set(subject, new Set(nodes));
  }

  async finish(subject: string): Promise<void> {
    while (this.#active.has(subject)) await this.advance(subject);
    for (const id of this.#unread.get(subject) ?? []) this.observe(id);
  }

  /** The executor dies between two steps; another begins and knows nothing. */
  killExecutor(): void {
    this.log("executor killed");
    this.#active.clear();
    this.#unread.clear();
    this.memory.clear();
    for (const id of this.engines.keys()) this.#observed.set(id, unknownNode(id));
  }

  // ------------------------------------------------------------------------------ hosts and operations

  nexuses(): { engine: FakeEngine; nexus: FakeNexus }[] {
    return [...this.engines.values()].flatMap((engine) =>
      engine.isUp ? [...engine.nexuses.values()].map((nexus) => ({ engine, nexus })) : [],
    );
  }

  async write(): Promise<void> {
    const all = this.nexuses();
    if (all.length === 0) return;
    const { engine, nexus } = this.random.pick(all);
    if (nexus.share !== null) await engine.write(nexus, ++this.#writes);
    else await engine.settle(nexus);
  }

  async rebuild(): Promise<void> {
    const all = this.nexuses();
    if (all.length === 0) return;
    const { engine, nexus } = this.random.pick(all);
    await engine.rebuildOne(nexus);
  }

  /** Decides an operation of the API. True: it was accepted. */
  decide(what: string, decide: (state: ClusterState) => Decision): boolean {
    try {
      const { changes } = decide(this.state());
      if (changes.length > 0) this.store.seed(...changes);
      this.log(`decided: ${what}`);
      return true;
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      return false;
    }
  }
}

function unknownNode(id: string): ObservedNode {
  return {
    id,
    status: "Unknown",
    lastSeenMs: null,
    offlineSinceMs: null,
    info: null,
    pools: new Map(),
    replicas: new Map(),
    snapshots: new Map(),
    nexuses: new Map(),
  };
}
