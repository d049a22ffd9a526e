/**
 * Waiting for what an operation began: until records and observation say that it is done, or that it
 * will not be. Looks again whenever one of them has changed, never after a time.
 */
import { type ErrorCode, TrilithError } from "../../errors.ts";
import type { ClusterState } from "../cluster-state.ts";
import type { Store } from "../store/store.ts";
import type { Execution, Observation, StepFailure } from "./ports.ts";

/** How far something is. `rolledBack`: it was given up, and its end is waited for. */
export type Progress<T> =
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "failed"; readonly error: TrilithError }
  | { readonly kind: "rolledBack"; readonly isOver: boolean }
  | { readonly kind: "waiting" };

export const waiting: Progress<never> = { kind: "waiting" };

export function done(): Progress<void>;
export function done<T>(value: T): Progress<T>;
export function done<T>(value?: T): Progress<T | undefined> {
  return { kind: "done", value };
}

export function failed(code: ErrorCode, what: string, remedy = ""): Progress<never> {
  return { kind: "failed", error: new TrilithError(code, what, remedy) };
}

export interface Goal<T> {
  /** What is brought about, for people: `creation of volume 0f…`. */
  readonly what: string;
  readonly timeoutMs: number;
  /** Whose failures keep it from coming about. */
  readonly subjects: (state: ClusterState) => readonly string[];
  readonly progress: (state: ClusterState) => Progress<T>;
  /** A failure that will not pass ends the waiting. False: it is left to the planner to give up. */
  readonly endsOnFailure: boolean;
}

export interface WaitParts {
  readonly store: Store;
  readonly observation: Observation;
  readonly execution: Execution;
  readonly state: () => ClusterState;
  /** Fires when the service ends. */
  readonly ending: AbortSignal;
}

/** Codes that may mean "not yet": another step or somebody else may change that. Others last. */
const passingCodes: ReadonlySet<ErrorCode> = new Set([
  "Unavailable",
  "Timeout",
  "DeadlineExceeded",
  "Aborted",
  "InUse",
  "Conflict",
  "ResourceExhausted",
  "FailedPrecondition",
  "NotFound",
]);

/** Sequence numbers of the failures that were there before, by subject. */
export type FailureMarks = ReadonlyMap<string, number>;

/** The failures that `goal` is not to be blamed for. */
export function markFailures(parts: WaitParts, goal: Goal<unknown>): FailureMarks {
  const marks = new Map<string, number>();
  for (const subject of goal.subjects(parts.state())) {
    const failure = parts.execution.lastFailure(subject);
    if (failure !== null) marks.set(subject, failure.sequence);
  }
  return marks;
}

function newestFailure(
  parts: WaitParts,
  subjects: readonly string[],
  marks: FailureMarks,
): StepFailure | null {
  let newest: StepFailure | null = null;
  for (const subject of subjects) {
    const failure = parts.execution.lastFailure(subject);
    if (failure === null || failure.sequence <= (marks.get(subject) ?? -1)) continue;
    if (newest === null || failure.sequence > newest.sequence) newest = failure;
  }
  return newest;
}

function gaveUp(goal: Goal<unknown>, cause: StepFailure | null): TrilithError {
  if (cause === null) {
    return new TrilithError("Aborted", `${goal.what} was given up`, "see `trilith events`");
  }
  const { code, message, remedy } = cause.error;
  return new TrilithError(code, `${goal.what} failed: ${message}`, remedy);
}

function late(goal: Goal<unknown>, cause: StepFailure | null): TrilithError {
  const why = cause === null ? "" : `; the last attempt failed: ${cause.error.message}`;
  const remedy = cause?.error.remedy ?? "";
  return new TrilithError(
    "Timeout",
    `${goal.what} is not finished after ${goal.timeoutMs} ms and goes on${why}`,
    remedy === "" ? "see how far it is, or repeat the request: that is safe" : remedy,
  );
}

/**
 * Resolves when the goal is reached. Rejects with what `progress` says, with the cause when it was
 * given up, with `Timeout` when it takes too long, with `Aborted` when the caller has gone and with
 * `Unavailable` when this node leads no more; in the last three cases it goes on all the same.
 */
export function waitFor<T>(
  parts: WaitParts,
  goal: Goal<T>,
  marks: FailureMarks,
  signal: AbortSignal | undefined,
): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const endings: (() => void)[] = [];
  let isOver = false;
  let subjectsNoted: readonly string[] = [];
  let cause: StepFailure | null = null;
  const end = (settle: () => void) => {
    if (isOver) return;
    isOver = true;
    for (const ending of endings) ending();
    settle();
  };
  const noteFailure = (state: ClusterState) => {
    // Records of a creation that is rolled back go one by one: their failures still count.
    subjectsNoted = [...new Set([...subjectsNoted, ...goal.subjects(state)])];
    cause = newestFailure(parts, subjectsNoted, marks) ?? cause;
  };
  const look = () => {
    if (isOver) return;
    try {
      const state = parts.state();
      noteFailure(state);
      const progress = goal.progress(state);
      if (progress.kind === "done") end(() => resolve(progress.value));
      else if (progress.kind === "failed") end(() => reject(progress.error));
      else if (progress.kind === "rolledBack") {
        if (progress.isOver) end(() => reject(gaveUp(goal, cause)));
      } else if (goal.endsOnFailure && cause !== null && !passingCodes.has(cause.error.code)) {
        end(() => reject(gaveUp(goal, cause)));
      }
    } catch (error) {
      end(() => reject(error));
    }
  };
  const leave = () =>
    end(() => reject(new TrilithError("Aborted", `the caller did not wait for ${goal.what}`)));
  const deposed = () =>
    end(() =>
      reject(
        new TrilithError(
          "Unavailable",
          `this node leads no more; ${goal.what} goes on`,
          "repeat the request: that is safe",
        ),
      ),
    );
  const timer = setTimeout(() => end(() => reject(late(goal, cause))), goal.timeoutMs);
  endings.push(
    () => clearTimeout(timer),
    parts.store.subscribe(look),
    parts.observation.onChange(look),
    parts.store.onLeadership((term) => {
      if (term === null) deposed();
    }),
  );
  parts.ending.addEventListener("abort", deposed, { once: true });
  endings.push(() => parts.ending.removeEventListener("abort", deposed));
  if (signal !== undefined) {
    signal.addEventListener("abort", leave, { once: true });
    endings.push(() => signal.removeEventListener("abort", leave));
    if (signal.aborted) leave();
  }
  // It may have been lost between the commit and now.
  if (!parts.store.isLeader() || parts.ending.aborted) deposed();
  look();
  return promise;
}
