/** Ids that are given out for what is created without one. */
import { createHash, randomUUID } from "node:crypto";
import type { RequestContext } from "../control/control.ts";

/**
 * A UUID for something new. With an idempotency key it follows from the key: a repeated request means
 * the same thing, and confirms what the first one made.
 */
export function generatedUuid(kind: string, context: RequestContext): string {
  if (context.idempotencyKey === undefined) return randomUUID();
  const digest = createHash("sha256").update(`${kind}\0${context.idempotencyKey}`).digest();
  // RFC 9562, version 8: contents are the application's.
  digest[6] = (digest[6]! & 0x0f) | 0x80;
  digest[8] = (digest[8]! & 0x3f) | 0x80;
  const hex = digest.toString("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20, 32),
  ].join("-");
}

/** A name such as `pool-1f3a9c2e`. */
export function generatedName(kind: string, context: RequestContext): string {
  return `${kind}-${generatedUuid(kind, context).slice(0, 8)}`;
}
