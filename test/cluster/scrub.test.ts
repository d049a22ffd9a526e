/**
 * Scrubs on a cluster of real processes: bytes are changed in the files that stand for disks, below
 * everything that could notice, and have to be found, repaired by a majority, and told of without one.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Volume, VolumeScrub } from "../../src/client/types.ts";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../support/cluster.ts";
import { type Application, startApplication } from "../support/cluster-load.ts";

const MIB = 1 << 20;
const POOL_BYTES = 160 * MIB;
const VOLUME_BYTES = 48 * MIB;
const USED_BYTES = 8 * MIB;
const BLOCK = 4096;
const TEST_MS = 240_000;

let cluster: Cluster;
let application: Application | undefined;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  for (const node of cluster.nodes) await cluster.createPool(node, poolOf(node), POOL_BYTES);
}, TEST_MS);

afterAll(async () => {
  await application?.terminate();
  await endClusters();
});

function poolOf(node: ClusterNode): string {
  return `pool-${node.name}`;
}

interface Filled {
  readonly volume: Volume;
  readonly uuid: string;
  /** The blocks of its data that lie on every one of the nodes that hold a replica. */
  readonly places: readonly (readonly Place[])[];
  readonly holders: readonly ClusterNode[];
}

/** Makes, publishes and fills a volume; its data lies on the disks when this resolves. */
async function filledVolume(replicas: number, usedBytes = USED_BYTES): Promise<Filled> {
  // What volumes of before have left behind is not meant.
  const old = new Set(new Disk(cluster.nodes[1]!).blocks().keys());
  const uuid = randomUUID();
  const body = { size: VOLUME_BYTES, replicas, thin: false, policy: { self_heal: true } };
  await cluster.rest.createVolume(uuid, body);
  const target = { protocol: "nvmf", publish_context: {} } as const;
  const published = await cluster.rest.publishVolume(uuid, { ...target, node: "node-1" });
  application = await startApplication(published, usedBytes);
  await application.progresses(600);
  await application.endsIntact();
  await application.terminate();
  application = undefined;
  const holders = cluster.nodes.filter((node) =>
    Object.values(published.state.replica_topology).some((one) => one.node === node.name),
  );
  const places = commonBlocks(holders, old);
  return { volume: published, uuid, holders, places };
}

/** The file under a node's pool, block by block. */
class Disk {
  readonly path: string;

  constructor(node: ClusterNode) {
    this.path = join(node.folder, `${poolOf(node)}.img`);
  }

