/**
 * Reads that wait for raft's ReadIndex. One question to the leader answers all that were waiting when
 * it was asked; a question without an answer is asked again.
 */
import { TrilithError } from "../../errors.ts";

interface Read {
  /** Any question with at least this number was asked after the read began. */
  readonly question: number;
  readonly deadlineMs: number;
  readonly resolve: (index: number) => void;
  readonly reject: (error: TrilithError) => void;
  /** What must be applied here; null until a leader has answered. */
  index: number | null;
}

export class Reads {
  #reads: Read[] = [];
  readonly #prefix: string;
  #lastQuestion = 0;

  /** `prefix` is this life of this node: answers meant for an earlier one do not count. */
  constructor(prefix: string) {
    this.#prefix = `${prefix}/`;
  }

  get count(): number {
    return this.#reads.length;
  }

  /** A read that begins now. */
  add(read: Omit<Read, "question" | "index">): void {
    this.#reads.push({ ...read, question: this.#lastQuestion + 1, index: null });
  }

  /** True when there is a read that no question was asked for. */
  get isQuestionDue(): boolean {
    return this.#reads.some((read) => read.index === null && read.question > this.#lastQuestion);
  }

  /** True when a read waits for an answer, asked for or not. */
  get isUnanswered(): boolean {
    return this.#reads.some((read) => read.index === null);
  }

  /** The context of a new question. */
  ask(): string {
    return `${this.#prefix}${++this.#lastQuestion}`;
  }

  /** The leader's answer: everything up to `index` was committed when it was asked. */
  answered(context: unknown, index: number): void {
    if (typeof context !== "string" || !context.startsWith(this.#prefix)) return;
    const question = Number(context.slice(this.#prefix.length));
    for (const read of this.#reads) {
      if (read.index === null && read.question <= question) read.index = index;
    }
  }

  /** Ends those whose index is applied. */
  applied(index: number): void {
    const isDone = (read: Read) => read.index !== null && read.index <= index;
    if (!this.#reads.some(isDone)) return;
    const done = this.#reads.filter(isDone);
    this.#reads = this.#reads.filter((read) => !isDone(read));
    for (const read of done) read.resolve(index);
  }

  expire(nowMs: number): void {
    this.#end((read) => read.deadlineMs <= nowMs, "no leader has answered in time");
  }

  /** Refuses all; the node ends. */
  end(why: string): void {
    this.#end(() => true, why);
  }

  #end(isMeant: (read: Read) => boolean, why: string): void {
    const meant = this.#reads.filter(isMeant);
    if (meant.length === 0) return;
    this.#reads = this.#reads.filter((read) => !isMeant(read));
    for (const read of meant) {
      const remedy = "check that a majority of the nodes runs and can reach each other";
      read.reject(new TrilithError("Unavailable", `no up-to-date read: ${why}`, remedy));
    }
  }
}
