/**
 * The CSI node service on Debian's kernel: `trilith csi --node` in a guest, as two nodes of Kubernetes,
 * against a cluster of three nodes. What is connected, formatted and mounted is seen in the guest itself.
 */

import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { publishContextOf } from "../../src/csi/publish-context.ts";
import { nodeHostNqn, nqnOf } from "../../src/names.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "../initiator/limits.ts";
import { moreWritten, underLoad } from "../initiator/load.ts";
import { Guest } from "../initiator/vm.ts";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../support/cluster.ts";
import { isWholeWith } from "../support/cluster-volumes.ts";
import { CallError, GuestCalls, GuestKubelet } from "../support/guest-kubelet.ts";
import type { WantedUse } from "../support/node-calls.ts";
import { withSeed } from "../support/random.ts";

const MIB = 1 << 20;
const POOL_BYTES = 1024 * MIB;
const VOLUME_BYTES = 128 * MIB;
/** mkfs.xfs makes nothing below 300 MiB. */
const XFS_BYTES = 304 * MIB;
/** How long the guest waits for one thing, in seconds of its own clock, which may run fast. */
const PATIENCE_S = 600;
/** Calls that are cut off, repeated and reordered. */
const CALLS = 24;
const GrpcCode = { ALREADY_EXISTS: 6, FAILED_PRECONDITION: 9 } as const;

let guest: Guest;
let calls: GuestCalls;
let cluster: Cluster;
let a: GuestKubelet;
let b: GuestKubelet;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  const boot = async () => {
    guest = await Guest.boot();
    await guest.install();
    calls = await GuestCalls.start(guest);
  };
  [cluster] = await Promise.all([Cluster.start(3), boot()]);
  for (const node of cluster.nodes) await cluster.createPool(node, `pool-${node.name}`, POOL_BYTES);
  const rest = cluster.nodes[0]!.restUrl;
  a = new GuestKubelet(guest, calls, "kubelet-a", rest);
  b = new GuestKubelet(guest, calls, "kubelet-b", rest);
  await a.start();
  await b.start();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await calls?.stop();
  await guest?.stop();
  await endClusters();
});

const isWhole = isWholeWith(3);

async function newVolume(bytes: number): Promise<string> {
  const uuid = randomUUID();
  await cluster.rest.createVolume(uuid, {
    size: bytes,
    replicas: 3,
    thin: true,
    policy: { self_heal: true },
  });
  return uuid;
}

/** What ControllerPublishVolume does and answers. */
async function publishTo(kubelet: GuestKubelet, uuid: string): Promise<Record<string, string>> {
  const hostNqn = nodeHostNqn(kubelet.name);
  await cluster.rest.publishVolume(uuid, {
    publish_context: {},
    protocol: "nvmf",
    frontend_node: kubelet.name,
  });
  await waitUntil("the volume whole", () => cluster.rest.volume(uuid), isWhole);
  const paths = await waitUntil(
    "all paths there",
    () => cluster.rest.paths(uuid),
    (all) => all.length === 3 && all.every(({ state }) => state !== "pending"),
  );
  const uris = paths.map(({ uri }) => uri);
  return publishContextOf({
    uri: uris[0]!,
    connect: {
      volumeUuid: uuid,
      nqn: nqnOf(uuid),
      hostNqn,
      paths: uris.map((uri) => {
        const { hostname, port } = new URL(uri);
        return { address: hostname, port: Number(port) };
      }),
      options: { ctrlLossTmoSeconds: 600, reconnectDelaySeconds: 1, keepAliveTmoSeconds: 5 },
    },
    fsId: null,
    ioTimeout: null,
  });
}

async function unpublishFrom(kubelet: GuestKubelet, uuid: string): Promise<void> {
  await cluster.rest.unpublishVolume(uuid, false, kubelet.name);
}

/** The node that serves the volume. */
async function servingNode(uuid: string, isIt: (node: ClusterNode) => boolean) {
  const volume = await waitUntil(
    "the volume served",
    () => cluster.rest.volume(uuid),
    ({ state }) => cluster.nodes.some((node) => node.name === state.target?.node && isIt(node)),
  );
  return cluster.nodes.find((node) => node.name === volume.state.target!.node)!;
}

async function failsWith(call: Promise<unknown>, code: number, saying: RegExp): Promise<void> {
  const outcome = await call.then(
    () => null,
    (error: unknown) => error,
  );
  if (!(outcome instanceof CallError)) throw new Error(`no such error: ${outcome}`);
  expect(`${outcome.code}: ${outcome.message}`).toMatch(new RegExp(`^${code}: `));
  expect(outcome.message).toMatch(saying);
}

