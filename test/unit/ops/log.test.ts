import { describe, expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import { TrilithError } from "../../../src/errors.ts";
import { isJournal, type LogOptions, logWith, makeLog } from "../../../src/ops/log.ts";
import { acceptedRequestId, currentRequestId, withRequestId } from "../../../src/ops/request-id.ts";

function logged(options: Partial<LogOptions> = {}) {
  const lines: string[] = [];
  const log = makeLog({
    format: "text",
    level: "info",
    write: (line) => lines.push(line),
    now: () => new Date(0),
    ...options,
  });
  return { log, lines };
}

describe("a log", () => {
  test("writes one line per entry, whatever is in it", () => {
    const { log, lines } = logged();
    log("warn", "two\nlines", { a: "x\ny", b: 1, c: { d: [true] }, e: undefined, f: 10n });
    expect(lines).toEqual([
      '1970-01-01T00:00:00.000Z warn  two\\nlines a="x\\ny" b=1 c={"d":[true]} f="10"',
    ]);
    const json = logged({ format: "json" });
    json.log("error", "two\nlines", { error: new Error("broken\nhere") });
    expect(json.lines).toHaveLength(1);
    expect(json.lines[0]).not.toContain("\n");
    const entry = JSON.parse(json.lines[0]!) as Record<string, string>;
    expect(entry.text).toBe("two\nlines");
    expect(entry.error).toContain("broken\nhere");
  });

  test("shows a typed error by its code, and a defect with its stack", () => {
    const { log, lines } = logged();
    log("warn", "refused", { error: new TrilithError("NotFound", "there is no pool x") });
    expect(lines).toEqual([
      '1970-01-01T00:00:00.000Z warn  refused error="NotFound: there is no pool x"',
    ]);
    log("error", "broken", { error: new TrilithError("Internal", "impossible") });
    expect(lines[1]).toContain("log.test.ts");
  });

  test("leaves out what is below its level", () => {
    const { log, lines } = logged({ level: "warn" });
    log("info", "no");
    log("error", "yes");
    expect(lines).toEqual(["1970-01-01T00:00:00.000Z error yes"]);
  });

  test("tells the journal its priority and leaves the time to it", () => {
    const { log, lines } = logged({ journal: true, level: "debug" });
    for (const level of ["debug", "info", "warn", "error"] as const) log(level, "said", { n: 1 });
    expect(lines).toEqual([
      "<7>debug said n=1",
      "<6>info  said n=1",
      "<4>warn  said n=1",
      "<3>error said n=1",
    ]);
  });

  test("knows the journal by device and inode of standard error", () => {
    const { dev, ino } = fstatSync(2, { bigint: true });
    expect(isJournal({ JOURNAL_STREAM: `${dev}:${ino}` })).toBe(true);
    // Inherited from a service whose output was redirected since.
    expect(isJournal({ JOURNAL_STREAM: `${dev}:${ino + 1n}` })).toBe(false);
    expect(isJournal({})).toBe(false);
    expect(isJournal({ JOURNAL_STREAM: "1:1" }, 9999)).toBe(false);
  });

  test("hides secrets by name and by form", () => {
    const secrets = [
      "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:",
      "Bearer abc.def-ghi",
      "-----BEGIN PRIVATE KEY-----\nMIIBVgIBADAN\n-----END PRIVATE KEY-----",
    ];
    for (const format of ["text", "json"] as const) {
      const { log, lines } = logged({ format });
      log("info", `with ${secrets[0]}`, {
        joinToken: "sesame-1",
        inner: { dhchapSecret: "sesame-2", list: [{ password: "sesame-3" }] },
        header: secrets[1],
        pem: secrets[2],
        error: new Error(`refused ${secrets[0]}`),
      });
      const text = lines.join("\n");
      for (const hidden of ["sesame", "ia6zGod", "abc.def", "MIIBVg"]) {
        expect(text).not.toContain(hidden);
      }
      expect(text).toContain("(hidden)");
    }
  });

  test("adds fields of its own to every entry", () => {
    const { log, lines } = logged();
    logWith(log, { node: "n1" })("info", "said", { a: 1 });
    expect(lines).toEqual(["1970-01-01T00:00:00.000Z info  said node=n1 a=1"]);
  });
});

describe("request ids", () => {
  test("stand in every entry made for the request, also after waiting, and in no other", async () => {
    const { log, lines } = logged();
    const work = (id: string) =>
      withRequestId(id, async () => {
        await Promise.resolve();
        log("info", "working");
        await new Promise((resolve) => setImmediate(resolve));
        log("info", "done");
      });
    await Promise.all([work("one"), work("two")]);
    log("info", "idle");
    expect(lines.map((line) => line.slice(31))).toEqual([
      "working requestId=one",
      "working requestId=two",
      "done requestId=one",
      "done requestId=two",
      "idle",
    ]);
    expect(currentRequestId()).toBeUndefined();
  });

  test("of others are taken only when they fit in a line", () => {
    expect(acceptedRequestId("0c08667c-8b59-4d11-9192-b54e27e0ce0f")).toBeDefined();
    for (const bad of ["", "a b", "a\nb", "x".repeat(129), 'a"b', undefined, null]) {
      expect(acceptedRequestId(bad)).toBeUndefined();
    }
  });
});
