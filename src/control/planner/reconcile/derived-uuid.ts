/** UUIDs of things that the planner brings into being: pure code draws no random numbers. */
import { createHash } from "node:crypto";
import type { Uuid } from "../../model.ts";

/** A UUID (version 8) made of what it is for. The same parts give the same UUID. */
export function derivedUuid(...parts: readonly (string | number)[]): Uuid {
  const digest = createHash("sha256").update(parts.join("\n")).digest("hex");
  const variant = ((Number.parseInt(digest[16]!, 16) & 3) | 8).toString(16);
  return [
    digest.slice(0, 8),
    digest.slice(8, 12),
    `8${digest.slice(13, 16)}`,
    `${variant}${digest.slice(17, 20)}`,
    digest.slice(20, 32),
  ].join("-");
}
