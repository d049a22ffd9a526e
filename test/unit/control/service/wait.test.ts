import { describe, expect, test } from "bun:test";
import type { ClusterState } from "../../../../src/control/cluster-state.ts";
import type { StepFailure } from "../../../../src/control/service/ports.ts";
import { makeTurns } from "../../../../src/control/service/turns.ts";
import {
  done,
  type Goal,
  markFailures,
  type Progress,
  type WaitParts,
  waitFor,
  waiting,
} from "../../../../src/control/service/wait.ts";
import { type ErrorCode, TrilithError } from "../../../../src/errors.ts";

async function errorOf(promise: Promise<unknown>): Promise<TrilithError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TrilithError) return error;
    throw error;
  }
  throw new Error("it did not reject");
}

/** What is waited for, as far as waiting knows of it. */
class Scene {
  progress: Progress<string> = waiting;
  readonly listeners = new Set<() => void>();
  readonly ending = new AbortController();
  readonly #failures = new Map<string, StepFailure>();
  #sequence = 0;
  readonly #leadership = new Set<(term: number | null) => void>();

  readonly parts: WaitParts = {
    store: {
      isLeader: () => true,
      subscribe: () => () => {},
      onLeadership: (listener: (term: number | null) => void) => {
        this.#leadership.add(listener);
        return () => this.#leadership.delete(listener);
      },
    } as unknown as WaitParts["store"],
    observation: {
      observation: () => new Map(),
      engine: () => {
        throw new Error("no engines");
      },
      refresh: async () => false,
      onChange: (listener) => {
        this.listeners.add(listener);
        return () => this.listeners.delete(listener);
      },
    },
    execution: { wake: () => {}, lastFailure: (subject) => this.#failures.get(subject) ?? null },
    state: () => ({}) as ClusterState,
    ending: this.ending.signal,
  };

  goal(changes: Partial<Goal<string>> = {}): Goal<string> {
    return {
      what: "creation of it",
      timeoutMs: 10_000,
      subjects: () => ["volume/1", "replica/1"],
      progress: () => this.progress,
      endsOnFailure: true,
      ...changes,
    };
  }

  wait(goal = this.goal(), signal?: AbortSignal): Promise<string> {
    return waitFor(this.parts, goal, markFailures(this.parts, goal), signal);
  }

  change(progress: Progress<string> = this.progress): void {
    this.progress = progress;
    for (const listener of [...this.listeners]) listener();
  }

  fail(subject: string, code: ErrorCode, message: string): void {
    this.#sequence++;
    const error = new TrilithError(code, message, `remedy of ${message}`);
    this.#failures.set(subject, { sequence: this.#sequence, error });
    this.change();
  }

  lead(term: number | null): void {
    for (const listener of [...this.#leadership]) listener(term);
  }
}

describe("waiting", () => {
  test("resolves with the value once it is so, and listens no more", async () => {
    const scene = new Scene();
    const result = scene.wait();
    scene.change();
    scene.change(done("uri"));
    expect(await result).toBe("uri");
    expect(scene.listeners.size).toBe(0);
  });

  test("takes too long: says that it goes on, and why it has not come about", async () => {
    const scene = new Scene();
    const late = scene.wait(scene.goal({ timeoutMs: 30 }));
    scene.fail("replica/1", "Unavailable", "the engine is silent");
    const error = await errorOf(late);
    expect(error.code).toBe("Timeout");
    expect(error.message).toBe(
      "creation of it is not finished after 30 ms and goes on; the last attempt failed: the engine is silent",
    );
    expect(error.remedy).toBe("remedy of the engine is silent");
    expect(scene.listeners.size).toBe(0);
    const silent = await errorOf(scene.wait(scene.goal({ timeoutMs: 1, subjects: () => [] })));
    expect(silent.message).toBe("creation of it is not finished after 1 ms and goes on");
  });

  test("is not ended by failures from before, of others, or that may pass", async () => {
    const scene = new Scene();
    scene.fail("volume/1", "DeviceIo", "long ago");
    const result = scene.wait();
    scene.fail("volume/2", "DeviceIo", "elsewhere");
    scene.fail("replica/1", "FailedPrecondition", "not yet");
    scene.change(done("uri"));
    expect(await result).toBe("uri");
  });

  test("is ended by a failure that lasts, unless the planner has to give up first", async () => {
    const scene = new Scene();
    const ended = scene.wait();
    const patient = scene.wait(scene.goal({ endsOnFailure: false }));
    scene.fail("replica/1", "NoSpace", "the pool is full");
    expect((await errorOf(ended)).code).toBe("NoSpace");
    scene.change({ kind: "rolledBack", isOver: false });
    // The records that failed are gone by now; the cause is still known.
    scene.change({ kind: "rolledBack", isOver: true });
    const error = await errorOf(patient);
    expect(error.code).toBe("NoSpace");
    expect(error.message).toBe("creation of it failed: the pool is full");
  });

  test("ends with leadership, with the service and with the caller", async () => {
    const scene = new Scene();
    const deposed = errorOf(scene.wait());
    scene.lead(null);
    expect((await deposed).code).toBe("Unavailable");
    const caller = new AbortController();
    const left = errorOf(scene.wait(scene.goal(), caller.signal));
    caller.abort();
    expect((await left).code).toBe("Aborted");
    expect((await errorOf(scene.wait(scene.goal(), caller.signal))).code).toBe("Aborted");
    const ended = errorOf(scene.wait());
    scene.ending.abort();
    expect((await ended).code).toBe("Unavailable");
    expect(scene.listeners.size).toBe(0);
  });

  test("passes on what is wrong with looking", async () => {
    const scene = new Scene();
    const broken = scene.goal({
      progress: () => {
        throw new TrilithError("Internal", "a defect");
      },
    });
    expect((await errorOf(scene.wait(broken))).code).toBe("Internal");
    expect(scene.listeners.size).toBe(0);
  });
});

describe("turns", () => {
  test("are taken in order, so many at a time", async () => {
    const turns = makeTurns({ what: "things", patienceMs: 10_000, queueMax: 10 });
    const order: number[] = [];
    const take = (n: number) =>
      turns.take(2).then((end) => {
        order.push(n);
        return end;
      });
    const [first, second] = await Promise.all([take(1), take(2)]);
    const [third, fourth] = [take(3), take(4)];
    expect(turns.taken).toBe(2);
    first();
    first();
    const endThird = await third;
    expect(turns.taken).toBe(2);
    second();
    (await fourth)();
    endThird();
    expect(order).toEqual([1, 2, 3, 4]);
    expect(turns.taken).toBe(0);
  });

  test("that do not come in time are refused, and nobody behind loses his", async () => {
    const turns = makeTurns({ what: "things", patienceMs: 20, queueMax: 1 });
    const end = await turns.take(1);
    const late = errorOf(turns.take(1));
    expect((await errorOf(turns.take(1))).message).toBe("Too many things in progress");
    expect((await late).code).toBe("Aborted");
    end();
    const again = await turns.take(1);
    expect(turns.taken).toBe(1);
    again();
  });
});
