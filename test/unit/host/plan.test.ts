/** What a host does so that it is connected as it is to be. */
import { describe, expect, test } from "bun:test";
import type { VolumePath } from "../../../src/host/host.ts";
import type { KernelController } from "../../../src/host/kernel-view.ts";
import { SURPLUS_HOLD_MS } from "../../../src/host/limits.ts";
import {
  type Attempt,
  attemptKey,
  type HostObservation,
  type KnownPath,
  planHost,
  troubleOf,
} from "../../../src/host/plan.ts";
import { lostPaths } from "../../../src/host/reporter.ts";
import type { WantedVolume } from "../../../src/host/state-file.ts";
import { controller, HOST_NQN, NQN, VOLUME } from "../../support/host-kernel.ts";

const A = { address: "10.0.0.1", port: 8420 };
const B = { address: "10.0.0.2", port: 8420 };
const C = { address: "fd00::3", port: 8420 };
const NOW_MS = 1_000_000;
const wanted: WantedVolume = {
  volumeUuid: VOLUME,
  nqn: NQN,
  hostNqn: HOST_NQN,
  options: {},
  paths: [A],
};
const known = (path: VolumePath, isPending = false): KnownPath => ({ ...path, isPending });

interface Situation {
  readonly paths?: readonly KnownPath[];
  readonly isConfirmed?: boolean;
  readonly controllers?: readonly KernelController[];
  readonly attempts?: Readonly<Record<string, Attempt>>;
  readonly surplus?: Readonly<Record<string, number>>;
}

function observed(situation: Situation): HostObservation {
  const { paths = [known(A), known(B)], isConfirmed = true, controllers = [] } = situation;
  return {
    nowMs: NOW_MS,
    volumes: [{ wanted, paths, isConfirmed }],
    view: { controllers, disks: [] },
    attempts: new Map(Object.entries(situation.attempts ?? {})),
    surplusSinceMs: new Map(Object.entries(situation.surplus ?? {})),
  };
}

const planned = (situation: Situation) => planHost(observed(situation));
const connectsOf = (situation: Situation) => planned(situation).connects.map(({ path }) => path);
const trouble = (situation: Situation) => {
  const { volumes, view } = observed(situation);
  return troubleOf(volumes[0]!, view);
};

describe("paths", () => {
  test("that are not there are connected, those that are, are left alone", () => {
    expect(connectsOf({})).toEqual([A, B]);
    expect(connectsOf({ controllers: [controller("nvme0", A)] })).toEqual([B]);
    expect(planned({ controllers: [controller("nvme0", A), controller("nvme1", B)] })).toEqual({
      connects: [],
      removals: [],
      surplusSinceMs: new Map(),
      wakeAtMs: null,
    });
    const other = controller("nvme0", A, { nqn: "nqn.other" });
    expect(connectsOf({ paths: [known(A)], controllers: [other] })).toEqual([A]);
    const port = controller("nvme0", { ...A, port: 4420 });
    expect(connectsOf({ paths: [known(A)], controllers: [port] })).toEqual([A]);
  });

  test("that are lost are the kernel's, until it gives them up", () => {
    const at = (state: string) =>
      connectsOf({ paths: [known(A)], controllers: [controller("nvme0", A, { state })] });
    expect(["connecting", "resetting", "new"].map(at)).toEqual([[], [], []]);
    expect(["deleting", "deleting (no IO)", "dead"].map(at)).toEqual([[A], [A], [A]]);
  });

  test("are not connected before anything listens there", () => {
    expect(connectsOf({ paths: [known(A, true), known(B)] })).toEqual([B]);
    const kept = planned({
      paths: [known(A, true), known(B)],
      controllers: [controller("nvme0", A)],
    });
    expect(kept.removals).toEqual([]);
  });

  test("are tried again after a pause, one attempt at a time", () => {
    const key = attemptKey(VOLUME, A);
    const failed = { failures: 1, isRunning: false };
    const waits = planned({
      paths: [known(A), known(C)],
      attempts: { [key]: { ...failed, nextMs: NOW_MS + 5 } },
    });
    expect([waits.connects.map(({ path }) => path), waits.wakeAtMs]).toEqual([[C], NOW_MS + 5]);
    const due = { [key]: { ...failed, nextMs: NOW_MS } };
    expect(connectsOf({ paths: [known(A)], attempts: due })).toEqual([A]);
    const running = { [key]: { failures: 0, isRunning: true, nextMs: 0 } };
    expect(connectsOf({ paths: [known(A)], attempts: running })).toEqual([]);
  });
});

