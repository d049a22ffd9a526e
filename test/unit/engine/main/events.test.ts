/** The log of events: numbering, what is lost, and waiting. */
import { describe, expect, test } from "bun:test";
import { EventLog, type NewEvent } from "../../../../src/engine/main/events.ts";
import { EVENTS_KEPT } from "../../../../src/engine/rpc/limits.ts";

const event: NewEvent = {
  kind: "bdev-removed",
  subject: "d",
  message: "",
  reactor: 0,
  fields: {},
};

function makeLog(): EventLog {
  return new EventLog(() => new Date("2026-01-31T12:00:00Z"));
}

describe("events", () => {
  test("are numbered from 1 and given out in order", () => {
    const log = makeLog();
    expect(log.after(0, 10)).toEqual({ events: [], next: 0, lost: 0 });
    for (const subject of ["a", "b", "c"]) log.add({ ...event, subject });
    const first = log.after(0, 2);
    expect(first.events.map(({ sequence, subject }) => [sequence, subject])).toEqual([
      [1, "a"],
      [2, "b"],
    ]);
    expect(log.after(first.next, 2)).toMatchObject({
      events: [{ subject: "c" }],
      next: 3,
      lost: 0,
    });
    expect(log.after(3, 2)).toEqual({ events: [], next: 3, lost: 0 });
  });

  test("beyond those kept are counted as lost", () => {
    const log = makeLog();
    const count = EVENTS_KEPT * 2 + 1;
    for (let i = 0; i < count; i++) log.add(event);
    const { events, lost } = log.after(0, 5);
    expect(events[0]?.sequence).toBe(count - EVENTS_KEPT + 1);
    expect(lost).toBe(count - EVENTS_KEPT);
    expect(log.after(count - 1, 5)).toMatchObject({ lost: 0, next: count });
  });

  test("of an engine that was started anew do not confuse whoever asks with an old number", () => {
    const log = makeLog();
    log.add(event);
    expect(log.after(500, 10)).toEqual({ events: [], next: 1, lost: 0 });
  });
});

describe("waiting", () => {
  test("ends with the next event, at once when there is one", async () => {
    const log = makeLog();
    const waiting = log.wait(0, 60_000);
    log.add(event);
    await waiting;
    await log.wait(0, 60_000);
  });

  test("ends after its time, and when the log closes", async () => {
    const log = makeLog();
    await log.wait(0, 1);
    const waiting = log.wait(0, 60_000);
    log.close();
    await waiting;
  });
});
