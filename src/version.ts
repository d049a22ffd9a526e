/** Which build this is. Imports the manifest only. */
import { version } from "../package.json" with { type: "json" };

/** Set by `images/build.ts` in the executable; absent when run from source. */
declare const TRILITH_COMMIT: string | undefined;

/** What `trilith version` and the engine's information report. */
export interface BuildInfo {
  readonly version: string;
  /** Commit the executable was built from, with `-dirty` when files differed; `source` otherwise. */
  readonly commit: string;
  readonly bun: string;
}

/** True in the compiled executable, false when run from source by Bun. */
export const isExecutable = typeof TRILITH_COMMIT === "string";

export const buildInfo: BuildInfo = {
  version,
  commit: typeof TRILITH_COMMIT === "string" ? TRILITH_COMMIT : "source",
  bun: Bun.version,
};

/** One line for people: `trilith 0.1.0 (0b3edec, Bun 1.4.5)`. */
export function versionLine(): string {
  return `trilith ${buildInfo.version} (${buildInfo.commit}, Bun ${buildInfo.bun})`;
}
