/** Which volumes nobody can ask for any more. */
import { describe, expect, test } from "bun:test";
import type { Volume } from "../../../src/client/types.ts";
import { type Claimed, garbageOf } from "../../../src/kube/garbage/decide.ts";

const MINUTE = 60_000;

function volume(uuid: string, spec: Partial<Volume["spec"]> = {}): Volume {
  return {
    spec: {
      ...{ uuid, status: "Created", size: 1, num_replicas: 1, thin: false, num_snapshots: 0 },
      policy: { self_heal: true },
      labels: { "openebs.io/created-by": "csi-controller" },
      ...spec,
    },
    state: { replica_topology: {} },
  } as unknown as Volume;
}

const claimed = (handles: readonly string[], claims: readonly string[] = []): Claimed => ({
  persistentVolumes: handles.map((volumeHandle) => ({
    metadata: { name: `pv-of-${volumeHandle}` },
    spec: { csi: { driver: "d", volumeHandle } },
  })),
  claims: claims.map((uid) => ({ metadata: { name: "c", uid } })),
});

/** Two looks a minute apart; what the second one deletes. */
function collected(
  volumes: readonly Volume[],
  named: Claimed,
  { lost = [] as string[], sweeps = true } = {},
) {
  const first = garbageOf(volumes, named, new Set(lost), sweeps, new Map(), 0, MINUTE);
  expect(first.ids).toEqual([]);
  const { unclaimed } = first;
  return garbageOf(volumes, named, new Set(lost), sweeps, unclaimed, MINUTE, MINUTE);
}

describe("a volume that nothing names", () => {
  test("goes at the second look, a minute later", () => {
    expect(collected([volume("a"), volume("b")], claimed(["b"])).ids).toEqual(["a"]);
  });

  test("stays when it is named in between", () => {
    const volumes = [volume("a"), volume("b")];
    const none = new Set<string>();
    const first = garbageOf(volumes, claimed(["b"]), none, true, new Map(), 0, MINUTE);
    const { unclaimed } = first;
    const back = garbageOf(volumes, claimed(["a", "b"]), none, true, unclaimed, 30_000, MINUTE);
    expect(back.unclaimed.size).toBe(0);
    const third = garbageOf(volumes, claimed(["b"]), none, true, back.unclaimed, MINUTE, MINUTE);
    expect(third.ids).toEqual([]);
  });

  test.each([
    ["a claim has its id", volume("a"), claimed(["b"], ["a"])],
    ["a PersistentVolume has it for its handle", volume("a"), claimed(["A", "b"])],
    ["it was made by somebody else", volume("a", { labels: {} }), claimed(["b"])],
    ["it is published", volume("a", { target: { node: "n" } }), claimed(["b"])],
    ["it has snapshots", volume("a", { num_snapshots: 1 }), claimed(["b"])],
    ["it is being made", volume("a", { status: "Creating" }), claimed(["b"])],
  ])("stays when %s", (_why, one, named) => {
    expect(collected([one, volume("b")], named).ids).toEqual([]);
  });

  test("stays, and says so, when this Kubernetes knows none of the volumes", () => {
    const { ids, refusal } = collected([volume("a"), volume("b")], claimed([]));
    expect(ids).toEqual([]);
    expect(refusal).toStartWith("2 volumes have no claim, but neither has any other");
  });

  test("is not looked for unless that is asked for", () => {
    expect(collected([volume("a"), volume("b")], claimed(["b"]), { sweeps: false }).ids).toEqual(
      [],
    );
  });
});

test("a volume whose PersistentVolume was deleted goes, whoever made it, unless it is named again", () => {
  const own = volume("a", { labels: {} });
  const options = { lost: ["a"], sweeps: false };
  expect(collected([own], claimed([]), options).ids).toEqual(["a"]);
  expect(collected([own], claimed([], ["a"]), options).ids).toEqual([]);
});
