import { describe, expect, test } from "bun:test";
import {
  Access,
  acquire,
  deniedTo,
  holds,
  noReservations,
  type ReservationOutcome,
  type ReservationState,
  register,
  release,
} from "../../../../src/engine/target/reservation-state.ts";
import { Status } from "../../../../src/nvme/constants.ts";
import { ReservationNotice } from "../../../../src/nvme/log-pages.ts";
import { AcquireAction, RegisterAction, ReleaseAction } from "../../../../src/nvme/reservations.ts";
import { Random, testSeed } from "../../../support/random.ts";

const { REGISTRATION_PREEMPTED, RESERVATION_PREEMPTED, RESERVATION_RELEASED } = ReservationNotice;
const DNR = 0x4000;
const CONFLICT = Status.RESERVATION_CONFLICT;
const INVALID = Status.INVALID_FIELD | DNR;

/** A state that commands are applied to; every step says what it expects. */
class Story {
  state: ReservationState = noReservations;

  #apply(outcome: ReservationOutcome, status: number): ReservationOutcome {
    expect(outcome.status).toBe(status);
    if (status !== 0) expect(outcome.state).toBe(this.state);
    this.state = outcome.state;
    return outcome;
  }

  register(
    host: string,
    key: bigint,
    status = 0,
    more: Partial<Parameters<typeof register>[2]> = {},
  ) {
    const command = {
      action: RegisterAction.REGISTER,
      ignoresKey: false,
      persist: undefined,
      currentKey: 0n,
      newKey: key,
      ...more,
    } as const;
    return this.#apply(register(this.state, host, command, true), status);
  }

  unregister(host: string, key: bigint, status = 0, ignoresKey = false) {
    return this.register(host, 0n, status, {
      action: RegisterAction.UNREGISTER,
      currentKey: key,
      ignoresKey,
    });
  }

  acquire(
    host: string,
    key: bigint,
    type: number,
    status = 0,
    preemptKey?: bigint,
    aborts = false,
  ) {
    const preempt = aborts ? AcquireAction.PREEMPT_AND_ABORT : AcquireAction.PREEMPT;
    const command = {
      action: preemptKey === undefined ? AcquireAction.ACQUIRE : preempt,
      ignoresKey: false,
      type,
      currentKey: key,
      preemptKey: preemptKey ?? 0n,
    };
    return this.#apply(acquire(this.state, host, command), status);
  }

  release(
    host: string,
    key: bigint,
    type: number,
    status = 0,
    action: number = ReleaseAction.RELEASE,
  ) {
    const command = { action, ignoresKey: false, type, currentKey: key };
    return this.#apply(release(this.state, host, command), status);
  }

  clear(host: string, key: bigint, status = 0) {
    return this.release(host, key, 0, status, ReleaseAction.CLEAR);
  }

  get hosts(): string[] {
    return this.state.registrants.map(({ hostId }) => hostId);
  }
}

/** A story with hosts a, b, c registered under the keys 1, 2, 3. */
function three(): Story {
  const story = new Story();
  story.register("a", 1n);
  story.register("b", 2n);
  story.register("c", 3n);
  return story;
}

