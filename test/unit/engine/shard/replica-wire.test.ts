/** What crosses between a nexus and a remote replica, and who may take a replica from whom. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { giveUp, takeOver } from "../../../../src/engine/shard/replica-access.ts";
import {
  decodeClaim,
  decodeRegions,
  decodeState,
  encodeClaim,
  encodeRegions,
  encodeState,
  epochOfKey,
  isOutranked,
  rangesOf,
  reservationKey,
  STATE_BYTES,
} from "../../../../src/engine/shard/replica-wire.ts";
import {
  decodeReservations,
  encodeReservations,
} from "../../../../src/engine/shard/reservation-codec.ts";
import { noReservations } from "../../../../src/engine/target/reservation-state.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { Status } from "../../../../src/nvme/constants.ts";
import { ReservationKind } from "../../../../src/nvme/reservations.ts";
import { withSeed } from "../../../support/random.ts";

const NEXUS = "0c3d6b1e-5a3f-4a57-9d8e-1f2a3b4c5d6e";

describe("states and claims", () => {
  test("come out as they went in", () => {
    const state = { epoch: 2 ** 36, generation: 7, baseGeneration: 3, clean: true, mayLack: true };
    expect(encodeState(state).byteLength).toBe(STATE_BYTES);
    expect(decodeState(encodeState(state))).toEqual(state);
    for (const isServing of [false, true]) {
      const claim = { epoch: 5, nexusUuid: NEXUS, isServing };
      expect(decodeClaim(encodeClaim(5, NEXUS, isServing))).toEqual(claim);
    }
  });

  test("of another form are refused, whatever the bytes are", () => {
    withSeed(import.meta.path, (random) => {
      for (let i = 0; i < 2000; i++) {
        const bytes = random.bytes(random.below(100));
        for (const decode of [decodeState, decodeClaim, decodeRegions, decodeReservations]) {
          try {
            decode(bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(TrilithError);
          }
        }
      }
    });
    const state = encodeState({
      epoch: 1,
      generation: 1,
      baseGeneration: 1,
      clean: false,
      mayLack: false,
    });
    const other = state.slice();
    other[4] = 9;
    expect(() => decodeState(other)).toThrow("another version");
    expect(() => decodeState(state.subarray(0, 40))).toThrow("malformed");
  });

  test("regions are numbers on the wire and runs in the log", () => {
    const regions = [9, 3, 4, 4, 5, 70_000];
    expect(decodeRegions(encodeRegions(regions))).toEqual(regions);
    expect(rangesOf(regions)).toEqual([
      { first: 3, count: 3 },
      { first: 9, count: 1 },
      { first: 70_000, count: 1 },
    ]);
    expect(() => decodeRegions(new Uint8Array(4 * 4097))).toThrow("no list of regions");
  });
});

describe("reservation keys", () => {
  test("carry the epoch, and a higher one outranks", () => {
    const low = reservationKey(3, NEXUS);
    const high = reservationKey(4, randomUUID());
    expect(epochOfKey(low)).toBe(3);
    expect(epochOfKey(reservationKey(2 ** 36, NEXUS))).toBe(2 ** 36);
    expect(isOutranked(low, high)).toBe(true);
    expect(isOutranked(high, low)).toBe(false);
    expect(isOutranked(low, low)).toBe(false);
    // Two nexuses of one epoch: the second gives way.
    expect(isOutranked(low, reservationKey(3, "00000000-0000-4000-8000-000000000000"))).toBe(true);
  });
});

describe("taking a replica over", () => {
  const [a, b] = ["a".repeat(32), "b".repeat(32)];
  const keyOf = (epoch: number) => reservationKey(epoch, NEXUS);

  test("registers, reserves exclusively, and is kept through power loss", () => {
    const { status, state } = takeOver(noReservations, a, keyOf(1));
    expect(status).toBe(0);
    expect(state).toMatchObject({
      type: ReservationKind.EXCLUSIVE_ACCESS,
      holder: a,
      persistent: true,
    });
    expect(decodeReservations(encodeReservations(state))).toEqual(state);
  });

  test("preempts and aborts whoever holds it with a lower epoch", () => {
    const first = takeOver(noReservations, a, keyOf(1)).state;
    const { status, state, preempted, aborts } = takeOver(first, b, keyOf(2));
    expect({ status, holder: state.holder, preempted, aborts }).toEqual({
      status: 0,
      holder: b,
      preempted: [a],
      aborts: true,
    });
  });

  test("is refused to a lower epoch and changes nothing", () => {
    const held = takeOver(noReservations, a, keyOf(2)).state;
    const refused = takeOver(held, b, keyOf(1));
    expect(refused.status).toBe(Status.RESERVATION_CONFLICT);
    expect(refused.state).toBe(held);
  });

  test("by the same host again replaces its key", () => {
    const held = takeOver(noReservations, a, keyOf(1)).state;
    const again = takeOver(held, a, keyOf(2));
    expect(again.status).toBe(0);
    expect(again.state.registrants).toEqual([{ hostId: a, key: keyOf(2) }]);
    expect(again.preempted).toEqual([]);
  });

  test("is given up only by whoever still has it", () => {
    const held = takeOver(noReservations, a, keyOf(1)).state;
    expect(giveUp(held, a, keyOf(1)).state).toMatchObject({ type: 0, registrants: [] });
    const taken = takeOver(held, b, keyOf(2)).state;
    expect(giveUp(taken, a, keyOf(1)).state).toBe(taken);
    expect(giveUp(taken, b, keyOf(1)).state).toBe(taken);
  });
});
