import { describe, expect, test } from "bun:test";
import { AssertionError } from "../../../../src/assert.ts";
import { type Timer, Timers } from "../../../../src/engine/reactor/timers.ts";
import { withSeed } from "../../../support/random.ts";

describe("timers", () => {
  test("run in the order of their deadlines, equal ones in the order they were set", () => {
    const timers = new Timers();
    const ran: string[] = [];
    timers.at(30, () => ran.push("30"));
    timers.at(10, () => ran.push("10 first"));
    timers.at(20, () => ran.push("20"));
    timers.at(10, () => ran.push("10 second"));
    expect(timers.runDue(9)).toBe(0);
    expect(timers.runDue(20)).toBe(3);
    expect(ran).toEqual(["10 first", "10 second", "20"]);
    expect(timers.runDue(1e18)).toBe(1);
    expect(timers.runDue(1e18)).toBe(0);
  });

  test("the next deadline is that of the earliest live timer", () => {
    const timers = new Timers();
    expect(timers.nextNs()).toBe(Number.POSITIVE_INFINITY);
    timers.at(50, () => {});
    const early = timers.at(40, () => {});
    expect(timers.nextNs()).toBe(40);
    early.cancel();
    expect(timers.nextNs()).toBe(50);
    timers.runDue(50);
    expect(timers.nextNs()).toBe(Number.POSITIVE_INFINITY);
  });

  test("a cancelled timer does not run, whenever it is cancelled", () => {
    const timers = new Timers();
    const ran: string[] = [];
    const before = timers.at(1, () => ran.push("before"));
    timers.at(2, () => {
      ran.push("canceller");
      during.cancel();
    });
    const during = timers.at(2, () => ran.push("during"));
    before.cancel();
    before.cancel();
    expect(timers.runDue(5)).toBe(1);
    expect(ran).toEqual(["canceller"]);
    during.cancel();
  });

  test("a timer that sets itself again waits for the next turn", () => {
    const timers = new Timers();
    let runs = 0;
    const again = () => {
      runs++;
      timers.at(10, again);
    };
    timers.at(10, again);
    expect(timers.runDue(10)).toBe(1);
    expect(timers.runDue(10)).toBe(1);
    expect(runs).toBe(2);
  });

  test("a deadline that is no time is an assertion", () => {
    const timers = new Timers();
    expect(() => timers.at(Number.NaN, () => {})).toThrow(AssertionError);
    expect(() => timers.at(Number.POSITIVE_INFINITY, () => {})).toThrow(AssertionError);
  });

  test("random use agrees with a sorted list", () => {
    withSeed(import.meta.path, (random) => {
      const timers = new Timers();
      let model: { id: number; atNs: number; timer: Timer }[] = [];
      const ran: number[] = [];
      let nowNs = 0;
      for (let id = 0; id < 5_000; id++) {
        const action = random.next();
        if (action < 0.6) {
          const atNs = nowNs + random.below(1_000);
          model.push({ id, atNs, timer: timers.at(atNs, () => ran.push(id)) });
        } else if (action < 0.75 && model.length > 0) {
          const [removed] = model.splice(random.below(model.length), 1);
          removed!.timer.cancel();
        } else {
          nowNs += random.below(300);
          const due = model
            .filter((entry) => entry.atNs <= nowNs)
            .sort((a, b) => a.atNs - b.atNs || a.id - b.id)
            .map((entry) => entry.id);
          model = model.filter((entry) => entry.atNs > nowNs);
          ran.length = 0;
          expect(timers.runDue(nowNs)).toBe(due.length);
          expect(ran).toEqual(due);
        }
        const next = Math.min(Number.POSITIVE_INFINITY, ...model.map((entry) => entry.atNs));
        expect(timers.nextNs()).toBe(next);
      }
    });
  });
});
