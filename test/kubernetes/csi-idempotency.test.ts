/**
 * The controller of a real cluster under what Kubernetes may do to it: calls come twice, in any order, at
 * the same time, and are given up by their callers at any moment. Whatever came of each, in the end
 * everything can be given back, and nothing is left: no volume, snapshot, target, standby, replica or
 * connection.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { status } from "@grpc/grpc-js";
import { snapshotIdOf, volumeIdOf } from "../../src/csi/controller/ids.ts";
import { VolumeCapability_AccessMode_Mode as Mode } from "../../src/csi/generated/csi_pb.js";
import { Cluster, endClusters } from "../support/cluster.ts";
import { statusCodeOf } from "../support/csi-client.ts";
import { leftInEngines, startTestDriver, type TestDriver } from "../support/csi-driver.ts";
import { type Random, withSeed } from "../support/random.ts";

const MIB = 1 << 20;
const CALLS = 1_000;
/** Calls that are under way at a time. */
const AT_ONCE = 12;
const HOSTS = ["app-1", "app-2", "node-1"] as const;
const VOLUMES = ["pvc-a", "pvc-b", "pvc-c", "pvc-d", "pvc-e"];
const SNAPSHOTS = ["snap-a", "snap-b"];
/** Longest time that a caller waits who gives up. */
const GIVES_UP_MS = 60;

const capability = {
  accessType: { case: "mount", value: { fsType: "ext4" } },
  accessMode: { mode: Mode.SINGLE_NODE_WRITER },
} as const;

let cluster: Cluster;
let csi: TestDriver;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  for (const node of cluster.nodes) {
    await cluster.createPool(node, `pool-${node.name}`, 2_048 * MIB);
  }
  csi = await startTestDriver(cluster, ["app-1", "app-2"]);
}, 120_000);

afterAll(async () => {
  await csi?.stop();
  await endClusters();
});

interface Asked {
  readonly what: string;
  readonly call: (options: { deadlineMs?: number }) => Promise<unknown>;
  /** Codes that are an answer, beside success and those of a caller that gave up. */
  readonly codes: readonly status[];
}

/** A clone has a name of its own, so that each name always means the same. */
const cloneOf = (snapshot: string) => `clone-of-${snapshot}`;
const allVolumes = [...VOLUMES, ...SNAPSHOTS.map(cloneOf)];

function create(name: string): Asked {
  return {
    what: `create ${name}`,
    call: (options) =>
      csi.controller.createVolume(
        {
          name,
          capacityRange: { requiredBytes: BigInt(16 * MIB) },
          volumeCapabilities: [capability],
          parameters: { repl: name === "pvc-a" ? "1" : "2", thin: "true" },
        },
        options,
      ),
    codes: [status.ABORTED, status.FAILED_PRECONDITION],
  };
}

function clone(snapshot: string): Asked {
  return {
    what: `clone ${snapshot}`,
    call: (options) =>
      csi.controller.createVolume(
        {
          name: cloneOf(snapshot),
          // More than the snapshot has: it is made, and grows.
          capacityRange: { requiredBytes: BigInt(40 * MIB) },
          volumeCapabilities: [capability],
          parameters: { repl: "1", thin: "true" },
          volumeContentSource: {
            type: { case: "snapshot", value: { snapshotId: snapshotIdOf(snapshot) } },
          },
        },
        options,
      ),
    // The snapshot comes and goes under it, and may be one of a volume that has come anew.
    codes: [status.NOT_FOUND, status.ABORTED, status.FAILED_PRECONDITION],
  };
}

function destroy(name: string): Asked {
  return {
    what: `delete ${name}`,
    call: (options) => csi.controller.deleteVolume({ volumeId: volumeIdOf(name) }, options),
    codes: [status.FAILED_PRECONDITION],
  };
}

