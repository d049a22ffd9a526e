/**
 * One member in a simulation: its file (SQLite in memory, which survives a crash of the process as far as
 * it was committed, and a power loss as far as it was brought to the disk), its process, which can crash at
 * any transaction and stand still, and its clock.
 */
import { copyFileSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { RaftClock } from "../../../src/control/raft/clock.ts";
import type { Disk } from "../../../src/control/raft/disk.ts";
import type { RaftLimits } from "../../../src/control/raft/limits.ts";
import type { RaftNode, RaftTransport } from "../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import type { Random } from "../random.ts";
import { createKvTables, type KvWatcher, kvMachine } from "./kv-machine.ts";
import { Crash, type CrashPoint, SimDatabase } from "./sim-database.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { SimTime } from "./sim-time.ts";

/** How long a disk takes, mostly; and how long one in `SLOW_SYNC_CHANCE` does. */
const SYNC_MAX_MS = 4;
const SLOW_SYNC_MAX_MS = 400;
const SLOW_SYNC_CHANCE = 0.03;

export interface SimSetting {
  readonly time: SimTime;
  readonly random: Random;
  readonly network: SimNetwork;
  readonly folder: string;
  readonly limits: Partial<RaftLimits>;
  readonly members: Map<string, SimMember>;
  /** Told of everything that is worth reading when a run has failed. */
  readonly note: (text: string) => void;
  /** Called when a member cannot go on for another reason than a simulated crash. */
  readonly fail: (error: unknown) => void;
  readonly watcherOf: (raftId: string) => KvWatcher;
  /** Told of each message that leaves; for transcripts. */
  readonly onSend?: (from: string, to: string, bytes: Uint8Array) => void;
}

/** A process: when it ends, whatever it has set up never happens. */
interface Life {
  isOver: boolean;
  readonly onEnd: Set<() => void>;
}

export class SimMember {
  readonly raftId: string;
  #db = new SimDatabase(":memory:");
  readonly #setting: SimSetting;
  #life: Life = { isOver: true, onEnd: new Set() };
  #node: RaftNode | null = null;
  #clockOffsetMs = 0;
  #pausedUntilMs = 0;
  #files = 0;
  isRemoved = false;
  restarts = 0;

  constructor(setting: SimSetting, raftId: string) {
    this.raftId = raftId;
    this.#setting = setting;
    createKvTables(this.#db);
    setting.members.set(raftId, this);
  }

  get db(): SimDatabase {
    return this.#db;
  }

  get node(): RaftNode | null {
    return this.#node;
  }

  /** Jumps ahead, as after a suspension. */
  jumpClock(byMs: number): void {
    this.#clockOffsetMs += byMs;
  }

  /** Stands still: nothing runs, what arrives waits. */
  pause(durationMs: number): void {
    this.#pausedUntilMs = this.#setting.time.nowMs + durationMs;
    this.jumpClock(0);
  }

  unpause(): void {
    this.#pausedUntilMs = 0;
  }

  /** Calls when the process ends; what is returned takes that back, and is false when it is too late. */
  onEnd(call: () => void): () => boolean {
    const { onEnd } = this.#life;
    onEnd.add(call);
    return () => onEnd.delete(call);
  }

  /** Runs something of this process after a while, when it still lives then and does not stand still. */
  #later(life: Life, delayMs: number, run: () => void): void {
    const { time } = this.#setting;
    time.after(delayMs, () => {
      if (life.isOver) return;
      const waitMs = this.#pausedUntilMs - time.nowMs;
      if (waitMs > 0) this.#later(life, waitMs, run);
      else run();
    });
  }

  #clock(life: Life): RaftClock {
    const { time, random } = this.#setting;
    return {
      nowMs: () => time.nowMs + this.#clockOffsetMs,
      every: (intervalMs, call) => {
        let isEnded = false;
        const again = () => {
          if (isEnded) return;
          call();
          this.#later(life, intervalMs * (0.9 + random.next() * 0.2), again);
        };
        this.#later(life, random.next() * intervalMs, again);
        return () => {
          isEnded = true;
        };
      },
      soon: (call) => this.#later(life, random.next(), call),
    };
  }

  #disk(life: Life): Disk {
    const { random } = this.#setting;
    return {
      sync: (done) => {
        const isThere = this.#db.sync();
        const isSlow = random.chance(SLOW_SYNC_CHANCE);
        this.#later(life, random.next() * (isSlow ? SLOW_SYNC_MAX_MS : SYNC_MAX_MS), () => {
          isThere();
          done(null);
        });
      },
      close: () => {},
    };
  }

  #transport(life: Life): RaftTransport {
    const { network, members } = this.#setting;
    return {
      send: (to, bytes) => {
        if (life.isOver) return;
        this.#setting.onSend?.(this.raftId, to, bytes);
        network.carry(this.raftId, to, () => members.get(to)?.arrive(bytes));
      },
      sendSnapshot: (to, message, path) =>
        new Promise((resolve, reject) => {
          // Read at once: the file goes away when its sender dies.
          const copy = this.#newFile();
          copyFileSync(path, copy);
          this.#carrySnapshot(to, message, copy, life, resolve, reject);
        }),
    };
  }

  #newFile(): string {
    return join(this.#setting.folder, `${this.raftId}-${++this.#files}-wire.db`);
  }

  #carrySnapshot(
    to: string,
    message: Uint8Array,
    copy: string,
    life: Life,
    resolve: () => void,
    reject: (error: Error) => void,
  ): void {
    const { network, random, time, members } = this.#setting;
    const isLost = random.chance(network.faults.snapshotLoss);
    const isDamaged = random.chance(network.faults.snapshotLoss);
    this.#setting.onSend?.(this.raftId, to, message);
    const answer = (error: unknown) => {
      rmSync(copy, { force: true });
      this.#later(life, network.delay(), () =>
        error === null ? resolve() : reject(error as Error),
      );
    };
    time.after(network.delay() * 5, () => {
      const node = members.get(to)?.node ?? null;
      if (isLost || node === null || network.isCut(this.raftId, to)) {
        answer(new Error("lost"));
        return;
      }
      if (isDamaged) truncateSync(copy, 4096);
      const unlisten = members.get(to)!.onEnd(() => answer(new Error("receiver died")));
      const answerOnce = (error: unknown) => {
        unlisten();
        answer(error);
      };
      node.receiveSnapshot(message, copy).then(() => answerOnce(null), answerOnce);
    });
  }

  /** A message has come. */
  arrive(bytes: Uint8Array): void {
    this.#later(this.#life, 0, () => this.#node?.receive(bytes));
  }

  start(bootstrap: boolean): void {
    const { random, limits } = this.#setting;
    const life: Life = { isOver: false, onEnd: new Set() };
    this.#life = life;
    this.restarts++;
    const watcher = this.#setting.watcherOf(this.raftId);
    this.#node = openRaftNode({
      raftId: this.raftId,
      db: this.db,
      folder: join(this.#setting.folder, this.raftId),
      stateMachine: kvMachine({
        ...watcher,
        reached: (index, chain) => {
          watcher.reached?.(index, chain);
          this.db.crashIf("in-apply");
        },
      }),
      transport: this.#transport(life),
      limits,
      clock: this.#clock(life),
      disk: this.#disk(life),
      random: () => random.next(),
      onRemoved: () => {
        this.isRemoved = true;
        this.#setting.note(`${this.raftId} has learnt that it was removed`);
        this.crash();
      },
      onFailure: (error) => {
        if (!(error instanceof Crash)) this.#setting.fail(error);
        this.#setting.note(
          `${this.raftId} crashed ${error instanceof Crash ? error.message : error}`,
        );
        this.crash();
      },
      ...(bootstrap ? { bootstrap: { context: `context of ${this.raftId}` } } : {}),
    });
  }

  /** The process ends now. What was committed stays. */
  crash(): void {
    this.#life.isOver = true;
    this.#node = null;
    this.db.crashAt = null;
    for (const call of [...this.#life.onEnd]) call();
    this.#life.onEnd.clear();
  }

  /** The process ends now, and up to all that is not on the disk is lost. Returns how many commits were. */
  losePower(): number {
    this.crash();
    const lost = this.#setting.random.below(this.#db.unsyncedCount + 1);
    const before = this.#db;
    this.#db = before.afterPowerLoss(lost);
    before.close();
    return lost;
  }

  /** The process ends at the next transaction; at which point of it is said. */
  crashAt(point: CrashPoint): void {
    this.db.crashAt = point;
  }
}