/** Nothing of any volume is left in the guest. */
async function expectNothingLeft(): Promise<void> {
  const left = await guest.ok(
    "grep -E 'kubelet-|nvme' /proc/self/mountinfo || true; ls /sys/class/nvme; ls /run/trilith/csi 2>/dev/null || true",
  );
  expect(left.trim()).toBe("");
}

afterEach(async () => {
  await expectNothingLeft();
  // Errors of I/O and of file systems would be among its complaints.
  expect(guest.complaints()).toEqual([]);
});

const DIGEST =
  "dd if=/dev/urandom of=$1/data bs=1M count=8 conv=fsync 2>/dev/null; sha256sum <$1/data";

test.each([
  ["ext4", VOLUME_BYTES],
  ["xfs", XFS_BYTES],
] as const)(
  "%s: what is written on kubelet A through the loss of the target's node is there on kubelet B",
  async (fsType, bytes) => {
    const uuid = await newVolume(bytes);
    const use: WantedUse = { fsType };
    const context = await publishTo(a, uuid);
    for (const _ of [1, 2]) {
      await a.stage(uuid, context, use);
      await a.publish(uuid, use);
    }
    const sum = await guest.ok(DIGEST, { args: [a.target(uuid)] });
    const first = await servingNode(uuid, () => true);
    await guest.ok(`wait_for ${PATIENCE_S} has_live_paths ${nqnOf(uuid)} 3`);
    await underLoad(guest, { target: a.target(uuid), options: "--fsync=16" }, async () => {
      await moreWritten(guest, nqnOf(uuid), first.address);
      await first.kill();
      const next = await servingNode(uuid, (node) => node !== first);
      await moreWritten(guest, nqnOf(uuid), next.address);
      await first.start();
    });
    const busy = guest.ok(
      `cd ${a.target(uuid)}; touch /tmp/in; wait_for ${PATIENCE_S} test -e /tmp/out`,
    );
    await guest.ok(`wait_for ${PATIENCE_S} test -e /tmp/in`);
    await failsWith(
      a.unpublish(uuid),
      GrpcCode.FAILED_PRECONDITION,
      /bash \(process \d+\) works in/,
    );
    await guest.ok("touch /tmp/out");
    await busy;
    await guest.ok("rm /tmp/in /tmp/out");
    await failsWith(a.unstage(uuid), GrpcCode.FAILED_PRECONDITION, /unpublished/);
    for (const _ of [1, 2]) await a.unpublish(uuid);
    for (const _ of [1, 2]) await a.unstage(uuid);
    await expectNothingLeft();
    await unpublishFrom(a, uuid);

    await b.stage(uuid, await publishTo(b, uuid), use);
    await b.publish(uuid, use);
    expect(await guest.ok("sha256sum <$1/data", { args: [b.target(uuid)] })).toBe(sum);
    await b.unpublish(uuid);
    await b.unstage(uuid);
    await unpublishFrom(b, uuid);
    await cluster.rest.deleteVolume(uuid);
  },
);

test("a raw block device goes from kubelet A to kubelet B, and grows while it is in use", async () => {
  const uuid = await newVolume(VOLUME_BYTES);
  const use: WantedUse = { block: true };
  await a.stage(uuid, await publishTo(a, uuid), use);
  await a.publish(uuid, use);
  const write =
    "dd if=/dev/urandom bs=1M count=4 2>/dev/null | tee /tmp/written | dd of=$1 bs=1M oflag=direct iflag=fullblock 2>/dev/null; sha256sum </tmp/written";
  const sum = await guest.ok(write, { args: [a.target(uuid)] });
  const grown = VOLUME_BYTES + 64 * MIB;
  await cluster.rest.resizeVolume(uuid, grown);
  const answer = await a.call("nodeExpandVolume", {
    volumeId: uuid,
    volumePath: a.target(uuid),
    capacityRange: { requiredBytes: String(grown) },
  });
  expect(answer).toEqual({ capacityBytes: String(grown) });
  await a.unpublish(uuid);
  await a.unstage(uuid);
  await unpublishFrom(a, uuid);
  await b.stage(uuid, await publishTo(b, uuid), use);
  await b.publish(uuid, use);
  const read =
    "dd if=$1 bs=1M count=4 iflag=direct 2>/dev/null | sha256sum; blockdev --getsize64 $1";
  const lines = (await guest.ok(read, { args: [b.target(uuid)] })).split("\n");
  expect(lines).toEqual([sum, String(grown)]);
  await b.unpublish(uuid);
  await b.unstage(uuid);
  await unpublishFrom(b, uuid);
  await cluster.rest.deleteVolume(uuid);
});

