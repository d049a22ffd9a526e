import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { type CliContext, printResult } from "../../../src/cli/context.ts";
import { exitStatusText, runCli } from "../../../src/cli/run.ts";
import type { Verb } from "../../../src/cli/verbs.ts";
import { errorCodes, facesOf, TrilithError } from "../../../src/errors.ts";

/** A context that keeps what is printed. */
function recorder() {
  const out: string[] = [];
  const err: string[] = [];
  const context: CliContext = {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
  };
  return { context, out, err };
}

/** A verb whose action is `action`; counts how often its file would have been loaded. */
function verb(name: string, action: (context: CliContext) => unknown): Verb & { loads: number } {
  const made = {
    name,
    summary: `does ${name}`,
    loads: 0,
    load: async () => {
      made.loads++;
      return (context: CliContext) =>
        new Command(name)
          .description(`The long story of ${name}.`)
          .option("--json", "print JSON")
          .argument("[thing]")
          .action(async () => {
            await action(context);
          });
    },
  };
  return made;
}

async function run(args: string[], ...verbs: Verb[]) {
  const { context, out, err } = recorder();
  const status = await runCli("trilith", args, context, verbs);
  return { status, out: out.join("\n"), err: err.join("\n") };
}

describe("a command line", () => {
  test("loads the verb that it calls, and no other", async () => {
    const [one, two] = [verb("one", (c) => c.print("one ran")), verb("two", () => {})];
    const result = await run(["one", "--json", "x"], one, two);
    expect(result).toEqual({ status: 0, out: "one ran", err: "" });
    expect([one.loads, two.loads]).toEqual([1, 0]);
  });

  test("shows every verb's summary in the help without loading any", async () => {
    const [one, two] = [verb("one", () => {}), verb("two", () => {})];
    const result = await run(["--help"], one, two);
    expect(result.status).toBe(0);
    expect(result.out).toMatch(/one {2,}does one\n {2}two {2,}does two/);
    expect(result.out).toContain(exitStatusText());
    expect([one.loads, two.loads]).toEqual([0, 0]);
  });

  test("shows one verb's own help, asked for either way", async () => {
    for (const args of [
      ["help", "one"],
      ["one", "--help"],
    ]) {
      const result = await run(
        args,
        verb("one", () => {}),
      );
      expect(result.status).toBe(0);
      expect(result.out).toContain("The long story of one.");
      expect(result.out).toContain("--json");
    }
  });

  const wrong: [args: string[], says: RegExp][] = [
    [["nosuch"], /unknown command 'nosuch'\n {2}see `trilith --help`/],
    [["oen"], /Did you mean one\?/],
    [["one", "--nosuch"], /unknown option '--nosuch'\n {2}see `trilith one --help`/],
    [["one", "x", "y"], /too many arguments/],
    [[], /Usage: trilith/],
  ];
  for (const [args, says] of wrong) {
    test(`that is wrong ends with status 2 and says why: ${args.join(" ")}`, async () => {
      let ran = false;
      const one = verb("one", () => {
        ran = true;
      });
      const result = await run(args, one);
      expect(result.status).toBe(2);
      expect(result.out).toBe("");
      expect(result.err).toMatch(says);
      expect(ran).toBe(false);
    });
  }
});

describe("the outcome of a verb", () => {
  for (const code of errorCodes) {
    test(`${code} ends with its status, message and remedy`, async () => {
      const one = verb("one", () => {
        throw new TrilithError(code, "pool p1 went wrong", "mend it");
      });
      const result = await run(["one"], one);
      expect(result.status).toBe(facesOf(code).exit);
      expect(result.err).toBe("error: pool p1 went wrong\n  mend it");
    });
  }

  test("without a remedy has no second line", async () => {
    const one = verb("one", async () => {
      throw new TrilithError("NotFound", "no pool p1");
    });
    expect((await run(["one"], one)).err).toBe("error: no pool p1");
  });

  test("a defect shows where it is", async () => {
    const one = verb("one", () => {
      throw new RangeError("index 7");
    });
    const result = await run(["one"], one);
    expect(result.status).toBe(1);
    expect(result.err).toMatch(/^error: internal error: RangeError: index 7\n.*run\.test\.ts/s);
    const odd = verb("one", () => {
      throw "just text";
    });
    expect((await run(["one"], odd)).err).toBe("error: internal error: just text");
  });

  test("what the system refuses is told in its words, with a status of its kind", async () => {
    const missing = verb("one", () => readFileSync("/no/such/file"));
    const result = await run(["one"], missing);
    expect(result.status).toBe(facesOf("NotFound").exit);
    expect(result.err).toMatch(/^error: ENOENT.*\/no\/such\/file/);
    expect(result.err).not.toContain("    at ");
    const folder = verb("one", () => readFileSync("/"));
    expect((await run(["one"], folder)).status).toBe(facesOf("DeviceIo").exit);
  });

  test("can be a status that is no error", async () => {
    const one = verb("one", (context) => {
      context.exitStatus = 3;
    });
    expect((await run(["one"], one)).status).toBe(3);
  });
});

describe("a result", () => {
  test("is text for people, and JSON when asked for", () => {
    const { context, out } = recorder();
    const result = { name: "p1", bytes: 7 };
    printResult(context, {}, result, () => "p1 holds 7 bytes");
    printResult(context, { json: true }, result, () => "never shown");
    expect(out[0]).toBe("p1 holds 7 bytes");
    expect(JSON.parse(out[1]!)).toEqual(result);
  });
});

test("the exit statuses cover every error code", () => {
  const text = exitStatusText();
  for (const code of errorCodes) expect(text).toMatch(new RegExp(`\\b${code}\\b`));
  expect(text).toContain(" 0  done");
});
