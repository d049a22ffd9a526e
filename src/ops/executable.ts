/** How to start this program again as another process. */
import { join } from "node:path";
import { isExecutable } from "../version.ts";

/** Command that runs `trilith` with further arguments: the executable, or Bun with the source. */
export function ownCommand(): string[] {
  if (isExecutable) return [process.execPath];
  return [process.execPath, join(import.meta.dir, "../main.ts")];
}