describe("controllers that lead to no path any more", () => {
  const controllers = [controller("nvme0", A), controller("nvme1", B)];
  const since = (agoMs: number) => ({ nvme1: NOW_MS - agoMs });

  test("are removed after a while", () => {
    const first = planned({ paths: [known(A)], controllers });
    expect(first.removals).toEqual([]);
    expect(first.surplusSinceMs).toEqual(new Map([["nvme1", NOW_MS]]));
    expect(first.wakeAtMs).toBe(NOW_MS + SURPLUS_HOLD_MS);
    const early = planned({ paths: [known(A)], controllers, surplus: since(SURPLUS_HOLD_MS - 1) });
    expect(early.removals).toEqual([]);
    const due = planned({ paths: [known(A)], controllers, surplus: since(SURPLUS_HOLD_MS) });
    expect(due.removals).toEqual([
      { controller: "nvme1", reason: "10.0.0.2:8420 is no path of it any more" },
    ]);
    // A path that comes back begins anew.
    expect(planned({ controllers, surplus: since(SURPLUS_HOLD_MS) }).surplusSinceMs.size).toBe(0);
  });

  test("stay as long as they may be the last way, are not known to be superfluous, or are another's", () => {
    const surplus = since(SURPLUS_HOLD_MS);
    const changed = (name: string, changes: Partial<KernelController>) =>
      controllers.map((one) => (one.name === name ? { ...one, ...changes } : one));
    const inaccessible = controllers[0]!.namespaces.map(
      (namespace) => ({ ...namespace, ana: "inaccessible" }) as const,
    );
    const stays: Situation[] = [
      { controllers, isConfirmed: false },
      { controllers: changed("nvme0", { state: "connecting" }) },
      { controllers: changed("nvme0", { namespaces: inaccessible }) },
      { controllers: changed("nvme0", { namespaces: [] }) },
      { controllers: [controllers[1]!] },
      { controllers: changed("nvme1", { state: "deleting" }) },
      { controllers: changed("nvme1", { hostNqn: "nqn.somebody" }) },
    ];
    const removals = stays.map(
      (one) => planned({ paths: [known(A)], surplus, ...one }).removals.length,
    );
    expect(removals).toEqual(stays.map(() => 0));
  });
});

describe("trouble", () => {
  const both = [controller("nvme0", A), controller("nvme1", C)];
  const paths = [known(A), known(C)];

  test("is what is lost or missing, in words", () => {
    expect(trouble({ paths, controllers: both })).toBeNull();
    expect(trouble({ paths: [...paths, known(B, true)], controllers: both })).toBeNull();
    expect(trouble({ paths })).toBe("it is not connected over any path");
    const lost = [both[0]!, { ...both[1]!, state: "connecting" }];
    expect(trouble({ paths, controllers: lost })).toBe("[fd00::3]:8420 is connecting");
    expect(trouble({ controllers: [both[0]!] })).toBe("10.0.0.2:8420 is not connected");
    const none = both.map((one) => ({ ...one, state: "connecting" }));
    expect(trouble({ paths, controllers: none })).toStartWith("no path serves; ");
  });

  test("is told with all paths of the volume, and nothing is told without", () => {
    const told = (situation: Situation) => {
      const { volumes, view } = observed(situation);
      return lostPaths(volumes, view).map((one) => [
        one.volume,
        one.paths.map(({ address, state }) => `${address} ${state}`),
      ]);
    };
    expect(told({ paths, controllers: both })).toEqual([]);
    expect(told({ paths: [known(A), known(B, true)], controllers: [both[0]!] })).toEqual([]);
    expect(told({ controllers: [both[0]!] })).toEqual([
      [VOLUME, ["10.0.0.1 live", "10.0.0.2 lost"]],
    ]);
    const gone = [both[0]!, { ...both[1]!, state: "connecting" }];
    expect(told({ paths: [known(A)], controllers: gone })).toEqual([
      [VOLUME, ["10.0.0.1 live", "fd00::3 lost"]],
    ]);
  });
});
