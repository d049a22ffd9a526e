/**
 * A member's file in a simulation: SQLite in memory that keeps what a disk would have. Its process dies
 * at a chosen moment of a transaction, and its power fails: transactions that were not brought to the disk
 * are lost then, some or all of them, the last ones first.
 */
import { Database } from "bun:sqlite";

/** Where the next transaction of a member ends its process. */
export type CrashPoint = "in-apply" | "before-commit" | "after-commit" | "before-sync";

export class Crash extends Error {}

export class SimDatabase extends Database {
  crashAt: CrashPoint | null = null;
  #commitsSync = true;
  /** The file after each commit: the first is on the disk, the others are not. */
  #images: Buffer[] = [this.serialize()];
  /** Commits of which the images are gone. */
  #forgotten = 0;

  crashIf(point: CrashPoint): void {
    if (this.crashAt !== point) return;
    this.crashAt = null;
    throw new Crash(point);
  }

  override run(...statement: Parameters<Database["run"]>): ReturnType<Database["run"]> {
    const [text] = statement;
    if (text !== "COMMIT") {
      const result = super.run(...statement);
      if (text.startsWith("PRAGMA synchronous")) {
        this.#commitsSync = text.endsWith("FULL");
        // What was written so far outside of transactions came to the disk by itself.
        if (!this.#commitsSync) this.#isOnDisk();
      }
      return result;
    }
    this.crashIf("before-commit");
    const result = super.run(...statement);
    if (this.#commitsSync) this.#isOnDisk();
    else this.#images.push(this.serialize());
    this.crashIf("after-commit");
    return result;
  }

  #isOnDisk(): void {
    this.#forgotten += this.#images.length;
    this.#images = [this.serialize()];
  }

  /** Begins to bring everything that is committed to the disk; what is returned says that it is there. */
  sync(): () => void {
    this.crashIf("before-sync");
    const last = this.#forgotten + this.#images.length - 1;
    return () => {
      const gone = last - this.#forgotten;
      if (gone <= 0) return;
      this.#images.splice(0, gone);
      this.#forgotten += gone;
    };
  }

  /** Commits that are not on the disk. */
  get unsyncedCount(): number {
    return this.#images.length - 1;
  }

  /** The file as it is found when the power comes back, without the last `lost` unsynced commits. */
  afterPowerLoss(lost: number): SimDatabase {
    return new SimDatabase(this.#images.at(-1 - lost) as unknown as string);
  }
}