describe("register", () => {
  test("a host once, under its key", () => {
    const story = three();
    story.register("a", 1n);
    story.register("a", 9n, CONFLICT);
    story.register("d", 0n, INVALID);
    expect(story.hosts.toSorted()).toEqual(["a", "b", "c"]);
    expect(story.state.generation).toBe(4);
  });

  test("several hosts may use one key", () => {
    const story = three();
    story.register("d", 1n);
    expect(story.hosts).toContain("d");
  });

  test("replace needs the key, or says that it does not care", () => {
    const story = three();
    const replace = { action: RegisterAction.REPLACE } as const;
    story.register("a", 7n, CONFLICT, { ...replace, currentKey: 2n });
    story.register("a", 7n, 0, { ...replace, currentKey: 1n });
    story.register("a", 8n, 0, { ...replace, ignoresKey: true });
    story.register("d", 9n, CONFLICT, { ...replace, currentKey: 0n });
    story.register("d", 9n, 0, { ...replace, ignoresKey: true });
    expect(new Map(story.state.registrants.map((r) => [r.hostId, r.key]))).toEqual(
      new Map([
        ["a", 8n],
        ["b", 2n],
        ["c", 3n],
        ["d", 9n],
      ]),
    );
  });

  test("replacing the key keeps the reservation", () => {
    const story = three();
    story.acquire("a", 1n, 1);
    story.register("a", 7n, 0, { action: RegisterAction.REPLACE, currentKey: 1n });
    expect(holds(story.state, "a")).toBe(true);
    story.acquire("b", 2n, 1, 0, 7n);
    expect(holds(story.state, "b")).toBe(true);
  });

  test("unregister needs a registration and its key", () => {
    const story = three();
    story.unregister("d", 0n, CONFLICT);
    story.unregister("a", 2n, CONFLICT);
    story.unregister("a", 1n);
    story.unregister("b", 0n, 0, true);
    expect(story.hosts).toEqual(["c"]);
  });

  test("unregistering the holder releases; those that wrote under it hear of it", () => {
    for (const type of [1, 2, 3, 4]) {
      const story = three();
      story.acquire("a", 1n, type);
      const { notices } = story.unregister("a", 1n);
      expect(story.state.type).toBe(0);
      const told = ["b", "c"].map((hostId) => ({ hostId, type: RESERVATION_RELEASED as number }));
      expect([...notices]).toEqual(type >= 3 ? told : []);
    }
  });

  test("with an all-registrants type the last one releases", () => {
    for (const type of [5, 6]) {
      const story = three();
      story.acquire("a", 1n, type);
      story.unregister("a", 1n);
      story.unregister("b", 2n);
      expect(story.state.type).toBe(type);
      expect(holds(story.state, "c")).toBe(true);
      story.unregister("c", 3n);
      expect(story.state.type).toBe(0);
    }
  });

  test("persistence is changed when it is asked for and possible", () => {
    const story = three();
    expect(story.state.persistent).toBe(false);
    story.register("a", 1n, 0, { persist: true });
    expect(story.state.persistent).toBe(true);
    story.register("b", 2n);
    expect(story.state.persistent).toBe(true);
    story.register("b", 2n, 0, { persist: false });
    expect(story.state.persistent).toBe(false);
    story.register("b", 2n, INVALID, { persist: "reserved" });
    const command = {
      action: RegisterAction.REGISTER,
      ignoresKey: false,
      persist: true,
      currentKey: 0n,
      newKey: 1n,
    };
    expect(register(story.state, "a", command, false).status).toBe(INVALID);
    story.register("b", 2n, INVALID, { action: 3 });
  });

  test("the number of registrants is bounded", () => {
    const story = new Story();
    for (let i = 0; i < 128; i++) story.register(`host-${i}`, 5n);
    story.register("one more", 5n, Status.CAPACITY_EXCEEDED | DNR);
    story.register("host-0", 5n);
  });
});

