/** Clients of a simulated cluster: they write, swap and read a few registers, and remember what they saw. */
import { TrilithError } from "../../../src/errors.ts";
import { type KvCommand, kvGet } from "../../support/raft/kv-machine.ts";
import { isLinearizable, type RegisterOperation } from "../../support/raft/linearizability.ts";
import type { SimCluster } from "../../support/raft/sim-cluster.ts";
import type { SimMember } from "../../support/raft/sim-member.ts";

const TIMEOUT_MS = 3_000;
const THINK_MAX_MS = 400;
const KEYS = ["a", "b", "c", "d"];

interface Acknowledged {
  readonly index: number;
  readonly command: string;
}

type Recorded = RegisterOperation & { readonly key: string };

export class Clients {
  readonly #cluster: SimCluster;
  readonly history: Recorded[] = [];
  readonly #acknowledged: Acknowledged[] = [];
  /** Calls and returns in their order; a moment of simulated time may hold several. */
  #sequence = 0;
  #nextValue = 1;
  isStopped = false;
  readonly counts = { done: 0, refused: 0, unknown: 0, reads: 0 };

  constructor(cluster: SimCluster, count: number) {
    this.#cluster = cluster;
    for (let client = 0; client < count; client++) this.#think();
  }

  #think(): void {
    const { time, random } = this.#cluster;
    time.after(random.next() * THINK_MAX_MS, () => {
      if (!this.isStopped) this.#act();
    });
  }

  /** Any member that runs: mostly the leader, or who takes itself for it. */
  #target(): SimMember | null {
    const { random } = this.#cluster;
    const running = this.#cluster.running();
    if (running.length === 0) return null;
    const leaders = running.filter((member) => member.node!.status().role === "leader");
    return leaders.length > 0 && random.chance(0.8) ? random.pick(leaders) : random.pick(running);
  }

  #act(): void {
    const { random } = this.#cluster;
    const member = this.#target();
    const key = random.pick(KEYS);
    if (member === null) this.#think();
    else if (random.chance(0.4)) this.#read(member, key);
    else this.#write(member, key);
  }

  #read(member: SimMember, key: string): void {
    const node = member.node!;
    const callAt = ++this.#sequence;
    const forget = member.onEnd(() => this.#think());
    node.readIndex(TIMEOUT_MS).then(
      () => {
        if (member.node !== node) return;
        const result = kvGet(member.db, key);
        this.history.push({ kind: "read", key, result, callAt, returnAt: ++this.#sequence });
        this.counts.reads++;
        forget();
        this.#think();
      },
      () => {
        if (forget()) this.#think();
      },
    );
  }

  #write(member: SimMember, key: string): void {
    const { random } = this.#cluster;
    const value = `v${this.#nextValue++}`;
    const known = [...this.history].reverse().find((op) => op.key === key && op.kind === "read");
    const from = String(known?.result ?? "");
    const command: KvCommand = random.chance(0.4)
      ? { op: "cas", key, from, value }
      : { op: "set", key, value };
    const callAt = ++this.#sequence;
    const record = (returnAt: number, result?: boolean) => {
      const outcome = result === undefined ? {} : { result };
      const what = command.op === "cas" ? { from } : {};
      this.history.push({ kind: command.op, key, value, ...what, ...outcome, callAt, returnAt });
    };
    const unknown = () => {
      record(Number.POSITIVE_INFINITY);
      this.counts.unknown++;
      this.#think();
    };
    const text = JSON.stringify(command);
    // A caller whose node dies never learns what became of its request.
    const forget = member.onEnd(unknown);
    member.node!.propose(text, TIMEOUT_MS).then(
      ({ index, result }) => {
        if (!forget()) return;
        record(++this.#sequence, result === true);
        this.#acknowledged.push({ index, command: text });
        this.counts.done++;
        this.#think();
      },
      (error: unknown) => {
        if (!forget()) return;
        if (!(error instanceof TrilithError)) throw error;
        if (error.code === "Timeout") {
          unknown();
          return;
        }
        // `Unavailable`: it certainly has no effect. The history leaves it out, so one is found out.
        this.counts.refused++;
        this.#think();
      },
    );
  }

  /** Throws when an answer was wrong: a command lost, or a history that no order explains. */
  check(): void {
    for (const { index, command } of this.#acknowledged) {
      const applied = this.#cluster.commands.get(index);
      if (applied !== command) throw new Error(`${command} was acknowledged; ${index}: ${applied}`);
    }
    for (const key of KEYS) {
      const history = this.history.filter((operation) => operation.key === key);
      if (isLinearizable(history)) continue;
      const lines = history.map((operation) => JSON.stringify(operation)).join("\n");
      throw new Error(`the history of ${key} is not linearizable:\n${lines}`);
    }
  }
}
