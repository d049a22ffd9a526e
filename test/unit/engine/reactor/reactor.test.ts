import { describe, expect, test } from "bun:test";
import { allocNative, closeFd, Errno, eventFd, Op, wakeEventFd } from "../../../../ffi/index.ts";
import { AssertionError } from "../../../../src/assert.ts";
import { IoOp } from "../../../../src/engine/reactor/io-table.ts";
import {
  ARENA_BYTES_MIN,
  COMPLETIONS_PER_TURN,
  RING_ENTRIES,
  STALL_NS,
} from "../../../../src/engine/reactor/limits.ts";
import {
  cancelFd,
  ioPromise,
  Reactor,
  type Stall,
  type TurnEnd,
} from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { withReactor } from "../../../support/reactor.ts";

/** What ends a test in which a wake-up was lost, instead of leaving it blocked for ever. */
const WATCHDOG_MS = 5_000;

/** Resolves with "done" when `work` does, with "lost" when only the watchdog woke the loop. */
function orLost(reactor: Reactor, work: Promise<unknown>): Promise<"done" | "lost"> {
  return new Promise((resolve, reject) => {
    const watchdog = reactor.after(WATCHDOG_MS, () => resolve("lost"));
    work.then(() => {
      watchdog.cancel();
      resolve("done");
    }, reject);
  });
}