function publish(name: string, nodeId: string): Asked {
  return {
    what: `publish ${name} to ${nodeId}`,
    call: (options) =>
      csi.controller.controllerPublishVolume(
        { volumeId: volumeIdOf(name), nodeId, volumeCapability: capability },
        options,
      ),
    codes: [status.NOT_FOUND, status.FAILED_PRECONDITION],
  };
}

function unpublish(name: string, nodeId: string): Asked {
  return {
    what: `unpublish ${name} from ${nodeId}`,
    call: (options) =>
      csi.controller.controllerUnpublishVolume({ volumeId: volumeIdOf(name), nodeId }, options),
    codes: [],
  };
}

function expand(name: string, mib: number): Asked {
  return {
    what: `expand ${name} to ${mib} MiB`,
    call: (options) =>
      csi.controller.controllerExpandVolume(
        { volumeId: volumeIdOf(name), capacityRange: { requiredBytes: BigInt(mib * MIB) } },
        options,
      ),
    codes: [status.NOT_FOUND, status.FAILED_PRECONDITION],
  };
}

function snapshot(name: string): Asked {
  return {
    what: `snapshot ${name}`,
    call: (options) =>
      csi.controller.createSnapshot({ name, sourceVolumeId: volumeIdOf("pvc-b") }, options),
    codes: [status.NOT_FOUND, status.FAILED_PRECONDITION],
  };
}

function forget(name: string): Asked {
  return {
    what: `delete ${name}`,
    call: (options) => csi.controller.deleteSnapshot({ snapshotId: snapshotIdOf(name) }, options),
    codes: [status.FAILED_PRECONDITION],
  };
}

function look(name: string): Asked {
  return {
    what: `look at ${name}`,
    call: async (options) => {
      await csi.controller.listVolumes({ maxEntries: 3 }, options);
      await csi.controller.controllerGetVolume({ volumeId: volumeIdOf(name) }, options);
    },
    codes: [status.NOT_FOUND],
  };
}

function anyCall(random: Random): Asked {
  const name = random.pick(allVolumes);
  const taken = random.pick(SNAPSHOTS);
  switch (random.below(10)) {
    case 0:
    case 1:
      return create(random.pick(VOLUMES));
    case 2:
    case 3:
      return publish(name, random.pick(HOSTS));
    case 4:
    case 5:
      return unpublish(name, random.pick(HOSTS));
    case 6:
      return random.chance(0.5) ? destroy(name) : look(name);
    case 7:
      return expand(name, random.pick([24, 32, 48]));
    case 8:
      return random.chance(0.7) ? snapshot(taken) : forget(taken);
    default:
      return clone(taken);
  }
}

const gaveUp: readonly status[] = [status.DEADLINE_EXCEEDED, status.CANCELLED];

/** How often each kind of call ended with each status. */
const endings = new Map<string, number>();

function note(what: string, code: status): void {
  const ending = `${what.split(" ")[0]} ${status[code]}`;
  endings.set(ending, (endings.get(ending) ?? 0) + 1);
}

async function carryOut(asked: Asked, deadlineMs: number | undefined): Promise<void> {
  const answer = asked.call(deadlineMs === undefined ? {} : { deadlineMs });
  const code = await statusCodeOf(answer);
  note(asked.what, code);
  const allowed = [status.OK, ...asked.codes, ...(deadlineMs === undefined ? [] : gaveUp)];
  if (allowed.includes(code)) return;
  const said = await answer.catch((error: Error) => error.message);
  throw new Error(`${asked.what}: ${status[code]}: ${said}`);
}

/** Gives everything back, as Kubernetes does, and expects that nothing at all is left of it. */
async function giveBack(): Promise<void> {
  for (const name of allVolumes) {
    for (const host of HOSTS) await carryOut(unpublish(name, host), undefined);
    expect(await statusCodeOf(destroy(name).call({}))).toBe(status.OK);
  }
  for (const name of SNAPSHOTS) expect(await statusCodeOf(forget(name).call({}))).toBe(status.OK);
  await cluster.isSettled();
  expect((await cluster.rest.volumes()).map(({ spec }) => spec.uuid)).toEqual([]);
  expect(await cluster.rest.snapshots({})).toEqual([]);
  expect(await cluster.rest.get<unknown[]>("/nexuses")).toEqual([]);
  expect(await cluster.rest.get<unknown[]>("/replicas")).toEqual([]);
  expect(await leftInEngines(cluster)).toEqual([]);
}

