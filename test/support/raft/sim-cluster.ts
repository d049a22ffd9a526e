/**
 * A cluster in a simulation, and what must hold in it at every moment: one leader per term, the same
 * command at each index, the same state after it, nothing acknowledged that is not in the log.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RaftLimits } from "../../../src/control/raft/limits.ts";
import { Random } from "../random.ts";
import { kvChain } from "./kv-machine.ts";
import { SimMember, type SimSetting } from "./sim-member.ts";
import { SimNetwork } from "./sim-network.ts";
import { SimTime } from "./sim-time.ts";

const NOTES_MAX = 400;

export interface SimClusterOptions {
  readonly seed: number;
  readonly limits?: Partial<RaftLimits>;
  readonly onSend?: SimSetting["onSend"];
}

export class SimCluster {
  readonly time = new SimTime();
  readonly random: Random;
  readonly network: SimNetwork;
  readonly members = new Map<string, SimMember>();
  readonly notes: string[] = [];
  /** By index: the command that was applied there, by whoever was first. */
  readonly commands = new Map<number, string>();
  readonly #chains = new Map<number, string>();
  readonly #leaders = new Map<number, string>();
  readonly #folder = mkdtempSync(join(tmpdir(), "trilith-raft-sim-"));
  readonly setting: SimSetting;
  #failure: Error | null = null;
  #noted = 0;

  constructor(options: SimClusterOptions) {
    this.random = new Random(options.seed);
    this.network = new SimNetwork(this.time, this.random);
    this.setting = {
      time: this.time,
      random: this.random,
      network: this.network,
      folder: this.#folder,
      limits: options.limits ?? {},
      members: this.members,
      note: (text) => this.note(text),
      fail: (error) => this.fail(error),
      watcherOf: (raftId) => ({
        applying: (index, command) => this.#applying(raftId, index, command),
        reached: (index, chain) => this.#reached(raftId, index, chain),
      }),
      ...(options.onSend === undefined ? {} : { onSend: options.onSend }),
    };
  }

  note(text: string): void {
    this.#noted++;
    this.notes.push(`${this.time.nowMs.toFixed(0).padStart(7)} ${text}`);
    if (this.notes.length > NOTES_MAX) this.notes.shift();
  }

  /** A number that stands for everything that happened: equal for equal seeds. */
  get trace(): string {
    const last = Math.max(0, ...this.#chains.keys());
    return `${this.time.eventCount} ${this.network.sent} ${this.#noted} ${last} ${this.#chains.get(last)}`;
  }

  fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
  }

  #applying(raftId: string, index: number, command: string): void {
    const known = this.commands.get(index);
    if (known === undefined) this.commands.set(index, command);
    else if (known !== command) {
      this.fail(new Error(`${raftId} applies ${command} at ${index}, where another had ${known}`));
    }
  }

  #reached(raftId: string, index: number, chain: string): void {
    const known = this.#chains.get(index);
    if (known === undefined) this.#chains.set(index, chain);
    else if (known !== chain) this.fail(new Error(`${raftId} has another state at ${index}`));
  }

  add(raftId: string, bootstrap = false): SimMember {
    const member = new SimMember(this.setting, raftId);
    member.start(bootstrap);
    return member;
  }

  member(raftId: string): SimMember {
    return this.members.get(raftId)!;
  }

  /** Members whose process runs. */
  running(): SimMember[] {
    return [...this.members.values()].filter((member) => member.node !== null);
  }

  /** The running leader of the highest term. */
  leader(): SimMember | null {
    let found: SimMember | null = null;
    for (const member of this.running()) {
      const status = member.node!.status();
      if (status.role !== "leader") continue;
      if (found === null || status.term > found.node!.status().term) found = member;
    }
    return found;
  }

  #check(): void {
    for (const member of this.running()) {
      const { role, term } = member.node!.status();
      if (role !== "leader") continue;
      const known = this.#leaders.get(term);
      if (known === undefined) {
        this.#leaders.set(term, member.raftId);
        this.note(`${member.raftId} leads term ${term}`);
      } else if (known !== member.raftId) {
        this.fail(new Error(`${known} and ${member.raftId} lead term ${term}`));
      }
    }
  }

  /** Lets time pass; throws what went wrong meanwhile. */
  run(durationMs: number, isDone: () => boolean = () => false): boolean {
    const isReached = this.time.run(durationMs, () => {
      this.#check();
      return this.#failure !== null || isDone();
    });
    if (this.#failure !== null) throw this.#failure;
    return isReached;
  }

  /** Lets time pass until a promise is settled; throws what it was rejected with. */
  await<T>(promise: Promise<T>, durationMs = 60_000): T {
    let outcome: { value: T } | { error: unknown } | null = null;
    promise.then(
      (value) => {
        outcome = { value };
      },
      (error) => {
        outcome = { error };
      },
    );
    this.run(durationMs, () => outcome !== null);
    const settled = outcome as { value: T } | { error: unknown } | null;
    if (settled === null) throw new Error("not settled in time");
    if ("error" in settled) throw settled.error;
    return settled.value;
  }

  /** True when `raftIds` all run, are the voters, and have applied the same as the leader has. */
  isConverged(raftIds: readonly string[]): boolean {
    const leader = this.leader();
    if (leader === null) return false;
    const { appliedIndex, commitIndex, voters, learners } = leader.node!.status();
    const isAsMeant =
      learners.length === 0 &&
      voters.length === raftIds.length &&
      raftIds.every((id) => voters.includes(id));
    if (!isAsMeant || commitIndex !== appliedIndex) return false;
    const chain = kvChain(leader.db);
    return raftIds.every((id) => {
      const member = this.member(id);
      return member.node?.status().appliedIndex === appliedIndex && kvChain(member.db) === chain;
    });
  }

  /**
   * A cluster of these voters, the first of which begins it. Time passes until it stands.
   */
  form(raftIds: readonly string[]): void {
    const first = this.add(raftIds[0]!, true);
    this.run(5_000, () => first.node!.status().role === "leader");
    for (const raftId of raftIds.slice(1)) {
      this.add(raftId);
      this.await(first.node!.addLearner(raftId, `context of ${raftId}`));
      this.await(first.node!.promote(raftId));
    }
    if (!this.run(10_000, () => this.isConverged(raftIds)))
      throw new Error("no cluster was formed");
  }

  close(): void {
    for (const member of this.running()) member.crash();
    for (const { db } of this.members.values()) db.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
