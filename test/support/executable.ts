/** The compiled executable, for tests of what is shipped. `test/run.ts` has built it. */
import { existsSync } from "node:fs";
import { join } from "node:path";

export const projectRoot = join(import.meta.dir, "../..");

/** Path of the executable. Throws when it is not there. */
export function executablePath(): string {
  const path = process.env.TRILITH_EXECUTABLE ?? join(projectRoot, "dist/trilith");
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`npm run build\` first`);
  return path;
}

export interface CommandResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. */
export function runCommand(
  command: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; stdin?: string } = {},
): CommandResult {
  const result = Bun.spawnSync([...command], {
    cwd: options.cwd ?? projectRoot,
    env: { ...process.env, ...options.env },
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
  });
  return {
    status: result.exitCode,
    stdout: result.stdout.toString(),
    stderr: result.stderr.toString(),
  };
}