  read(offset: number, length = BLOCK): Uint8Array {
    const fd = openSync(this.path, "r");
    try {
      const bytes = new Uint8Array(length);
      readSync(fd, bytes, 0, length, offset);
      return bytes;
    } finally {
      closeSync(fd);
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    const fd = openSync(this.path, "r+");
    try {
      writeSync(fd, bytes, 0, bytes.length, offset);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Offsets of all blocks with data, by content. */
  blocks(): Map<string, number> {
    const found = new Map<string, number>();
    for (let at = 0; at < POOL_BYTES; at += 4 * MIB) {
      const piece = this.read(at, 4 * MIB);
      for (let within = 0; within < piece.length; within += BLOCK) {
        const block = piece.subarray(within, within + BLOCK);
        if (block[0] !== 0 || block.some((byte) => byte !== 0)) {
          found.set(Bun.hash(block).toString(36), at + within);
        }
      }
    }
    return found;
  }
}

interface Place {
  readonly disk: Disk;
  readonly offset: number;
}

/** Where blocks with the same content lie on the disks of all the nodes. */
function commonBlocks(nodes: readonly ClusterNode[], but: ReadonlySet<string>): Place[][] {
  const disks = nodes.map((node) => new Disk(node));
  const maps = disks.map((disk) => disk.blocks());
  const keys = [...maps[0]!.keys()];
  const common = keys.filter((key) => !but.has(key) && maps.every((blocks) => blocks.has(key)));
  expect(common.length).toBeGreaterThan(16);
  return common.map((key) => disks.map((disk, i) => ({ disk, offset: maps[i]!.get(key)! })));
}

/** Changes a block below the engine; returns what was there. */
function corrupt({ disk, offset }: Place): Uint8Array {
  const right = disk.read(offset);
  disk.write(
    offset,
    right.map((byte) => byte ^ 0xff),
  );
  return right;
}

function trilith(...args: string[]): Promise<string> {
  return cluster.nodes
    .find((node) => node.isRunning)!
    .run(...args, "--rest", cluster.nodes.find((node) => node.isRunning)!.restUrl);
}

function replicaOn({ state }: Volume, node: ClusterNode): string {
  return Object.entries(state.replica_topology).find(([, one]) => one.node === node.name)![0];
}

const scrubUntil = (what: string, uuid: string, isSo: (scrub: VolumeScrub) => boolean) =>
  waitUntil(what, () => cluster.rest.scrub(uuid), isSo);

const warningsOf = async (uuid: string) =>
  (await cluster.rest.warnings()).filter(({ subject }) => subject === `volume/${uuid}`);

test(
  "of three copies the one that rotted is found, repaired from the others, and told of",
  async () => {
    const { uuid, volume, places } = await filledVolume(3);
    const [, rotten] = places[0]!;
    const right = corrupt(rotten!);
    const replica = replicaOn(volume, cluster.nodes[1]!);

    const said = await trilith("scrub", "volume", uuid, "--wait");
    expect(said).toMatch(/completed: 8MiB compared, 40MiB never written, 4KiB repaired$/);
    expect(Buffer.compare(rotten!.disk.read(rotten!.offset), right)).toBe(0);

    const scrub = await cluster.rest.scrub(uuid);
    expect(scrub).toMatchObject({ state: "completed", mismatched: BLOCK, repaired: BLOCK });
    expect(scrub.findings).toMatchObject([
      { length: BLOCK, kind: "mismatch", repaired: true, replicas: [replica] },
    ]);
    expect(await trilith("get", "scrubs")).toContain("completed");
    expect(await trilith("get", "scrub", uuid)).toContain(replica);
    const [warning] = await warningsOf(uuid);
    expect(warning).toMatchObject({ severity: "warning" });
    expect(warning!.message).toContain(`repaired 4096 bytes of replicas ${replica}`);
    const shown = (await cluster.rest.volume(uuid)).state as { scrub?: object };
    expect(shown.scrub).toMatchObject({ state: "completed", repaired: BLOCK });
    const { events } = await cluster.rest.events(0, 1000);
    expect(events.map(({ action }) => action)).toContain("ScrubMismatch");
    expect(events.map(({ action }) => action)).toContain("ScrubEnd");

    await trilith("scrub", "volume", uuid, "--acknowledge");
    expect(await warningsOf(uuid)).toEqual([]);
    expect(await trilith("scrub", "volume", uuid, "--wait")).toContain("no differences");
    await cluster.rest.unpublishVolume(uuid, false);
    await cluster.rest.deleteVolume(uuid);
    await waitUntil(
      "the scrub being forgotten",
      () => cluster.rest.scrubs(),
      (all) => all.length === 0,
    );
  },
  TEST_MS,
);

test(
  "of two copies nothing is changed: the difference is critical until it is gone",
  async () => {
    const { uuid, volume, places, holders } = await filledVolume(2);
    const [, rotten] = places[0]!;
    const right = corrupt(rotten!);
    const wrong = rotten!.disk.read(rotten!.offset);

    const failure = await trilith("scrub", "volume", uuid, "--wait").catch(String);
    expect(failure).toContain("ended with 7");
    expect(failure).toContain("4KiB differ and were not repaired");
    expect(Buffer.compare(rotten!.disk.read(rotten!.offset), wrong)).toBe(0);
    const [warning] = await warningsOf(uuid);
    expect(warning).toMatchObject({ severity: "critical" });
    for (const node of holders) expect(warning!.message).toContain(replicaOn(volume, node));
    expect(warning!.remedy).toContain(`trilith scale volume ${uuid} 1 --victim`);

    rotten!.disk.write(rotten!.offset, right);
    expect(await trilith("scrub", "volume", uuid, "--wait")).toContain("no differences");
    expect(await warningsOf(uuid)).toEqual([]);
    await cluster.rest.unpublishVolume(uuid, false);
    await cluster.rest.deleteVolume(uuid);
  },
  TEST_MS,
);

test(
  "it goes on where it was when the node that serves the volume dies",
  async () => {
    const { uuid, places } = await filledVolume(3, 12 * MIB);
    // On the node that will die: the others are right, whichever of them goes on.
    const rotten = places.slice(0, 16).map(([place]) => {
      return { place: place!, right: corrupt(place!) };
    });
    // Without repair it says where they are, and leaves them.
    const failure = await trilith("scrub", "volume", uuid, "--wait", "--no-repair").catch(String);
    expect(failure).toContain("64KiB differ and were not repaired");
    // Slow, so that it is in the middle when its node dies. What it finds is kept at once.
    await cluster.set({ scrubBytesPerSec: MIB });
    await trilith("scrub", "volume", uuid);
    const before = await scrubUntil("a repair", uuid, ({ repaired }) => repaired > 0);
    expect(before).toMatchObject({ state: "running", node: "node-1" });
    type Shown = { scrub?: { repaired: number; progressPercent: number } };
    const kept = await waitUntil(
      "a position and repairs being kept",
      async () => ((await cluster.rest.volume(uuid)).state as Shown).scrub,
      (scrub) => scrub !== undefined && scrub.repaired > 0 && scrub.progressPercent > 0,
    );
    await cluster.node("node-1").kill();
    await cluster.leader();

    const after = await scrubUntil(
      "it going on elsewhere",
      uuid,
      ({ state, node }) => state === "running" && node !== undefined && node !== "node-1",
    );
    expect(after.position).toBeGreaterThan(0);
    expect(after.repaired).toBeGreaterThanOrEqual(kept!.repaired);
    await trilith("scrub", "volume", uuid, "--stop");
    const stopped = await scrubUntil("its stop", uuid, ({ state }) => state === "stopped");
    await cluster.set({ scrubBytesPerSec: 0 });
    await trilith("scrub", "volume", uuid);
    const ended = await scrubUntil("its end", uuid, ({ state }) => state === "completed");
    // Every byte once: it never began anew.
    expect(ended.compared + ended.skipped).toBe(ended.size);
    expect(ended.repaired).toBeGreaterThanOrEqual(stopped.repaired);
    expect(ended.position).toBeGreaterThan(stopped.position);
    await cluster.node("node-1").start();
    await cluster.volumeUntil("all copies in sync", uuid, ({ state }) => state.status === "Online");
    expect(await trilith("scrub", "volume", uuid, "--wait", "--restart")).toContain("completed");
    for (const { place, right } of rotten) {
      expect(Buffer.compare(place.disk.read(place.offset), right)).toBe(0);
    }
  },
  TEST_MS,
);
