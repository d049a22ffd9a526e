import { describe, expect, test } from "bun:test";
import { matches, parseSelector } from "../../../src/cli/labels.ts";
import { paintFor } from "../../../src/cli/output/color.ts";
import { humanDuration, humanSize, parseDuration } from "../../../src/cli/output/size.ts";
import { statusLine } from "../../../src/cli/output/status-line.ts";
import { progressBar } from "../../../src/cli/output/status-screen.ts";
import { renderTable } from "../../../src/cli/output/table.ts";
import { connectCommand, shellWord } from "../../../src/cli/publish.ts";
import { compareVersions } from "../../../src/cli/upgrade-state.ts";
import { parseSize } from "../../../src/kube/size.ts";

describe("sizes", () => {
  const shown: [bytes: number, text: string][] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1KiB"],
    [1536, "1.5KiB"],
    [11_274_289_152, "10.5GiB"],
    [10 * 2 ** 30, "10GiB"],
    [2 ** 30 - 1, "1GiB"],
    [1023.95 * 1024, "1MiB"],
    [5 * 2 ** 50, "5PiB"],
    [Number.MAX_SAFE_INTEGER, "8PiB"],
  ];
  for (const [bytes, text] of shown) {
    test(`${bytes} is shown as ${text}`, () => expect(humanSize(bytes)).toBe(text));
  }

  const read: [text: string, bytes: number | undefined][] = [
    ["4096", 4096],
    ["10GiB", 10 * 2 ** 30],
    ["10Gi", 10 * 2 ** 30],
    ["10G", 1e10],
    ["1.5 TiB", 1.5 * 2 ** 40],
    ["500MB", 5e8],
    ["1.5", undefined],
    ["-1", undefined],
    ["1e9", undefined],
    ["", undefined],
    ["9999999PiB", undefined],
  ];
  for (const [text, bytes] of read) {
    test(`"${text}" is read as ${bytes}`, () => expect(parseSize(text)).toBe(bytes));
  }
});

describe("durations", () => {
  const read: [text: string, ms: number | undefined][] = [
    ["10s", 10_000],
    ["10", 10_000],
    ["1h30m", 5_400_000],
    ["500ms", 500],
    ["2 days", 172_800_000],
    ["24h", 86_400_000],
    ["soon", undefined],
    ["10x", undefined],
    ["", undefined],
  ];
  for (const [text, ms] of read) {
    test(`"${text}" is read as ${ms}`, () => expect(parseDuration(text)).toBe(ms));
  }
  const shown: [ms: number, text: string][] = [
    [0, "0ms"],
    [850, "850ms"],
    [12_400, "12s"],
    [200_000, "3m 20s"],
    [7_500_000, "2h 5m"],
    [3_600_000, "1h"],
    [349_200_000, "4d 1h"],
  ];
  for (const [ms, text] of shown) {
    test(`${ms} ms are shown as ${text}`, () => expect(humanDuration(ms)).toBe(text));
  }
});

describe("a table", () => {
  test("aligns by what is seen, not by how many characters there are", () => {
    const table = renderTable(
      ["A", "B"],
      [
        ["日本", "x"],
        ["🚀", "y"],
        ["ab", "z"],
      ],
    );
    const [heading, ...rows] = table.split("\n");
    expect(heading).toBe("A     B");
    for (const row of rows) expect(Bun.stringWidth(row.slice(0, -1))).toBe(6);
  });

  test("shows what is absent, and nothing after the last cell", () => {
    expect(
      renderTable(
        ["A", "B"],
        [
          [undefined, ""],
          [null, 0],
          [false, "x"],
        ],
      ),
    ).toBe("A       B\n<none>  <none>\n<none>  0\nfalse   x");
    expect(renderTable(["A", "B"], [])).toBe("A  B");
  });

  test("lets no cell steer the terminal or break the line", () => {
    expect(renderTable(["A"], [["a\u001b[2Jb\nc\u0085d"]])).toBe("A\na [2Jb c d");
  });

  test("aligns the same with colours", () => {
    const paint = paintFor(true, {});
    const rows = [
      [{ text: "Faulted", tone: "bad" as const }, "x"],
      ["Online", "y"],
    ];
    const coloured = renderTable(["A", "B"], rows, paint);
    expect(coloured).toContain("\u001b[31mFaulted\u001b[0m");
    expect(Bun.stripANSI(coloured)).toBe(renderTable(["A", "B"], rows));
  });
});

