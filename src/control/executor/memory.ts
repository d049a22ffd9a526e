/** What the executor remembers of subjects: failures, and when each may be tried again. */
import type { TrilithError } from "../../errors.ts";
import type { Failures, SubjectFailure } from "../planner/reconcile/index.ts";
import type { StepFailure } from "../service/ports.ts";
import {
  FAILURES_MAX,
  REPEAT_MAX_MS,
  REPEAT_MIN_MS,
  REPEATS_FREE,
  RETRY_MAX_MS,
  RETRY_MIN_MS,
} from "./limits.ts";

interface Attempts {
  /** Failures in a row. */
  failures: number;
  /** What was done last, and how often in a row although it had succeeded. */
  kind: string;
  repeats: number;
  /** Not before, by the monotonic clock. */
  notBeforeMs: number;
}

export class SubjectMemory {
  readonly #attempts = new Map<string, Attempts>();
  /** What the planner is told. */
  readonly #failures = new Map<string, SubjectFailure>();
  /** What operations that wait are told. */
  readonly #told = new Map<string, StepFailure & { readonly isFinal: boolean }>();
  #sequence = 0;

  get failures(): Failures {
    return this.#failures;
  }

  lastFailure(subject: string): StepFailure | null {
    return this.#told.get(subject) ?? null;
  }

  /** When the subject may be worked on; in the past when it may now. */
  notBeforeMs(subject: string): number {
    return this.#attempts.get(subject)?.notBeforeMs ?? 0;
  }

  /** Lets it be tried at once. */
  hurry(subject: string): void {
    const attempts = this.#attempts.get(subject);
    if (attempts !== undefined) attempts.notBeforeMs = 0;
  }

  hurryAll(): void {
    for (const attempts of this.#attempts.values()) attempts.notBeforeMs = 0;
  }

  failed(subject: string, kind: string, error: TrilithError, nowMs: number): void {
    const attempts = this.#of(subject);
    const delayMs = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** attempts.failures);
    attempts.failures++;
    attempts.kind = kind;
    attempts.notBeforeMs = nowMs + delayMs;
    const { code, message, remedy } = error;
    this.#failures.set(subject, { code, message, remedy });
    this.#tell(subject, error, false);
  }

  succeeded(subject: string, kind: string, nowMs: number): void {
    const attempts = this.#of(subject);
    attempts.repeats = attempts.kind === kind ? attempts.repeats + 1 : 0;
    attempts.kind = kind;
    attempts.failures = 0;
    const slow = attempts.repeats - REPEATS_FREE;
    attempts.notBeforeMs =
      slow < 0 ? 0 : nowMs + Math.min(REPEAT_MAX_MS, REPEAT_MIN_MS * 2 ** slow);
    this.#failures.delete(subject);
    if (this.#told.get(subject)?.isFinal === false) this.#told.delete(subject);
  }

  /** What was asked for is given up. */
  gaveUp(subject: string, error: TrilithError): void {
    this.#tell(subject, error, true);
  }

  /** There is nothing to do for it. */
  rested(subject: string): void {
    this.#attempts.delete(subject);
    this.#failures.delete(subject);
    if (this.#told.get(subject)?.isFinal === false) this.#told.delete(subject);
  }

  clear(): void {
    this.#attempts.clear();
    this.#failures.clear();
    this.#told.clear();
  }

  #of(subject: string): Attempts {
    let attempts = this.#attempts.get(subject);
    if (attempts === undefined) {
      attempts = { failures: 0, kind: "", repeats: 0, notBeforeMs: 0 };
      this.#attempts.set(subject, attempts);
    }
    return attempts;
  }

  #tell(subject: string, error: TrilithError, isFinal: boolean): void {
    this.#sequence++;
    this.#told.delete(subject); // So that it becomes the newest.
    this.#told.set(subject, { sequence: this.#sequence, error, isFinal });
    if (this.#told.size <= FAILURES_MAX) return;
    const oldest = this.#told.keys().next().value;
    if (oldest !== undefined) this.#told.delete(oldest);
  }
}
