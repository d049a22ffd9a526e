/** What happens to a simulated cluster: partitions, crashes, power losses, lost disks, changes of the members. */
import type { SimCluster } from "../../support/raft/sim-cluster.ts";
import type { CrashPoint } from "../../support/raft/sim-database.ts";
import type { SimMember } from "../../support/raft/sim-member.ts";
import { quietNetwork } from "../../support/raft/sim-network.ts";

const PAUSE_MAX_MS = 6_000;
const OPERATOR_MS = 700;

function shuffled<T>(items: readonly T[], below: (end: number) => number): T[] {
  const all = [...items];
  for (let at = all.length - 1; at > 0; at--) {
    const other = below(at + 1);
    [all[at], all[other]] = [all[other]!, all[at]!];
  }
  return all;
}

export class Trouble {
  readonly #cluster: SimCluster;
  /** Who should be in the cluster. An operator works towards it. */
  wanted: string[];
  #nextId: number;
  readonly #size: number;
  readonly #lost = new Set<string>();
  isOver = false;
  readonly counts = new Map<string, number>();

  constructor(cluster: SimCluster, raftIds: readonly string[]) {
    this.#cluster = cluster;
    this.wanted = [...raftIds];
    this.#size = raftIds.length;
    this.#nextId = raftIds.length + 1;
    const { random, network } = cluster;
    network.faults = {
      loss: random.pick([0, 0.01, 0.05, 0.2]),
      duplication: random.pick([0, 0.02, 0.1]),
      delayMinMs: 1,
      delayMaxMs: random.pick([5, 30, 120]),
      snapshotLoss: random.pick([0, 0.3]),
    };
    cluster.note(`network ${JSON.stringify(network.faults)}`);
    this.#next();
    this.#operate();
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  #next(): void {
    const { time, random } = this.#cluster;
    time.after(200 + random.next() * 1_500, () => {
      if (this.isOver) return;
      this.#strike();
      this.#next();
    });
  }

  #strike(): void {
    const { random } = this.#cluster;
    const kinds: [weight: number, strike: () => void][] = [
      [5, () => this.#partition()],
      [4, () => this.#heal()],
      [5, () => this.#crash()],
      [6, () => this.#restart()],
      [4, () => this.#blink()],
      [3, () => this.#losePower()],
      [1, () => this.#blackout()],
      [2, () => this.#pause()],
      [1, () => this.#jump()],
      [2, () => this.#transfer()],
      [1, () => this.#replaceDisk()],
      [1, () => this.#resize()],
    ];
    let left = random.below(kinds.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, strike] of kinds) {
      left -= weight;
      if (left < 0) {
        strike();
        return;
      }
    }
  }

  #partition(): void {
    const { random, network, members } = this.#cluster;
    const ids = shuffled([...members.keys()], (end) => random.below(end));
    const cut = random.between(1, Math.max(1, ids.length - 1));
    const kind = random.pick(["halves", "one-way", "bridge", "leader"]);
    this.#count(`partition ${kind}`);
    this.#cluster.note(`partition ${kind}: ${ids.slice(0, cut)} | ${ids.slice(cut)}`);
    const cutBoth = (a: string, b: string) => {
      network.cut(a, b);
      network.cut(b, a);
    };
    const leader = this.#cluster.leader()?.raftId ?? ids[0]!;
    for (const a of ids.slice(0, cut)) {
      for (const b of ids.slice(cut)) {
        if (kind === "halves") cutBoth(a, b);
        else if (kind === "one-way") network.cut(a, b);
        // The first of the other side still hears both.
        else if (kind === "bridge" && b !== ids[cut]) cutBoth(a, b);
      }
    }
    if (kind !== "leader") return;
    const isDeaf = random.chance(0.5);
    for (const id of ids) {
      if (id === leader) continue;
      if (isDeaf) network.cut(id, leader);
      else cutBoth(id, leader);
    }
  }

  #heal(): void {
    this.#cluster.note("partitions end");
    this.#cluster.network.heal();
  }

  #randomRunning(): SimMember | null {
    const running = this.#cluster.running();
    return running.length === 0 ? null : this.#cluster.random.pick(running);
  }

  #crash(): void {
    const { random } = this.#cluster;
    const leader = random.chance(0.4) ? this.#cluster.leader() : null;
    const member = leader ?? this.#randomRunning();
    if (member === null) return;
    const point = random.pick<CrashPoint | "now">([
      "now",
      "in-apply",
      "before-commit",
      "after-commit",
      "before-sync",
    ]);
    this.#count(`crash ${point}`);
    this.#cluster.note(`crash of ${member.raftId}: ${point}`);
    if (point === "now") member.crash();
    else member.crashAt(point);
  }

  /** Ends and comes back at once: with the votes and the log it had, or something is wrong. */
  #blink(): void {
    const member = this.#randomRunning();
    if (member === null) return;
    this.#count("blink");
    this.#cluster.note(`${member.raftId} blinks`);
    member.crash();
    this.#restartSoon(member, 200);
  }

  /** Comes back with what its disk had. */
  #losePower(): void {
    const { random } = this.#cluster;
    const leader = random.chance(0.4) ? this.#cluster.leader() : null;
    const member = leader ?? this.#randomRunning();
    if (member !== null) this.#losePowerOf(member);
  }

  #losePowerOf(member: SimMember): void {
    const lost = member.losePower();
    this.#count(lost === 0 ? "power loss" : "power loss with commits");
    this.#cluster.note(`power loss of ${member.raftId}: ${lost} commits`);
    this.#restartSoon(member, 1_000);
  }

  /** The power of all of them fails at the same moment. */
  #blackout(): void {
    for (const member of this.#cluster.running()) this.#losePowerOf(member);
  }

  #restartSoon(member: SimMember, withinMs: number): void {
    const { random, time } = this.#cluster;
    time.after(random.next() * withinMs, () => {
      const isDown = member.node === null && !member.isRemoved && !this.#lost.has(member.raftId);
      if (isDown) member.start(false);
    });
  }

  #restart(): void {
    for (const [id, member] of this.#cluster.members) {
      if (member.node !== null || member.isRemoved || this.#lost.has(id)) continue;
      if (this.#cluster.random.chance(0.3)) continue;
      this.#count("restart");
      this.#cluster.note(`${id} starts again`);
      member.start(false);
    }
  }

  #pause(): void {
    const member = this.#randomRunning();
    const durationMs = this.#cluster.random.next() * PAUSE_MAX_MS;
    this.#count("pause");
    this.#cluster.note(`${member?.raftId} stands still for ${durationMs.toFixed(0)} ms`);
    member?.pause(durationMs);
  }

  #jump(): void {
    const member = this.#randomRunning();
    this.#count("clock jump");
    this.#cluster.note(`the clock of ${member?.raftId} jumps`);
    member?.jumpClock(this.#cluster.random.next() * 60_000);
  }

  #transfer(): void {
    const node = this.#cluster.leader()?.node;
    if (node === undefined || node === null) return;
    const to = this.#cluster.random.pick(node.status().voters);
    this.#count("transfer");
    this.#cluster.note(`leadership is to go to ${to}`);
    node.transferLeadership(to).then(
      () => this.#cluster.note(`leadership went to ${to}`),
      (error: Error) => this.#cluster.note(`leadership did not go to ${to}: ${error.message}`),
    );
  }

  #newMember(): string {
    const raftId = `n${this.#nextId++}`;
    this.#cluster.add(raftId);
    return raftId;
  }

