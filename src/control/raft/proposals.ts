/**
 * Proposals and what becomes of them. A proposal is answered exactly once:
 *
 *   its result           it was committed and is applied here
 *   `Unavailable`        it certainly never takes effect: it was not put into the log, or another
 *                        entry was committed in its place
 *   `Timeout`            not known: it may have been committed, or still be
 */
import { TrilithError } from "../../errors.ts";

export interface Outcome {
  readonly index: number;
  readonly result: unknown;
}

export interface Proposal {
  readonly command: string;
  readonly deadlineMs: number;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: TrilithError) => void;
}

interface Logged extends Proposal {
  readonly index: number;
  readonly term: number;
}

const REPEAT = "repeat the request; with the same idempotency key that is safe in any case";

export function notApplied(why: string): TrilithError {
  return new TrilithError("Unavailable", `not applied: ${why}`, REPEAT);
}

export function outcomeUnknown(why: string): TrilithError {
  return new TrilithError(
    "Timeout",
    `it is not known whether it was applied: ${why}`,
    "repeat the request with the same idempotency key, or look whether it took effect",
  );
}

export class Proposals {
  /** Not in the log yet. */
  #queue: Proposal[] = [];
  /** In the log, by index. Several when a later leadership wrote over what an earlier one proposed. */
  readonly #logged = new Map<number, Logged[]>();
  #highestTermApplied = 0;

  get queuedCount(): number {
    return this.#queue.length;
  }

  get loggedCount(): number {
    return this.#logged.size;
  }

  queue(proposal: Proposal): void {
    this.#queue.push(proposal);
  }

  /** The next ones to put into the log, at most `count`. */
  take(count: number): Proposal[] {
    return this.#queue.splice(0, count);
  }

  /** What was taken now stands in the log at `index`. */
  logged(proposal: Proposal, index: number, term: number): void {
    const there = this.#logged.get(index) ?? [];
    this.#logged.set(index, [...there, { ...proposal, index, term }]);
  }

  /** Refuses what is not in the log. */
  rejectQueued(why: string): void {
    for (const proposal of this.#queue.splice(0)) proposal.reject(notApplied(why));
  }

  /** An entry was committed and applied: answers whose it is, and those that it rules out. */
  applied(index: number, term: number, result: unknown): void {
    for (const proposal of this.#logged.get(index) ?? []) {
      if (proposal.term === term) proposal.resolve({ index, result });
      else proposal.reject(notApplied("another leader's entry was committed in its place"));
    }
    this.#logged.delete(index);
    if (term <= this.#highestTermApplied) return;
    this.#highestTermApplied = term;
    // Terms never fall along a log: nothing of an earlier term can follow this entry.
    this.#rejectLogged(
      (proposal) => proposal.index > index && proposal.term < term,
      () => notApplied("another leader's entries were committed in its place"),
    );
  }

  /** A snapshot took the place of the log up to `index`: what stood there is not known. */
  snapshotInstalled(index: number): void {
    this.#rejectLogged(
      (proposal) => proposal.index <= index,
      () => outcomeUnknown("the state was replaced by a newer one"),
    );
  }

  /** Answers those whose time is over. */
  expire(nowMs: number): void {
    const isOver = (proposal: Proposal) => proposal.deadlineMs <= nowMs;
    if (this.#queue.some(isOver)) {
      const over = this.#queue.filter(isOver);
      this.#queue = this.#queue.filter((proposal) => !isOver(proposal));
      for (const proposal of over) proposal.reject(notApplied("it waited too long for its turn"));
    }
    this.#rejectLogged(isOver, () => outcomeUnknown("no majority has confirmed it in time"));
  }

  /** Answers all; the node ends. */
  end(why: string): void {
    this.rejectQueued(why);
    this.#rejectLogged(
      () => true,
      () => outcomeUnknown(why),
    );
  }

  #rejectLogged(isMeant: (proposal: Logged) => boolean, error: () => TrilithError): void {
    for (const [index, proposals] of this.#logged) {
      const meant = proposals.filter(isMeant);
      if (meant.length === 0) continue;
      const left = proposals.filter((proposal) => !isMeant(proposal));
      if (left.length > 0) this.#logged.set(index, left);
      else this.#logged.delete(index);
      for (const proposal of meant) proposal.reject(error());
    }
  }
}
