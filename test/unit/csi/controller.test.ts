/** The parts of the controller that decide by themselves: ids, capabilities, placement, pages, capacity. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import type { Node, Page, Pool } from "../../../src/client/types.ts";
import { volumeClassOf } from "../../../src/csi/class-parameters.ts";
import { whyUnsupported } from "../../../src/csi/controller/capabilities.ts";
import { roomFor } from "../../../src/csi/controller/capacity.ts";
import {
  affinityGroupOf,
  capacityRangeOf,
  placementOf,
} from "../../../src/csi/controller/create-volume.ts";
import { isId, snapshotIdOf, volumeIdOf } from "../../../src/csi/controller/ids.ts";
import { pageAfter } from "../../../src/csi/controller/paging.ts";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  TopologyRequirementSchema,
  VolumeCapabilitySchema,
} from "../../../src/csi/generated/csi_pb.js";
import { makeLanes } from "../../../src/csi/lanes.ts";

const uuid = "0b9e0d3c-7e2a-4d2c-9d58-0f8f0c3c1a11";
const never = new AbortController().signal;

describe("ids", () => {
  test("are those that the names carry", () => {
    expect(volumeIdOf(`pvc-${uuid}`)).toBe(uuid);
    expect(volumeIdOf(`pvc-${uuid.toUpperCase()}`)).toBe(uuid);
    expect(snapshotIdOf(`snapshot-${uuid}`)).toBe(uuid);
  });

  test("of other names are UUIDs of version 5, and always the same", () => {
    const id = volumeIdOf("my volume");
    expect(id).toBe(volumeIdOf("my volume"));
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const others = [
      volumeIdOf("my volum"),
      volumeIdOf(`snapshot-${uuid}`),
      snapshotIdOf("my volume"),
    ];
    expect(new Set([id, ...others]).size).toBe(4);
    for (const other of others) expect(isId(other)).toBe(true);
  });

  test("have a name, of 128 bytes at most", () => {
    expect(() => volumeIdOf("")).toThrow("no name");
    expect(isId(volumeIdOf("x".repeat(128)))).toBe(true);
    expect(() => volumeIdOf("ü".repeat(65))).toThrow("130 bytes");
  });
});

describe("capabilities", () => {
  const mount = (mode: Mode, fsType = "") =>
    create(VolumeCapabilitySchema, {
      accessType: { case: "mount", value: { fsType } },
      accessMode: { mode },
    });
  const block = (mode: Mode) =>
    create(VolumeCapabilitySchema, {
      accessType: { case: "block", value: {} },
      accessMode: { mode },
    });

  test("of one writing node, and of many reading ones, can be had", () => {
    for (const mode of [
      Mode.SINGLE_NODE_WRITER,
      Mode.SINGLE_NODE_READER_ONLY,
      Mode.SINGLE_NODE_SINGLE_WRITER,
      Mode.SINGLE_NODE_MULTI_WRITER,
    ]) {
      expect([whyUnsupported(mount(mode, "xfs")), whyUnsupported(block(mode))]).toEqual([
        null,
        null,
      ]);
    }
    expect(whyUnsupported(mount(Mode.MULTI_NODE_READER_ONLY))).toBeNull();
  });

  test("that would let data be lost cannot", () => {
    for (const mode of [
      Mode.MULTI_NODE_SINGLE_WRITER,
      Mode.MULTI_NODE_MULTI_WRITER,
      Mode.UNKNOWN,
    ]) {
      expect(whyUnsupported(mount(mode))).toContain("one node writes at a time");
    }
    expect(whyUnsupported(block(Mode.MULTI_NODE_READER_ONLY))).toContain("file systems only");
    expect(whyUnsupported(mount(Mode.SINGLE_NODE_WRITER, "ntfs"))).toContain("ntfs");
    expect(whyUnsupported(create(VolumeCapabilitySchema, {}))).toContain("access type");
  });
});

describe("sizes and groups", () => {
  test("a range without anything in it is refused", () => {
    expect(capacityRangeOf(undefined)).toEqual({ requiredBytes: 0, limitBytes: 0 });
    expect(() => capacityRangeOf({ requiredBytes: 2n, limitBytes: 1n })).toThrow("at most 1");
    expect(() => capacityRangeOf({ requiredBytes: -1n, limitBytes: 0n })).toThrow("-1");
    expect(() => capacityRangeOf({ requiredBytes: 1n << 62n, limitBytes: 0n })).toThrow("bytes");
  });

  test("claims of a StatefulSet are a group, others are not", () => {
    const named = (name: string) =>
      affinityGroupOf({
        "csi.storage.k8s.io/pvc/name": name,
        "csi.storage.k8s.io/pvc/namespace": "shop",
      });
    expect(named("data-db-0")).toBe("shop/data-db");
    expect(named("data-db-12")).toBe("shop/data-db");
    expect(named("data")).toBeNull();
    expect(affinityGroupOf({ "csi.storage.k8s.io/pvc/name": "data-0" })).toBeNull();
  });
});

describe("placement", () => {
  const asked = (...names: string[]) => {
    const topologies = names.map((name) => ({
      segments: { "openebs.io/nodename": name, "openebs.io/csi-node": "mayastor" },
    }));
    const requirement = { requisite: topologies, preferred: topologies };
    return { accessibilityRequirements: create(TopologyRequirementSchema, requirement) };
  };
  const plain = volumeClassOf({}, "class");

  test("is the cluster's own unless data is to be close to whoever uses it", () => {
    expect(placementOf(plain, asked("n1", "n2"), "none")).toBeNull();
    expect(placementOf(plain, asked("n1", "n2"), "preferred")).toEqual({
      node_topology: { explicit: { allowed_nodes: [], preferred_nodes: ["n1"] } },
    });
    const local = volumeClassOf({ dataLocality: "preferred" }, "class");
    expect(placementOf(local, asked("n2"), "none")).not.toBeNull();
    const remote = volumeClassOf({ dataLocality: "none" }, "class");
    expect(placementOf(remote, asked("n2"), "preferred")).toBeNull();
  });

  test("by labels of nodes is not overruled", () => {
    const spread = volumeClassOf({ nodeSpreadTopologyKey: "zone" }, "class");
    expect(placementOf(spread, asked("n1"), "preferred")).toEqual(spread.topology);
  });

  test("where no node runs the driver is refused", () => {
    const topologies = [{ segments: { "openebs.io/csi-node": "other" } }];
    const accessibilityRequirements = create(TopologyRequirementSchema, { requisite: topologies });
    expect(() => placementOf(plain, { accessibilityRequirements }, "none")).toThrow("no node");
  });
});

describe("pages", () => {
  const ids = (count: number) =>
    Array.from(
      { length: count },
      (_, at) => `00000000-0000-4000-8000-${String(at).padStart(12, "0")}`,
    );
  const listing = (of: { ids: string[] }) => ({
    idOf: (id: string) => id,
    page: async (from: number, count: number): Promise<Page<string>> => {
      const end = count === 0 ? of.ids.length : from + count;
      const entries = of.ids.slice(from, end);
      return end < of.ids.length ? { entries, next_token: end } : { entries };
    },
  });

  test("hold everything once, of whatever size they are", async () => {
    const all = { ids: ids(23) };
    for (const maxEntries of [0, 1, 4, 23, 50]) {
      const seen: string[] = [];
      let startingToken = "";
      do {
        const page = await pageAfter({ maxEntries, startingToken }, listing(all));
        seen.push(...page.entries);
        startingToken = page.nextToken;
      } while (startingToken !== "");
      expect(seen).toEqual(all.ids);
    }
  });

  test("go on after the last entry although it, or one before it, has gone", async () => {
    const all = { ids: ids(10) };
    const { entries, nextToken } = await pageAfter(
      { maxEntries: 4, startingToken: "" },
      listing(all),
    );
    const rest = all.ids.slice(4);
    for (const gone of [entries.at(-1)!, entries[0]!]) {
      const left = { ids: all.ids.filter((id) => id !== gone) };
      const next = await pageAfter({ maxEntries: 0, startingToken: nextToken }, listing(left));
      expect(next.entries).toEqual(rest);
    }
  });

  test("of what is no token are refused", async () => {
    for (const startingToken of ["x", "4", "-1.", `4.${"z".repeat(36)}`]) {
      const asked = pageAfter({ maxEntries: 1, startingToken }, listing({ ids: [] }));
      expect(await asked.catch((error: unknown) => error)).toMatchObject({ code: "Aborted" });
    }
  });
});

describe("capacity", () => {
  const GiB = 2 ** 30;
  const node = (id: string, labels = {}, cordoned = false): Node => ({
    id,
    spec: {
      grpcEndpoint: "",
      id,
      labels,
      cordondrainstate: cordoned ? { cordonedstate: { cordonlabels: ["x"] } } : null,
    },
    state: { grpcEndpoint: "", id, status: "Online" },
  });
  const pool = (id: string, on: string, used: number, more: Partial<Pool["spec"]> = {}): Pool => ({
    id,
    spec: { disks: [], id, node: on, status: "Created", ...more },
    state: {
      capacity: 10 * GiB,
      committed: used * GiB,
      disks: [],
      id,
      node: on,
      status: "Online",
      used: used * GiB,
    },
  });
  const nodes = [node("n1", { zone: "a" }), node("n2", { zone: "b" }), node("n3", { zone: "b" })];
  const pools = [
    pool("p1", "n1", 1),
    pool("p2", "n2", 4),
    pool("p3", "n3", 8),
    pool("p4", "n3", 6),
  ];
  const settings = { poolCommitmentPercent: 250, volumeCommitmentInitialPercent: 40 };
  const room = (parameters: Record<string, string>, segments = {}, of = { pools, nodes }) =>
    roomFor(volumeClassOf(parameters, "class"), segments, { ...of, settings });

  test("is what is free, not what there is", () => {
    expect(room({})).toEqual({ availableBytes: 21 * GiB, largestBytes: 9 * GiB });
  });

  test("of mirrored volumes is that of as many nodes", () => {
    expect(room({ repl: "2" })).toEqual({ availableBytes: 10.5 * GiB, largestBytes: 6 * GiB });
    expect(room({ repl: "3" })).toEqual({ availableBytes: 7 * GiB, largestBytes: 4 * GiB });
    expect(room({ repl: "4" })).toEqual({ availableBytes: 0, largestBytes: 0 });
  });

  test("of thin volumes is bound by what may be promised, and by what is free", () => {
    // 1 used of 10: 24 may be promised, 9 free cover 22.5, the pool itself has 10.
    expect(room({ thin: "true" }).largestBytes).toBe(10 * GiB);
    const full = { pools: [pool("p1", "n1", 9)], nodes };
    expect(room({ thin: "true" }, {}, full).largestBytes).toBe(2.5 * GiB);
  });

  test("honours topology and labels", () => {
    expect(room({}, { "openebs.io/nodename": "n2" }).largestBytes).toBe(6 * GiB);
    expect(room({}, { "openebs.io/nodename": "nowhere" }).availableBytes).toBe(0);
    expect(room({}, { "openebs.io/csi-node": "mayastor" }).largestBytes).toBe(9 * GiB);
    expect(room({}, { zone: "b" }).availableBytes).toBe(12 * GiB);
    // One replica there, the other wherever there is room.
    const mirrored = room({ repl: "2" }, { "openebs.io/nodename": "n3" });
    expect(mirrored).toEqual({ availableBytes: 6 * GiB, largestBytes: 4 * GiB });
    const labelled = [...pools, pool("p5", "n2", 0, { labels: { disk: "nvme" } })];
    const chosen = room(
      { poolAffinityTopologyLabel: "disk: nvme" },
      {},
      { pools: labelled, nodes },
    );
    expect(chosen).toEqual({ availableBytes: 10 * GiB, largestBytes: 10 * GiB });
  });

  test("counts nothing that takes no replica", () => {
    const away = [node("n1", {}, true), ...nodes.slice(1)];
    expect(room({}, {}, { pools, nodes: away }).largestBytes).toBe(6 * GiB);
    const cordoned = pools.map((one) => ({ ...one, spec: { ...one.spec!, cordoned: true } }));
    expect(room({}, {}, { pools: cordoned, nodes }).availableBytes).toBe(0);
  });
});

describe("calls about one thing", () => {
  test("come one after the other, those about others beside them", async () => {
    const lanes = makeLanes();
    const order: string[] = [];
    const gate = Promise.withResolvers<void>();
    const first = lanes.run("a", never, async () => {
      order.push("first begins");
      await gate.promise;
      order.push("first ends");
    });
    const second = lanes.run("a", never, async () => void order.push("second"));
    await lanes.run("b", never, async () => void order.push("beside"));
    expect(order).toEqual(["first begins", "beside"]);
    gate.resolve();
    await Promise.all([first, second]);
    expect(order).toEqual(["first begins", "beside", "first ends", "second"]);
    expect(lanes.busy).toBe(0);
  });

  test("that failed, or whose caller has gone, let the next one through", async () => {
    const lanes = makeLanes();
    const gone = new AbortController();
    const failing = lanes.run("a", never, () => Promise.reject(new Error("no")));
    const left = lanes.run("a", gone.signal, async () => "must not run");
    const next = lanes.run("a", never, async () => "runs");
    gone.abort(new Error("gone"));
    expect(await failing.catch((error: Error) => error.message)).toBe("no");
    expect(await left.catch((error: Error) => error.message)).toBe("gone");
    expect(await next).toBe("runs");
    expect(lanes.busy).toBe(0);
  });

  test("that are too many are turned away", async () => {
    const lanes = makeLanes();
    const gate = Promise.withResolvers<void>();
    const waiting = Array.from({ length: 33 }, () => lanes.run("a", never, () => gate.promise));
    const more = await lanes.run("a", never, async () => {}).catch((error: unknown) => error);
    expect(more).toMatchObject({ code: "Aborted" });
    gate.resolve();
    await Promise.all(waiting);
    expect(lanes.busy).toBe(0);
  });
});
