/**
 * Runs every layer of tests that exists and ends with one line: `N passed, N failed`.
 *
 *   bun test/run.ts [name...]     only what has one of the names in its path: a layer
 *                                 (`initiator`), a folder (`unit/engine/pool`), a file
 *
 * Each test file is a process of its own, so that one that crashes takes nothing else along. Two
 * run at a time, never two of the heavy layers together. The output of what failed is shown and
 * kept in `dist/test`. The exit status is 0 only when everything ran and passed.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dir);
const logFolder = join(root, "dist/test");

/** Layers that load the machine by themselves (virtual machines, whole clusters). */
const HEAVY_LAYERS = new Set(["cluster", "initiator", "kubernetes", "web", "appliance"]);
const LANES = 2;
const TEST_TIMEOUT_MS = 30_000;
/** A file that takes longer than this hangs; its processes are ended and it has failed. */
const FILE_TIMEOUT_MS = 15 * 60_000;
/** How often a line says what is still running when nothing else is printed. */
const HEARTBEAT_MS = 60_000;
const SHOWN_LINES_MAX = 80;

interface Job {
  /** `unit/errors.test.ts`, or the name of a check. */
  readonly name: string;
  readonly heavy: boolean;
  readonly command: readonly string[];
  /** Where the tests of the file are reported; absent for a check, which passes or fails whole. */
  readonly report?: string;
}

interface Outcome {
  /** First folder of the file, or the name of the check. */
  readonly layer: string;
  readonly seconds: number;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Why the job as a whole counts as failed, though no single test does. */
  readonly problem: string;
}

function layerOf(name: string): string {
  return name.split("/")[0]!.replace(/\.test\.ts$/, "");
}

function fileJob(path: string): Job {
  const report = join(logFolder, `${path.replaceAll("/", "-")}.xml`);
  const options = [`--timeout=${TEST_TIMEOUT_MS}`, "--reporter=junit"];
  const command = ["bun", "test", ...options, `--reporter-outfile=${report}`, `./test/${path}`];
  return { name: path, heavy: HEAVY_LAYERS.has(layerOf(path)), command, report };
}

/** Everything there is to run: the checks, then the test files, the heavy ones first. */
function allJobs(): Job[] {
  const check = (name: string, ...command: string[]): Job => ({ name, heavy: false, command });
  const files = [...new Bun.Glob("**/*.test.ts").scanSync({ cwd: import.meta.dir })].sort();
  const jobs = files.map(fileJob);
  return [
    ...jobs.filter((job) => job.heavy),
    check("tsc", "tsc", "--noEmit"),
    check("biome", "biome", "check", "."),
    ...jobs.filter((job) => !job.heavy),
  ];
}

/** Counts of a JUnit report, or undefined when there is none: the process ended before writing it. */
function readReport(
  path: string,
): { tests: number; failures: number; skipped: number } | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  const head = /<testsuites [^>]*>/.exec(text)?.[0] ?? "";
  const count = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(head)?.[1] ?? "0");
  return { tests: count("tests"), failures: count("failures"), skipped: count("skipped") };
}

type Verdict = Omit<Outcome, "layer" | "seconds">;

function judge(job: Job, exitCode: number | null, timedOut: boolean): Verdict {
  const none = { passed: 0, failed: 0, skipped: 0 };
  const ending = timedOut ? `ended after ${FILE_TIMEOUT_MS / 60_000} minutes` : `exit ${exitCode}`;
  if (job.report === undefined) {
    return exitCode === 0
      ? { ...none, passed: 1, problem: "" }
      : { ...none, failed: 1, problem: ending };
  }
  const report = readReport(job.report);
  rmSync(job.report, { force: true });
  if (report === undefined) return { ...none, failed: 1, problem: `no result, ${ending}` };
  const { failures, skipped } = report;
  const passed = report.tests - failures - skipped;
  if (report.tests === 0) return { ...none, failed: 1, problem: "ran no test" };
  // A failure outside any test (in a hook, or after the last one) shows in the exit status only.
  if (exitCode !== 0 && failures === 0) {
    return { passed, failed: 1, skipped, problem: `all tests passed, but ${ending}` };
  }
  return { passed, failed: failures, skipped, problem: "" };
}

/** Process groups of the jobs under way; each is ended with all it started. */
const running = new Map<string, { readonly pid: number; readonly startMs: number }>();

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nobody of the group is left.
  }
}

