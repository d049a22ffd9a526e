/**
 * The agent of an application host on Debian's kernel: `trilith host` in a guest, against a cluster of three
 * nodes. What is connected, lost, given up by the kernel and deleted is seen in the guest's own sysfs.
 */

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Warning } from "../../src/client/types.ts";
import type { ConnectedVolume } from "../../src/host/host.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { isWholeWith, servingNode } from "../support/cluster-volumes.ts";
import { nqnOf } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { Guest, type ScriptResult } from "./vm.ts";

const MIB = 1 << 20;
const POOL_BYTES = 256 * MIB;
const VOLUME_BYTES = 96 * MIB;
const REST_PORT = 8081;
/**
 * How long the guest waits for one thing, in seconds of its own clock, which runs fast at times on a machine
 * that is busy; and a script of it, by this machine's clock.
 */
const PATIENCE_S = 600;
const SCRIPT_MS = 180_000;
/** Until the kernel has found a path dead, or alive again, and the cluster has heard of it. */
const LOSS_MS = 120_000;

let guest: Guest;
let cluster: Cluster;
let uuid: string;
let nqn: string;
let device: string;

setDefaultTimeout(TEST_TIMEOUT_MS);

/** Runs a script in the guest whose `trilith` knows all nodes of the cluster. */
function asHost(script: string): Promise<ScriptResult> {
  const rest = cluster.nodes.map(({ address }) => `${address}:${REST_PORT}`).join(",");
  return guest.run(
    `export TRILITH_AGENT_REST=${rest} TRILITH_REST=${rest.split(",")[0]}\n${script}`,
  );
}

async function host(script: string): Promise<string> {
  const { status, output } = await asHost(script);
  if (status !== 0) throw new Error(`status ${status} of ${script}\n${output}`);
  return output.trim();
}

/** Starts the agent and waits until it keeps the connections. */
async function startAgent(): Promise<void> {
  await host(`
    touch /tmp/agent.log
    count() { grep -c "keeps the host's connections" /tmp/agent.log || true; }
    before=$(count)
    trilith host agent --rest "$TRILITH_AGENT_REST" --log-level debug >>/tmp/agent.log 2>&1 3<&- &
    echo $! >/tmp/agent.pid
    is_keeping() { [ "$(count)" -gt "$before" ]; }
    wait_for ${PATIENCE_S} is_keeping || { cat /tmp/agent.log; exit 1; }
  `);
}

async function stopAgent(signal: "TERM" | "KILL"): Promise<void> {
  await host(`
    pid=$(cat /tmp/agent.pid)
    kill -${signal} "$pid"
    is_gone() { ! [ -e "/proc/$pid" ]; }
    wait_for ${PATIENCE_S} is_gone
  `);
}

async function listed(): Promise<readonly ConnectedVolume[]> {
  const { output } = await asHost("trilith host list -o json");
  return JSON.parse(output) as readonly ConnectedVolume[];
}

/** Waits in the guest until a condition holds, a command of its shell. */
async function until(condition: string): Promise<void> {
  await guest.ok(`so() { ${condition}; }\nwait_for ${PATIENCE_S} so`, { timeoutMs: SCRIPT_MS });
}

const livePaths = (count: number) => until(`has_live_paths ${nqn} ${count}`);

beforeAll(async () => {
  const boot = async () => {
    guest = await Guest.boot();
    await guest.install();
  };
  [cluster] = await Promise.all([Cluster.start(3), boot()]);
  for (const node of cluster.nodes) await cluster.createPool(node, `pool-${node.name}`, POOL_BYTES);
  uuid = randomUUID();
  nqn = nqnOf(uuid);
  await cluster.rest.createVolume(uuid, {
    size: VOLUME_BYTES,
    replicas: 3,
    thin: false,
    policy: { self_heal: true },
  });
  await startAgent();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await endClusters();
});

const isWhole = isWholeWith(3);

test("a volume is published to the host and connected over all of its paths", async () => {
  device = await host(`trilith host connect ${uuid}`);
  expect(device).toMatch(/^\/dev\/nvme\d+n\d+$/);
  const { spec } = await cluster.rest.volume(uuid);
  expect(spec.target?.frontend_nodes?.map(({ nqn }) => nqn)).toEqual([guest.hostNqn]);
  // Standbys that are made a moment later are the agent's.
  await livePaths(3);
  const [volume] = await listed();
  expect(volume).toMatchObject({ volumeUuid: uuid, nqn, device, sizeBytes: VOLUME_BYTES });
  const ana = volume!.paths.map((path) => path.ana).sort();
  expect(ana).toEqual(["inaccessible", "inaccessible", "optimized"]);
  expect((await asHost("trilith host list")).status).toBe(0);
});

test("connecting again changes nothing; what is in use is not disconnected", async () => {
  const before = await listed();
  expect(await host(`trilith host connect ${uuid}`)).toBe(device);
  expect(await listed()).toEqual(before);
  await guest.ok(`mkfs.ext4 -q ${device}; mount ${device} /mnt`);
  const refused = await asHost(`trilith host disconnect ${uuid}`);
  expect(refused.status).toBe(6);
  expect(refused.output).toContain("it is mounted at /mnt");
  await livePaths(3);
});