describe("reactor", () => {
  test("carries a submission's answer back", () => {
    const results = withReactor(async (reactor) => [
      await reactor.submit(Op.NOP, -1, 0, 0, 0, 0),
      await reactor.submit(Op.READ, -1, 0, 0, 0, 0),
    ]);
    expect(results).toEqual([0, -9]); // EBADF
  });

  test("hands over the outcome of a promise, good or bad", () => {
    expect(withReactor(async () => 7)).toBe(7);
    expect(() =>
      withReactor(async () => {
        throw new Error("told");
      }),
    ).toThrow("told");
  });

  test("completes everything when a turn queues more than the ring and a turn can hold", () => {
    const count = COMPLETIONS_PER_TURN * 2 + 100;
    withReactor(async (reactor) => {
      const tokens: number[] = [];
      await new Promise<void>((resolve) => {
        const handler = reactor.addHandler({
          onCqe(token, result) {
            expect(result).toBe(0);
            tokens.push(token);
            if (tokens.length === count) resolve();
          },
        });
        expect(count).toBeGreaterThan(RING_ENTRIES);
        for (let i = 0; i < count; i++) {
          reactor.ring.prep(Op.NOP, -1, 0, 0, 0, 0, i, handler);
        }
      });
      expect(new Set(tokens).size).toBe(count);
      await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
      expect(reactor.stats.completions).toBeGreaterThanOrEqual(count);
      // No turn handled more than its share.
      expect(reactor.stats.turns).toBeGreaterThanOrEqual(3);
    });
  });

  test("gives handler ids out again, and counts them", () => {
    withReactor(async (reactor) => {
      const handler = { onCqe() {} };
      const first = reactor.addHandler(handler);
      const second = reactor.addHandler(handler);
      expect(first).not.toBe(0);
      expect(second).not.toBe(first);
      expect(reactor.handlerCount).toBe(2);
      reactor.removeHandler(first);
      expect(() => reactor.removeHandler(first)).toThrow(AssertionError);
      expect(reactor.addHandler(handler)).toBe(first);
      reactor.removeHandler(first);
      reactor.removeHandler(second);
      expect(reactor.handlerCount).toBe(0);
    });
  });

  test("a completion for nobody is an assertion", () => {
    expect(() =>
      withReactor(async (reactor) => {
        reactor.ring.prep(Op.NOP, -1, 0, 0, 0, 0, 0, 999);
        await reactor.sleep(WATCHDOG_MS);
      }),
    ).toThrow(AssertionError);
  });

  test("timers run in order, on the reactor's clock, and none early", () => {
    withReactor(async (reactor) => {
      const startNs = reactor.now;
      const ran: number[] = [];
      const note = (delayMs: number) => () => {
        ran.push(delayMs);
        expect(reactor.now - startNs).toBeGreaterThanOrEqual(delayMs * 1e6);
      };
      reactor.after(6, note(6));
      reactor.after(2, note(2));
      const cancelled = reactor.after(4, note(4));
      cancelled.cancel();
      await reactor.sleep(8);
      expect(ran).toEqual([2, 6]);
    });
  });

  test("sleeps while there is nothing to do", () => {
    withReactor(async (reactor) => {
      await reactor.sleep(100);
      // One turn for the timer; a few more are allowed for interrupted waits.
      expect(reactor.stats.turns).toBeLessThan(10);
      expect(reactor.stats.spins).toBe(0);
    });
  });

  test("promises advance without completions", () => {
    withReactor(async (reactor) => {
      let steps = 0;
      const chain = (async () => {
        for (; steps < 100; steps++) await Promise.resolve();
      })();
      expect(await orLost(reactor, chain)).toBe("done");
      expect(steps).toBe(100);
    });
  });

  test("an eventfd wakes a reactor that sleeps", () => {
    withReactor(async (reactor) => {
      const fd = eventFd();
      const buffer = reactor.arena.alloc(4096, 0);
      const read = reactor.submit(Op.READ, fd, reactor.arena.address + buffer, 8, 0, 0);
      reactor.after(1, () => wakeEventFd(fd));
      expect(await read).toBe(8);
      expect(reactor.arena.u32[buffer >> 2]).toBe(1);
      closeFd(fd);
    });
  });

  test("what waits on a descriptor can be cancelled", () => {
    withReactor(async (reactor) => {
      const fd = eventFd();
      const memory = allocNative(8);
      const read = reactor.submit(Op.READ, fd, memory.address, 8, 0, 0);
      await reactor.sleep(1);
      expect(await cancelFd(reactor, fd)).toBe(1);
      expect(await read).toBe(-Errno.ECANCELED);
      closeFd(fd);
    });
  });

  describe("the end of a turn", () => {
    /** Deferred work that counts its runs. */
    function deferred(run: () => void): TurnEnd & { runs: number } {
      return {
        queued: false,
        runs: 0,
        endTurn() {
          this.runs++;
          run();
        },
      };
    }

    test("work asked for twice is done once", () => {
      withReactor(async (reactor) => {
        const work = deferred(() => {});
        reactor.atTurnEnd(work);
        reactor.atTurnEnd(work);
        await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
        await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
        expect(work.runs).toBe(1);
        expect(work.queued).toBe(false);
      });
    });

    test("work that asks for more work has it done", () => {
      withReactor(async (reactor) => {
        const second = deferred(() => {});
        const first = deferred(() => reactor.atTurnEnd(second));
        reactor.atTurnEnd(first);
        await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
        expect(second.runs).toBe(1);
      });
    });

    test("work deferred by a promise is done although nothing completes", () => {
      withReactor(async (reactor) => {
        const done = new Promise<void>((resolve) => {
          reactor.atTurnEnd(deferred(resolve));
        });
        expect(await orLost(reactor, done)).toBe("done");
        // Each step is a promise that the end of a turn resolves, deferred by the step before.
        const chain = (async () => {
          for (let i = 0; i < 10; i++) {
            await new Promise<void>((resolve) => reactor.atTurnEnd(deferred(resolve)));
          }
        })();
        expect(await orLost(reactor, chain)).toBe("done");
      });
    });
  });

  describe("waiting for memory and slots", () => {
    const waiting = (reactor: Reactor) =>
      new Promise<void>((resolve) => reactor.waitForResources({ resume: resolve }));

    test("ends when a promise gives a buffer back and nothing completes", () => {
      withReactor(async (reactor) => {
        const buffer = reactor.arena.alloc(4096, 0);
        const waiter = waiting(reactor);
        await Promise.resolve();
        reactor.arena.free(buffer);
        expect(await orLost(reactor, waiter)).toBe("done");
      });
    });

    test("ends when a timer releases slots", () => {
      withReactor(async (reactor) => {
        expect(reactor.io.promise(1)).toBe(true);
        const waiter = waiting(reactor);
        reactor.after(1, () => reactor.io.release(1));
        expect(await orLost(reactor, waiter)).toBe("done");
      });
    });

    test("those that wait take turns at being first", () => {
      withReactor(async (reactor) => {
        const firsts = new Set<number>();
        let round: number[] = [];
        for (let id = 0; id < 3; id++) {
          const waiter = {
            resume() {
              round.push(id);
              reactor.waitForResources(waiter);
            },
          };
          reactor.waitForResources(waiter);
        }
        for (let pass = 0; pass < 3; pass++) {
          round = [];
          reactor.arena.free(reactor.arena.alloc(4096, 0));
          await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
          expect(round.length).toBe(3);
          firsts.add(round[0]!);
        }
        expect(reactor.waiterCount).toBe(3);
        expect(firsts.size).toBeGreaterThan(1);
      });
    });

    test("one that finds too little waits on without spinning", () => {
      withReactor(async (reactor) => {
        let resumes = 0;
        const again = {
          resume() {
            resumes++;
            reactor.waitForResources(again);
          },
        };
        reactor.waitForResources(again);
        reactor.arena.free(reactor.arena.alloc(4096, 0));
        await reactor.sleep(50);
        expect(resumes).toBe(1);
        expect(reactor.stats.turns).toBeLessThan(10);
        reactor.arena.free(reactor.arena.alloc(4096, 0));
        await reactor.sleep(1);
        expect(resumes).toBe(2);
      });
    });
  });

  test("a turn that takes too long is counted and told, with what went on", () => {
    const stalls: Stall[] = [];
    const reactor = new Reactor({
      index: 0,
      arenaBytes: ARENA_BYTES_MIN,
      onStall: (stall) => stalls.push(stall),
    });
    reactor.runUntil(
      (async () => {
        await reactor.sleep(1);
        reactor.activity = "importing pool p1";
        const untilNs = Bun.nanoseconds() + STALL_NS + 1_000_000;
        while (Bun.nanoseconds() < untilNs);
        await reactor.sleep(1);
      })(),
    );
    reactor.close();
    expect(stalls.length).toBeGreaterThanOrEqual(1);
    const stall = stalls.find((each) => each.activity === "importing pool p1")!;
    expect(stall.durationNs).toBeGreaterThan(STALL_NS);
    expect(reactor.stats.stalls).toBe(stalls.length);
    expect(reactor.stats.stallNsMax).toBeGreaterThanOrEqual(stall.durationNs);
  });

  test("runs until it is stopped", () => {
    const reactor = new Reactor({ index: 3, arenaBytes: ARENA_BYTES_MIN });
    let runs = 0;
    const tick = () => {
      if (++runs === 5) reactor.stop();
      else reactor.after(0, tick);
    };
    reactor.after(0, tick);
    reactor.run();
    expect(runs).toBe(5);
    expect(reactor.index).toBe(3);
    reactor.close();
  });

  test("a request by promise ends with its status and gives its slot back", () => {
    withReactor(async (reactor) => {
      const { io } = reactor;
      const submit = (status: number) => {
        const slot = io.take(IoOp.FLUSH, 0, 0, -1, 0, reactor.now);
        return ioPromise(reactor, slot, (s) => {
          reactor.after(1, () => io.complete(s, status));
        });
      };
      const before = io.free;
      expect(await Promise.all([submit(IoStatus.OK), submit(IoStatus.TIMEOUT)])).toEqual([
        IoStatus.OK,
        IoStatus.TIMEOUT,
      ]);
      expect(io.free).toBe(before);
    });
  });

  test("a promise that nobody awaits ends the loop when it fails", () => {
    expect(() =>
      withReactor(async (reactor) => {
        reactor.background(
          (async () => {
            await reactor.sleep(1);
            throw new Error("told");
          })(),
        );
        await reactor.sleep(WATCHDOG_MS);
      }),
    ).toThrow("told");
  });

  test("of several failures the first is told", () => {
    expect(() =>
      withReactor(async (reactor) => {
        reactor.fail(new Error("first"));
        reactor.fail(new Error("second"));
        await reactor.sleep(WATCHDOG_MS);
      }),
    ).toThrow("first");
  });

  test("an assertion in a handler ends the loop", () => {
    expect(() =>
      withReactor(async (reactor) => {
        const handler = reactor.addHandler({
          onCqe() {
            throw new AssertionError("told");
          },
        });
        reactor.ring.prep(Op.NOP, -1, 0, 0, 0, 0, 0, handler);
        await reactor.sleep(WATCHDOG_MS);
      }),
    ).toThrow("told");
  });
});