async function runJob(job: Job): Promise<Outcome> {
  const logPath = join(logFolder, `${job.name.replaceAll("/", "-")}.log`);
  const log = Bun.file(logPath);
  const startMs = Date.now();
  const child = Bun.spawn(["setsid", ...job.command], {
    cwd: root,
    stdin: "ignore",
    stdout: log,
    stderr: log,
    env: { ...process.env, TRILITH_EXECUTABLE: join(root, "dist/trilith") },
  });
  running.set(job.name, { pid: child.pid, startMs });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    endGroup(child.pid);
  }, FILE_TIMEOUT_MS);
  await child.exited;
  clearTimeout(timer);
  endGroup(child.pid);
  running.delete(job.name);
  const verdict = judge(job, child.exitCode, timedOut);
  const seconds = (Date.now() - startMs) / 1000;
  const outcome = { ...verdict, layer: layerOf(job.name), seconds };
  printOutcome(job, outcome, logPath);
  return outcome;
}

function printOutcome(job: Job, outcome: Outcome, logPath: string): void {
  const counts = job.report === undefined ? "" : `${outcome.passed} passed`;
  const parts = [
    counts,
    outcome.failed > 0 && outcome.problem === "" ? `${outcome.failed} failed` : "",
    outcome.skipped > 0 ? `${outcome.skipped} skipped` : "",
    outcome.problem,
    `${outcome.seconds.toFixed(1)} s`,
  ].filter((part) => part !== "");
  const mark = outcome.failed > 0 ? "FAIL" : "ok  ";
  console.log(`${mark} ${job.name}: ${parts.join(", ")}`);
  if (outcome.failed === 0) {
    rmSync(logPath, { force: true });
    return;
  }
  const lines = readFileSync(logPath, "utf8").trimEnd().split("\n");
  const telling = lines.filter((line) => !line.startsWith("(pass)"));
  const shown = telling.slice(-SHOWN_LINES_MAX);
  console.log(shown.map((line) => `     | ${line}`).join("\n"));
  console.log(`     all of it: ${logPath.slice(root.length + 1)}`);
}

/** Takes jobs from the list until none is left: the next one that may run beside what runs. */
async function lane(queue: Job[], outcomes: Outcome[]): Promise<void> {
  while (queue.length > 0) {
    const heavyRuns = [...running.keys()].some((name) => HEAVY_LAYERS.has(layerOf(name)));
    const next = queue.findIndex((job) => !(job.heavy && heavyRuns));
    if (next === -1) return; // Only heavy ones are left; the lane that runs one goes on with them.
    const [job] = queue.splice(next, 1);
    outcomes.push(await runJob(job!));
  }
}

async function main(filters: readonly string[]): Promise<boolean> {
  rmSync(logFolder, { recursive: true, force: true });
  mkdirSync(logFolder, { recursive: true });
  const jobs = allJobs().filter(
    ({ name }) => filters.length === 0 || filters.some((filter) => name.includes(filter)),
  );
  const outcomes: Outcome[] = [];
  const build = ["bun", "images/build.ts", "--if-changed"];
  outcomes.push(await runJob({ name: "build", heavy: false, command: build }));
  if (jobs.length === 0) {
    const problem = `nothing is called ${filters.join(" or ")}`;
    console.log(`FAIL ${problem}`);
    outcomes.push({ layer: "filter", seconds: 0, passed: 0, failed: 1, skipped: 0, problem });
  }
  const heartbeat = setInterval(() => {
    const names = [...running].map(
      ([name, { startMs }]) => `${name} (${Math.round((Date.now() - startMs) / 1000)} s)`,
    );
    console.log(`     running: ${names.join(", ")}; ${jobs.length} to go`);
  }, HEARTBEAT_MS);
  const lanes = Array.from({ length: LANES }, () => lane(jobs, outcomes));
  await Promise.all(lanes);
  clearInterval(heartbeat);
  return summarize(outcomes);
}

/** Prints a line per layer and the closing line; true when nothing failed. */
function summarize(outcomes: readonly Outcome[]): boolean {
  const sum = (of: readonly Outcome[], pick: (outcome: Outcome) => number) =>
    of.reduce((total, outcome) => total + pick(outcome), 0);
  const counts = (of: readonly Outcome[]) => {
    const skipped = sum(of, (outcome) => outcome.skipped);
    const tail = skipped > 0 ? `, ${skipped} skipped` : "";
    return `${sum(of, (o) => o.passed)} passed, ${sum(of, (o) => o.failed)} failed${tail}`;
  };
  console.log("");
  for (const layer of new Set(outcomes.map((outcome) => outcome.layer))) {
    const of = outcomes.filter((outcome) => outcome.layer === layer);
    const seconds = sum(of, (outcome) => outcome.seconds).toFixed(0);
    console.log(`${layer.padEnd(14)} ${counts(of)} in ${seconds} s`);
  }
  const failed = sum(outcomes, (outcome) => outcome.failed);
  console.log(`${sum(outcomes, (outcome) => outcome.passed)} passed, ${failed} failed`);
  return failed === 0;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    for (const { pid } of running.values()) endGroup(pid);
    process.exit(signal === "SIGINT" ? 130 : 143);
  });
}
process.exitCode = (await main(process.argv.slice(2))) ? 0 : 1;