test("the target's node is killed under load: I/O goes on elsewhere, and the path comes back", async () => {
  const first = await servingNode(cluster, uuid, () => true);
  await underLoad(guest, { target: "/mnt" }, async () => {
    await moreWritten(guest, nqn, first.address);
    await first.kill();
    const next = await servingNode(cluster, uuid, (node) => node !== first);
    await moreWritten(guest, nqn, next.address);
    // The kernel is to give the lost path up: then it is the agent that has to come back. Not before I/O
    // goes on: without the minutes that it has by default, a kernel may fail what still waits for a path.
    await guest.ok(`echo 2 >"$(path_of ${nqn} ${first.address})/../ctrl_loss_tmo"`);
    await until(`! path_of ${nqn} ${first.address}`);
    const troubled = await asHost("trilith host list");
    expect(troubled.output).not.toContain(first.address);
    await first.start();
    await livePaths(3);
    await moreWritten(guest, nqn, next.address);
  });
  await cluster.volumeUntil("three copies again", uuid, isWhole);
});

test("a target that its host alone has lost is moved to a standby that the host reaches", async () => {
  const first = await servingNode(cluster, uuid, () => true);
  const isShown = (warnings: readonly Warning[]) =>
    warnings.some(
      ({ subject, message }) =>
        subject === `volume/${uuid}` &&
        message.includes("has lost its path") &&
        message.includes(first.name),
    );
  await underLoad(guest, { target: "/mnt" }, async () => {
    await moreWritten(guest, nqn, first.address);
    // Nothing reaches the node from here any more; the cluster's nodes reach each other.
    await guest.ok(`ip route add blackhole ${first.address}/32`);
    await waitUntil("the loss being shown", () => cluster.rest.warnings(), isShown, LOSS_MS);
    const next = await servingNode(cluster, uuid, (node) => node !== first);
    await moreWritten(guest, nqn, next.address);
    expect((await cluster.rest.node(first.name)).state?.status).toBe("Online");
    await guest.ok(`ip route del blackhole ${first.address}/32`);
    await livePaths(3);
    const isOver = (warnings: readonly Warning[]) => !isShown(warnings);
    await waitUntil("nothing being lost", () => cluster.rest.warnings(), isOver, LOSS_MS);
    expect(await servingNode(cluster, uuid, () => true)).toBe(next);
  });
});

test("a controller that is deleted is connected anew", async () => {
  const next = await servingNode(cluster, uuid, () => true);
  const standby = cluster.nodes.find((node) => node !== next)!;
  const former = await guest.ok(`path_of ${nqn} ${standby.address}`);
  await guest.ok(`echo 1 >"${former}/../delete_controller"`);
  await livePaths(3);
  expect(await guest.ok(`path_of ${nqn} ${standby.address}`)).toContain("/nvme");
});

test("an agent that was killed goes on with what it has kept", async () => {
  await stopAgent("KILL");
  const next = await servingNode(cluster, uuid, () => true);
  const standby = cluster.nodes.find((node) => node !== next)!;
  await guest.ok(`echo 1 >"$(path_of ${nqn} ${standby.address})/../delete_controller"`);
  await livePaths(2);
  await startAgent();
  await livePaths(3);
});

test("paths that the cluster gives up are disconnected, those that it makes are connected", async () => {
  const serving = await servingNode(cluster, uuid, () => true);
  const standby = cluster.nodes.find((node) => node !== serving)!;
  await cluster.rest.cordonNode(standby.name, "away");
  await until(`! path_of ${nqn} ${standby.address}`);
  await livePaths(2);
  await cluster.rest.uncordonNode(standby.name, "away");
  await livePaths(3);
});

test("an agent that is stopped leaves what is in use, and disconnects the rest in order", async () => {
  await stopAgent("TERM");
  expect(await guest.ok("cat /tmp/agent.log")).toContain("stays connected");
  await livePaths(3);
  await startAgent();
  await guest.ok("umount /mnt");
  await stopAgent("TERM");
  expect(await guest.ok(`controllers_of ${nqn} || true`)).toBe("");
  // It stays wanted: the next start, after the machine's boot, connects it again.
  await startAgent();
  await livePaths(3);
  await guest.ok(`fsck.ext4 -fn ${device}`);
});

test("a volume that is disconnected stays so", async () => {
  await host(`trilith host disconnect ${uuid} --unpublish`);
  expect(await listed()).toEqual([]);
  await waitUntil(
    "unpublished",
    () => cluster.rest.volume(uuid),
    ({ spec }) => (spec.target ?? null) === null,
  );
  const refused = await asHost(`trilith host disconnect ${uuid} && trilith host list`);
  expect(refused.status).toBe(0);
});

test("a volume that is published to another host is not moved", async () => {
  await cluster.rest.publishVolume(uuid, {
    protocol: "nvmf",
    publish_context: {},
    frontend_node: "somebody-else",
  });
  const refused = await asHost(`trilith host connect ${uuid}`);
  expect(refused.status).toBe(6);
  expect(refused.output).toContain("published to somebody-else");
  expect(await listed()).toEqual([]);
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
