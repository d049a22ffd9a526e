/** How the node service runs programs: limits, callers that give up, errors that help. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../../../../src/csi/node/command.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const newFolder = tempFolders();
const LONG_MS = 60_000;

async function errorOf(call: Promise<unknown>): Promise<TrilithError> {
  const outcome = await call.catch((error: unknown) => error);
  if (outcome instanceof TrilithError) return outcome;
  throw new Error(`not a typed error: ${outcome}`);
}

test("a program's status, output and what it says are told", async () => {
  const command = ["sh", "-c", "echo out; echo one >&2; echo two >&2; exit 7"];
  const result = await runCommand(command, { limitMs: LONG_MS });
  expect(result).toEqual({ status: 7, stdout: "out\n", said: "one; two" });
  const plain = await runCommand(["echo", "out"], { limitMs: LONG_MS });
  expect(plain).toEqual({ status: 0, stdout: "out\n", said: "out" });
});

test("what a program says goes into an error shortened, its end kept", async () => {
  const command = ["sh", "-c", "yes line | head -n 5000 >&2; echo the end >&2; exit 1"];
  const { said } = await runCommand(command, { limitMs: LONG_MS });
  expect(said.length).toBeLessThan(1_100);
  expect(said).toEndWith("the end");
});

test("a program that is not there is named with the package that has it", async () => {
  const known = process.env.PATH;
  const error = await errorOf(runCommand(["mkfs.of-nobody"], { limitMs: LONG_MS }));
  expect(error.code).toBe("FailedPrecondition");
  expect(error.message).toContain("mkfs.of-nobody");
  expect(error.remedy).toContain("apt-get install");
  expect(process.env.PATH).toBe(known);
});

test("a program that reaches its limit is killed", async () => {
  const error = await errorOf(runCommand(["sleep", "600"], { limitMs: 50 }));
  expect(error.code).toBe("Timeout");
  expect(error.message).toContain("sleep did not end within 0.05 s");
});

test("a caller who gives up ends what may be ended", async () => {
  const caller = new AbortController();
  const running = runCommand(["sleep", "600"], { limitMs: LONG_MS, signal: caller.signal });
  caller.abort();
  expect((await errorOf(running)).code).toBe("Aborted");
  // Nothing is begun for one who has given up already.
  const folder = newFolder();
  const late = runCommand(["touch", join(folder, "x")], { limitMs: 1, signal: caller.signal });
  expect((await errorOf(late)).code).toBe("Aborted");
  expect(existsSync(join(folder, "x"))).toBe(false);
});

test("what has to be completed goes on to its end all the same", async () => {
  const folder = newFolder();
  const caller = new AbortController();
  const script = `touch ${folder}/begun; until [ -e ${folder}/go ]; do sleep 0.01; done; touch ${folder}/done`;
  const running = runCommand(["sh", "-c", script], {
    limitMs: LONG_MS,
    signal: caller.signal,
    completes: true,
  });
  while (!existsSync(join(folder, "begun"))) await Bun.sleep(5);
  caller.abort();
  await Bun.write(join(folder, "go"), "");
  expect((await running).status).toBe(0);
  expect(existsSync(join(folder, "done"))).toBe(true);
});
