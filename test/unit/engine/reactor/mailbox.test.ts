/** Calls between two ends of a mailbox. */
import { describe, expect, test } from "bun:test";
import { AssertionError } from "../../../../src/assert.ts";
import { MAILBOX_CALLS_MAX } from "../../../../src/engine/reactor/limits.ts";
import { type Envelope, Mailbox } from "../../../../src/engine/reactor/mailbox.ts";
import { TrilithError } from "../../../../src/errors.ts";

interface Left {
  tellMe(input: { text: string }): Promise<void>;
}

interface Right {
  add(input: { a: number; b: number }): Promise<number>;
  fail(input: { code: "NotFound" | "assert" | "plain" }): Promise<void>;
  never(input: Record<string, never>): Promise<void>;
}

/** Two ends joined as threads are: what is posted is cloned and arrives later. */
function pair() {
  const told: string[] = [];
  const fatal: unknown[] = [];
  const deliver = (to: () => { receive(envelope: Envelope): void }) => (envelope: Envelope) => {
    const copy = structuredClone(envelope);
    queueMicrotask(() => to().receive(copy));
  };
  const left: Mailbox<Left, Right> = new Mailbox<Left, Right>({
    post: deliver(() => right),
    local: {
      tellMe: async ({ text }) => {
        told.push(text);
        if (text === "fail") throw new Error("told in vain");
      },
    },
    onFatal: (error) => fatal.push(error),
  });
  const right: Mailbox<Right, Left> = new Mailbox<Right, Left>({
    post: deliver(() => left),
    local: {
      add: async ({ a, b }) => a + b,
      fail: async ({ code }) => {
        if (code === "assert") throw new AssertionError("broken");
        if (code === "plain") throw new TypeError("plain");
        throw new TrilithError(code, "not here", "look elsewhere");
      },
      never: () => new Promise(() => {}),
    },
    onFatal: (error) => fatal.push(error),
  });
  return { left, right, told, fatal };
}

describe("a call", () => {
  test("brings back what the other end returns", async () => {
    const { left } = pair();
    const sums = [1, 2, 3].map((b) => left.call("add", { a: 10, b }));
    expect(await Promise.all(sums)).toEqual([11, 12, 13]);
    expect(left.pendingCount).toBe(0);
  });

  test("rejects with the typed error that was thrown, remedy and all", async () => {
    const { left, fatal } = pair();
    const error = await left.call("fail", { code: "NotFound" }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TrilithError);
    expect(error).toMatchObject({
      code: "NotFound",
      message: "not here",
      remedy: "look elsewhere",
    });
    expect(fatal).toEqual([]);
  });

  test("rejects as Internal for what is a defect; a failed assertion is fatal as well", async () => {
    const { left, fatal } = pair();
    await expect(left.call("fail", { code: "plain" })).rejects.toMatchObject({ code: "Internal" });
    expect(fatal).toEqual([]);
    await expect(left.call("fail", { code: "assert" })).rejects.toMatchObject({ code: "Internal" });
    expect(fatal).toHaveLength(1);
  });

  test("is refused when too many are under way", async () => {
    const { left } = pair();
    const calls = Array.from({ length: MAILBOX_CALLS_MAX }, () => left.call("never", {}));
    await expect(left.call("add", { a: 1, b: 1 })).rejects.toMatchObject({
      code: "ResourceExhausted",
    });
    left.close("the test is over");
    const outcomes = await Promise.allSettled(calls);
    expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
  });

  test("ends with Aborted when the other end goes, and so do later ones", async () => {
    const { left } = pair();
    const call = left.call("never", {});
    left.close("the other end has gone");
    await expect(call).rejects.toMatchObject({ code: "Aborted" });
    await expect(left.call("add", { a: 1, b: 1 })).rejects.toMatchObject({ code: "Aborted" });
  });
});

describe("a message without response", () => {
  test("arrives, and a failure of it is fatal", async () => {
    const { right, told, fatal } = pair();
    right.tell("tellMe", { text: "hello" });
    right.tell("tellMe", { text: "fail" });
    await Bun.sleep(0);
    expect(told).toEqual(["hello", "fail"]);
    expect(fatal).toHaveLength(1);
  });
});