describe("colours", () => {
  const cases: [terminal: boolean, env: Record<string, string>, coloured: boolean][] = [
    [true, {}, true],
    [false, {}, false],
    [true, { NO_COLOR: "1" }, false],
    [true, { NO_COLOR: "" }, true],
    [true, { TERM: "dumb" }, false],
    [false, { CLICOLOR_FORCE: "1" }, true],
    [false, { CLICOLOR_FORCE: "1", NO_COLOR: "1" }, false],
  ];
  for (const [terminal, env, coloured] of cases) {
    test(`${coloured ? "are" : "are not"} used: terminal ${terminal}, ${JSON.stringify(env)}`, () => {
      expect(paintFor(terminal, env)("good", "x") !== "x").toBe(coloured);
    });
  }
});

describe("a status line", () => {
  test("fits the terminal, is not written twice, and is wiped away", () => {
    const written: string[] = [];
    const terminal = { columns: 10, rows: 5, write: (text: string) => written.push(text) };
    const line = statusLine({ print: () => {}, printError: () => {}, terminal });
    line.clear();
    line.set("0123456789abc");
    line.set("0123456789abc");
    line.set("next");
    line.clear();
    expect(written).toEqual(["\r\u001b[K012345678", "\r\u001b[Knext", "\r\u001b[K"]);
  });

  test("is nothing without a terminal", () => {
    const line = statusLine({ print: () => {}, printError: () => {} });
    line.set("x");
    line.clear();
    expect(line.shows).toBe(false);
  });
});

test("a bar is as full as the work is done", () => {
  expect(progressBar(0)).toBe("[--------------------] 0%");
  expect(progressBar(99.9)).toBe("[####################] 99%");
  expect(progressBar(100)).toBe("[####################] 100%");
  expect(progressBar(-3)).toStartWith("[--------------------]");
});

describe("a selector", () => {
  const labels = { a: "1", b: "" };
  const cases: [selector: string, holds: boolean][] = [
    ["a=1", true],
    ["a==1", true],
    ["a=2", false],
    ["a", true],
    ["c", false],
    ["!c", true],
    ["!a", false],
    ["a!=2", true],
    ["c!=2", true],
    ["a=1,b", true],
    ["a=1,c", false],
  ];
  for (const [selector, holds] of cases) {
    test(`${selector} ${holds ? "fits" : "does not fit"}`, () => {
      expect(matches(parseSelector(selector), labels)).toBe(holds);
    });
  }
});

describe("the command that connects a host", () => {
  test("is for Linux' nvme, with what the target's address says", () => {
    expect(connectCommand("nvmf://[fd00::1]/nqn.x")).toBe(
      "nvme connect -t tcp -a fd00::1 -s 4420 -n nqn.x --ctrl-loss-tmo=1980 --reconnect-delay=2",
    );
  });

  test("cannot be made of something else", () => {
    for (const uri of ["", "bdev:///x", "nvmf+tcp://host:1", "iscsi://h/i"]) {
      expect(() => connectCommand(uri)).toThrow("is not understood");
    }
  });

  test("is quoted for a shell", () => {
    expect(["a-b.c:d", "a b", "it's"].map(shellWord)).toEqual(["a-b.c:d", "'a b'", "'it'\\''s'"]);
  });
});

test("versions are in order", () => {
  const sorted = ["1.10.0", "1.9.1", "1.10.0-rc.1", "0.9", "1.10.0-rc.2"].sort(compareVersions);
  expect(sorted).toEqual(["0.9", "1.9.1", "1.10.0-rc.1", "1.10.0-rc.2", "1.10.0"]);
});