describe("acquire", () => {
  test("needs a registration, its key, and a type that exists", () => {
    const story = three();
    story.acquire("d", 0n, 1, CONFLICT);
    story.acquire("a", 2n, 1, CONFLICT);
    story.acquire("a", 1n, 0, INVALID);
    story.acquire("a", 1n, 7, INVALID);
    const command = { action: 3, ignoresKey: false, type: 1, currentKey: 1n, preemptKey: 0n };
    expect(acquire(story.state, "a", command).status).toBe(INVALID);
    expect(acquire(story.state, "a", { ...command, action: 0, ignoresKey: true }).status).toBe(
      INVALID,
    );
    const { generation } = story.state;
    story.acquire("a", 1n, 1);
    expect(story.state.generation).toBe(generation);
  });

  test("what is held is not given twice, but may be asked for again", () => {
    for (const type of [1, 2, 3, 4]) {
      const story = three();
      story.acquire("a", 1n, type);
      story.acquire("a", 1n, type);
      story.acquire("a", 1n, (type % 6) + 1, CONFLICT);
      story.acquire("b", 2n, type, CONFLICT);
    }
    for (const type of [5, 6]) {
      const story = three();
      story.acquire("a", 1n, type);
      story.acquire("b", 2n, type);
      story.acquire("b", 2n, 1, CONFLICT);
    }
  });

  test("preempting the holder takes its registration and its reservation", () => {
    for (const type of [1, 2, 3, 4]) {
      const story = three();
      story.acquire("a", 1n, type);
      const outcome = story.acquire("b", 2n, type, 0, 1n);
      expect(story.hosts).toEqual(["b", "c"]);
      expect(holds(story.state, "b")).toBe(true);
      expect([...outcome.preempted]).toEqual(["a"]);
      expect(outcome.aborts).toBe(false);
      expect([...outcome.notices]).toEqual([{ hostId: "a", type: REGISTRATION_PREEMPTED }]);
    }
  });

  test("a change of type by preemption is told to those that stay", () => {
    const story = three();
    story.acquire("a", 1n, 3);
    const { notices, aborts } = story.acquire("b", 2n, 2, 0, 1n, true);
    expect([...notices]).toEqual([
      { hostId: "a", type: REGISTRATION_PREEMPTED },
      { hostId: "c", type: RESERVATION_RELEASED },
    ]);
    expect(aborts).toBe(true);
    expect(story.state.type).toBe(2);
  });

  test("preempting a registrant that does not hold leaves the reservation", () => {
    const story = three();
    story.acquire("a", 1n, 1);
    story.acquire("b", 2n, 2, 0, 3n);
    expect(story.hosts).toEqual(["a", "b"]);
    expect([holds(story.state, "a"), story.state.type]).toEqual([true, 1]);
  });

  test("preempting takes every registrant of the key but oneself", () => {
    const story = new Story();
    for (const host of ["a", "b", "c"]) story.register(host, 5n);
    story.acquire("a", 5n, 1);
    const { preempted } = story.acquire("b", 5n, 1, 0, 5n);
    expect([...preempted]).toEqual(["a", "c"]);
    expect(story.hosts).toEqual(["b"]);
    expect(holds(story.state, "b")).toBe(true);
  });

  test("the holder may preempt itself to change the type", () => {
    const story = three();
    story.acquire("a", 1n, 1);
    const { preempted } = story.acquire("a", 1n, 4, 0, 1n);
    expect([...preempted]).toEqual([]);
    expect([story.state.type, holds(story.state, "a")]).toEqual([4, true]);
    expect(story.hosts).toHaveLength(3);
  });

  test("a key of zero preempts everybody, where everybody holds", () => {
    for (const type of [5, 6]) {
      const story = three();
      story.acquire("a", 1n, type);
      const { preempted } = story.acquire("b", 2n, 1, 0, 0n);
      expect([...preempted]).toEqual(["a", "c"]);
      expect([story.state.type, story.state.holder]).toEqual([1, "b"]);
      const other = three();
      other.acquire("a", 1n, type);
      other.acquire("b", 2n, 1, 0, 3n);
      expect([other.hosts, other.state.type]).toEqual([["a", "b"], type]);
      other.acquire("b", 2n, 1, CONFLICT, 99n);
    }
    const story = three();
    story.acquire("a", 1n, 1);
    story.acquire("b", 2n, 1, INVALID, 0n);
  });

  test("a key that nobody has is a conflict", () => {
    const story = three();
    story.acquire("a", 1n, 1, CONFLICT, 99n);
    story.acquire("a", 1n, 1);
    story.acquire("b", 2n, 1, CONFLICT, 99n);
  });

  test("without a reservation, preempting only unregisters", () => {
    const story = three();
    story.acquire("a", 1n, 1, 0, 2n);
    expect([story.hosts, story.state.type]).toEqual([["a", "c"], 0]);
  });
});