  /** The process dies, its disk is gone: it comes back empty, as somebody else. */
  #replaceDisk(): void {
    const { random } = this.#cluster;
    // One at a time, and not one of two: a majority of lost disks is a lost cluster.
    if (!this.#isSettled() || this.wanted.length < 3) return;
    const old = random.pick(this.wanted);
    this.#cluster.member(old).crash();
    this.#lost.add(old);
    this.wanted = this.wanted.filter((id) => id !== old);
    const raftId = this.#newMember();
    this.wanted.push(raftId);
    this.#count("disk replaced");
    this.#cluster.note(`${old} lost its disk; ${raftId} takes its place`);
  }

  /** True when the members are those that are wanted, as far as the leader knows. */
  #isSettled(): boolean {
    const status = this.#cluster.leader()?.node?.status();
    return (
      status !== undefined &&
      status.learners.length === 0 &&
      status.voters.length === this.wanted.length &&
      this.wanted.every((id) => status.voters.includes(id))
    );
  }

  /** One member more, or one less that goes on running until it learns of it. */
  #resize(): void {
    const { random } = this.#cluster;
    if (
      this.wanted.length <= this.#size - 1 ||
      (this.wanted.length <= this.#size && random.chance(0.5))
    ) {
      this.wanted.push(this.#newMember());
      this.#count("member added");
    } else {
      const gone = random.pick(this.wanted);
      this.wanted = this.wanted.filter((id) => id !== gone);
      this.#count("member removed");
    }
    this.#cluster.note(`wanted now: ${this.wanted}`);
  }

  /** Looks at the leader now and then and does the next step towards the wanted members. */
  #operate(): void {
    const { time } = this.#cluster;
    time.after(OPERATOR_MS, () => {
      this.#operate();
      const leader = this.#cluster.leader();
      if (leader === null) return;
      const node = leader.node!;
      const { voters, learners } = node.status();
      const surplus = [...voters, ...learners].find((id) => !this.wanted.includes(id));
      const missing = this.wanted.find((id) => !voters.includes(id) && !learners.includes(id));
      const ignore = () => {};
      const learner = learners.find((id) => this.wanted.includes(id));
      if (learner !== undefined) node.promote(learner).then(ignore, ignore);
      else if (missing !== undefined) node.addLearner(missing, "").then(ignore, ignore);
      else if (surplus !== undefined) node.remove(surplus).then(ignore, ignore);
    });
  }

  /** Everything is repaired: who has a disk runs, and can reach everybody. */
  end(): void {
    this.isOver = true;
    this.#cluster.note("everything is repaired");
    this.#cluster.network.faults = { ...quietNetwork };
    this.#cluster.network.heal();
    for (const member of this.#cluster.members.values()) {
      member.unpause();
      member.db.crashAt = null;
      // Those to be removed may be needed for it.
      const isGone = member.isRemoved || this.#lost.has(member.raftId);
      if (!isGone && member.node === null) member.start(false);
    }
  }
}