test("a late unpublish of another node changes nothing", async () => {
  const nodes = async () => {
    const { status: is } = await csi.controller.controllerGetVolume({
      volumeId: volumeIdOf("pvc-a"),
    });
    return is?.publishedNodeIds;
  };
  await create("pvc-a").call({});
  await publish("pvc-a", "app-1").call({});
  await unpublish("pvc-a", "app-2").call({});
  expect(await nodes()).toEqual(["app-1"]);
  expect(await statusCodeOf(publish("pvc-a", "app-2").call({}))).toBe(status.FAILED_PRECONDITION);
  expect(await statusCodeOf(destroy("pvc-a").call({}))).toBe(status.FAILED_PRECONDITION);
  await unpublish("pvc-a", "app-1").call({});
  await publish("pvc-a", "app-2").call({});
  await unpublish("pvc-a", "app-1").call({});
  expect(await nodes()).toEqual(["app-2"]);
  await giveBack();
});

test("repeated calls give the same answer", async () => {
  const twice = async ({ call }: Asked) => {
    const first = await call({});
    expect(await call({})).toEqual(first);
  };
  await twice(create("pvc-b"));
  await twice(publish("pvc-b", "app-1"));
  await twice(snapshot("snap-a"));
  await twice(clone("snap-a"));
  await twice(expand("pvc-b", 32));
  await twice(unpublish("pvc-b", "app-1"));
  await giveBack();
});

test("a creation that was given up is found by the next call, whichever that is", async () => {
  for (const deadlineMs of [1, 5, 10, 20, 40, 80]) {
    await carryOut(create("pvc-c"), deadlineMs);
    expect(await statusCodeOf(destroy("pvc-c").call({}))).toBe(status.OK);
    expect(await statusCodeOf(look("pvc-c").call({}))).toBe(status.NOT_FOUND);
    await carryOut(create("pvc-c"), deadlineMs);
    await create("pvc-c").call({});
    await carryOut(publish("pvc-c", "app-1"), deadlineMs);
    await carryOut(unpublish("pvc-c", "app-1"), undefined);
    expect(await statusCodeOf(destroy("pvc-c").call({}))).toBe(status.OK);
  }
  await giveBack();
}, 60_000);

test(`${CALLS} calls, twice, at once, out of order and given up: nothing is left`, async () => {
  await withSeed(import.meta.path, async (random) => {
    const calls = Array.from({ length: CALLS }, () => ({
      asked: anyCall(random),
      deadlineMs: random.chance(0.4) ? random.between(1, GIVES_UP_MS) : undefined,
      isTwice: random.chance(0.2),
    }));
    endings.clear();
    let next = 0;
    const lane = async () => {
      for (let call = calls[next++]; call !== undefined; call = calls[next++]) {
        const { asked, deadlineMs, isTwice } = call;
        const copies = isTwice ? [deadlineMs, undefined] : [deadlineMs];
        await Promise.all(copies.map((ms) => carryOut(asked, ms)));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
    // Every kind was done, and given up: whatever the seed, it was no run of refusals.
    console.log(
      [...endings]
        .sort()
        .map(([ending, times]) => `${ending} ${times}`)
        .join(", "),
    );
    for (const kind of ["create", "publish", "unpublish", "delete", "snapshot", "expand"]) {
      expect([kind, (endings.get(`${kind} OK`) ?? 0) > 0]).toEqual([kind, true]);
    }
    const givenUp = [...endings].filter(([ending]) => /DEADLINE_EXCEEDED|CANCELLED/.test(ending));
    expect(givenUp.length).toBeGreaterThan(0);
    await giveBack();
  });
}, 180_000);