describe("release and clear", () => {
  test("by the holder, with its type", () => {
    for (const type of [1, 2, 3, 4]) {
      const story = three();
      story.acquire("a", 1n, type);
      story.release("d", 0n, type, CONFLICT);
      story.release("a", 2n, type, CONFLICT);
      story.release("b", 2n, type);
      expect(story.state.type).toBe(type);
      story.release("a", 1n, (type % 6) + 1, INVALID);
      const { generation } = story.state;
      const { notices } = story.release("a", 1n, type);
      expect([story.state.type, story.state.generation]).toEqual([0, generation]);
      expect(notices).toHaveLength(type >= 3 ? 2 : 0);
      story.release("a", 1n, type);
    }
  });

  test("by any registrant, where everybody holds", () => {
    for (const type of [5, 6]) {
      const story = three();
      story.acquire("a", 1n, type);
      const { notices } = story.release("c", 3n, type);
      expect(story.state.type).toBe(0);
      expect(notices.map(({ hostId }) => hostId)).toEqual(["a", "b"]);
    }
  });

  test("clear removes everything, by any registrant", () => {
    const story = three();
    story.acquire("a", 1n, 2);
    story.clear("b", 9n, CONFLICT);
    const { notices, preempted } = story.clear("b", 2n);
    expect([story.hosts, story.state.type]).toEqual([[], 0]);
    expect([...notices]).toEqual(
      ["a", "c"].map((hostId) => ({ hostId, type: RESERVATION_PREEMPTED as number })),
    );
    expect([...preempted]).toEqual(["a", "c"]);
    const command = { action: 2, ignoresKey: false, type: 1, currentKey: 1n };
    expect(release(three().state, "a", command).status).toBe(INVALID);
  });
});

describe("access", () => {
  const { READ, WRITE } = Access;
  // Base 2.0, figure 441: what is denied to a stranger and to a registrant that does not hold.
  const denied: readonly (readonly [number, number, number])[] = [
    [1, WRITE, WRITE],
    [2, READ | WRITE, READ | WRITE],
    [3, WRITE, 0],
    [4, READ | WRITE, 0],
    [5, WRITE, 0],
    [6, READ | WRITE, 0],
  ];
  for (const [type, stranger, registrant] of denied) {
    test(`under type ${type}`, () => {
      const story = three();
      story.acquire("a", 1n, type);
      expect([
        deniedTo(story.state, "d"),
        deniedTo(story.state, "b"),
        deniedTo(story.state, "a"),
      ]).toEqual([stranger, registrant, 0]);
    });
  }

  test("without a reservation nobody is denied anything", () => {
    expect(["a", "d"].map((host) => deniedTo(three().state, host))).toEqual([0, 0]);
  });
});

test("random commands keep the invariants", () => {
  const seed = testSeed();
  const random = new Random(seed);
  let state = noReservations;
  const hosts = ["a", "b", "c", "d"];
  for (let i = 0; i < 20_000; i++) {
    const host = random.pick(hosts);
    const key = BigInt(random.below(4));
    const own = state.registrants.find((r) => r.hostId === host)?.key ?? key;
    const currentKey = random.chance(0.8) ? own : key;
    const ignoresKey = random.chance(0.2);
    const action = random.below(4);
    const type = random.below(8);
    const commands = [
      () =>
        register(
          state,
          host,
          {
            action,
            ignoresKey,
            persist: random.pick([undefined, true, false, "reserved"] as const),
            currentKey,
            newKey: key,
          },
          true,
        ),
      () => acquire(state, host, { action, ignoresKey, type, currentKey, preemptKey: key }),
      () =>
        release(state, host, {
          action,
          ignoresKey,
          type: random.chance(0.5) ? state.type : type,
          currentKey,
        }),
    ];
    const outcome = random.pick(commands)();
    const replay = `TRILITH_SEED=${seed} bun test ${import.meta.path}`;
    if (outcome.status !== 0 && outcome.state !== state) throw new Error(`changed: ${replay}`);
    const after = outcome.state;
    const ids = after.registrants.map((r) => r.hostId);
    const isSound =
      new Set(ids).size === ids.length &&
      after.registrants.every((r) => r.key !== 0n) &&
      (after.type === 0 || ids.length > 0) &&
      (after.holder === undefined || ids.includes(after.holder)) &&
      (after.type >= 1 && after.type <= 4) === (after.holder !== undefined) &&
      outcome.preempted.every((id) => !ids.includes(id) && id !== host) &&
      outcome.notices.every(({ hostId }) => hostId !== host);
    if (!isSound) throw new Error(`unsound after step ${i}: ${replay}`);
    state = after;
  }
});
