/**
 * Scenarios of raft as transcripts, in the manner of etcd's: each file in `scenarios` is a script, and
 * after each of its commands, below `----`, stands what the members did. A file is the proof that a
 * reader can check line by line.
 *
 * TRILITH_REWRITE=1 writes what happens now into the files; look at the difference then.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Stage } from "../../../support/raft/stage.ts";

const folder = join(import.meta.dir, "scenarios");

interface Step {
  /** Comments and empty lines before it, as they stand. */
  readonly before: readonly string[];
  readonly commands: readonly string[];
}

/** A script: blocks of commands, `----`, what happened, an empty line. */
function stepsOf(text: string): { steps: Step[]; after: string[] } {
  const steps: Step[] = [];
  let before: string[] = [];
  let commands: string[] = [];
  let isOutput = false;
  for (const line of text.trimEnd().split("\n")) {
    if (isOutput) {
      if (line !== "") continue;
      isOutput = false;
      before.push("");
    } else if (line === "----") {
      steps.push({ before, commands });
      before = [];
      commands = [];
      isOutput = true;
    } else if (line === "" || line.startsWith("#")) before.push(line);
    else commands.push(line);
  }
  return { steps, after: [...before, ...commands] };
}

function play(text: string): string {
  const stage = new Stage();
  try {
    const { steps } = stepsOf(text);
    const lines: string[] = [];
    for (const { before, commands } of steps) {
      lines.push(...before, ...commands, "----");
      for (const command of commands) stage.run(command);
      const told = stage.takeLines();
      lines.push(...(told.length === 0 ? ["nothing"] : told));
    }
    return `${lines.join("\n")}\n`;
  } finally {
    stage.close();
  }
}

for (const name of readdirSync(folder).sort()) {
  test(name, () => {
    const path = join(folder, name);
    const written = readFileSync(path, "utf8");
    const { after } = stepsOf(written);
    expect(after.filter((line) => line !== "")).toEqual([]);
    const played = play(written);
    if (process.env.TRILITH_REWRITE !== undefined) writeFileSync(path, played);
    else expect(played).toBe(written);
  });
}