test("an ext4 grows while it is written to", async () => {
  const uuid = await newVolume(VOLUME_BYTES);
  const use: WantedUse = { fsType: "ext4" };
  await a.stage(uuid, await publishTo(a, uuid), use);
  await a.publish(uuid, use);
  const grown = 2 * VOLUME_BYTES;
  const stats = async () => {
    const answer = await a.call("nodeGetVolumeStats", {
      volumeId: uuid,
      volumePath: a.target(uuid),
    });
    return answer as { usage: { total: string }[]; volumeCondition: { abnormal?: boolean } };
  };
  const before = await stats();
  expect(before.volumeCondition.abnormal ?? false).toBe(false);
  await underLoad(guest, { target: a.target(uuid) }, async () => {
    await cluster.rest.resizeVolume(uuid, grown);
    const answer = await a.call("nodeExpandVolume", {
      volumeId: uuid,
      volumePath: a.target(uuid),
      capacityRange: { requiredBytes: String(grown) },
    });
    expect(answer).toEqual({ capacityBytes: String(grown) });
  });
  const after = await stats();
  expect(Number(after.usage[0]!.total) - Number(before.usage[0]!.total)).toBeGreaterThan(100 * MIB);
  await a.unpublish(uuid);
  await a.unstage(uuid);
  await unpublishFrom(a, uuid);
  await cluster.rest.deleteVolume(uuid);
});

test("calls cut off by their deadlines, repeated and out of order, leave nothing behind", async () => {
  const uuid = await newVolume(VOLUME_BYTES);
  const use: WantedUse = { fsType: "ext4" };
  const context = await publishTo(a, uuid);
  const act = {
    stage: (deadlineMs?: number) => a.stage(uuid, context, use, deadlineMs),
    publish: (deadlineMs?: number) => a.publish(uuid, use, deadlineMs),
    unpublish: (deadlineMs?: number) => a.unpublish(uuid, deadlineMs),
    unstage: (deadlineMs?: number) => a.unstage(uuid, deadlineMs),
  };
  const names = ["stage", "publish", "unpublish", "unstage"] as const;
  await withSeed(import.meta.path, async (random) => {
    for (let round = 0; round < CALLS; round++) {
      const name = random.pick(names);
      // The first is cut off for sure, so that at least one is.
      const deadlineMs = round === 0 ? 1 : random.between(1, 1_500);
      const outcome = await act[name](deadlineMs).catch((error: unknown) => error);
      if (outcome === undefined) continue;
      if (!(outcome instanceof CallError)) throw outcome;
      // Cut off, met by one that goes on still, or not possible in this order.
      expect([4, 9, 10]).toContain(outcome.code);
    }
  });
  const settle = async (call: () => Promise<void>) => {
    await waitUntil(
      "a call that succeeds",
      () =>
        call().then(
          () => true,
          (error: unknown) => (error as CallError).message,
        ),
      (answer) => answer === true,
    );
  };
  await settle(act.stage);
  await settle(act.publish);
  await guest.ok("echo kept >$1/file; sync", { args: [a.target(uuid)] });
  await settle(act.unpublish);
  await settle(act.unstage);
  await expectNothingLeft();
  await a.stage(uuid, context, use);
  expect(await guest.ok("cat $1/file", { args: [a.staging(uuid)] })).toBe("kept");
  await a.unstage(uuid);
  await unpublishFrom(a, uuid);
  await cluster.rest.deleteVolume(uuid);
});

test("the driver is killed in the middle of a stage and started again: the volume is used as if nothing was", async () => {
  const uuid = await newVolume(VOLUME_BYTES);
  const use: WantedUse = { fsType: "ext4" };
  const context = await publishTo(a, uuid);
  for (const stopAt of ["connected", "mkfs"] as const) {
    const cutOff = a.stage(uuid, context, use).catch(() => undefined);
    const reached =
      stopAt === "connected"
        ? `device_of ${nqnOf(uuid)}`
        : "pgrep -x mkfs.ext4 || ls /run/trilith/csi/*.json";
    await guest.ok(`so() { ${reached}; }; wait_for ${PATIENCE_S} so`);
    await a.kill();
    await cutOff;
    await a.start();
  }
  await a.stage(uuid, context, use);
  await a.publish(uuid, use);
  await guest.ok("echo kept >$1/file", { args: [a.target(uuid)] });
  await a.kill();
  await a.start();
  await failsWith(a.stage(uuid, context, { fsType: "xfs" }), GrpcCode.ALREADY_EXISTS, /staged at/);
  await a.stage(uuid, context, use);
  await a.publish(uuid, use);
  expect(await guest.ok("cat $1/file", { args: [a.target(uuid)] })).toBe("kept");
  await a.unpublish(uuid);
  await a.unstage(uuid);
  await unpublishFrom(a, uuid);
  await cluster.rest.deleteVolume(uuid);
});
