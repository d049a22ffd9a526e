/**
 * Reservations of a replica as the pool keeps them (attribute "reservation state"): JSON in UTF-8,
 * keys in hexadecimal. They are few and change seldom.
 */
import * as v from "valibot";
import { TrilithError } from "../../errors.ts";
import type { ReservationState } from "../target/reservations.ts";

const Stored = v.object({
  version: v.literal(1),
  generation: v.number(),
  type: v.number(),
  holder: v.nullable(v.string()),
  persistent: v.boolean(),
  registrants: v.array(
    v.object({
      hostId: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
      key: v.pipe(v.string(), v.regex(/^[0-9a-f]{1,16}$/)),
    }),
  ),
});

export function encodeReservations(state: ReservationState): Uint8Array {
  const stored: v.InferOutput<typeof Stored> = {
    version: 1,
    generation: state.generation,
    type: state.type,
    holder: state.holder ?? null,
    persistent: state.persistent,
    registrants: state.registrants.map(({ hostId, key }) => ({ hostId, key: key.toString(16) })),
  };
  return new TextEncoder().encode(JSON.stringify(stored));
}

/** Undefined when nothing is stored. Throws `Corrupted` when it is not of this form. */
export function decodeReservations(bytes: Uint8Array): ReservationState | undefined {
  if (bytes.byteLength === 0) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new TrilithError("Corrupted", "the stored reservations are not readable");
  }
  const stored = v.safeParse(Stored, parsed);
  if (!stored.success) {
    throw new TrilithError("Corrupted", "the stored reservations are malformed");
  }
  const { generation, type, holder, persistent, registrants } = stored.output;
  return {
    generation,
    type,
    holder: holder ?? undefined,
    persistent,
    registrants: registrants.map(({ hostId, key }) => ({ hostId, key: BigInt(`0x${key}`) })),
  };
}
