/** Volumes over shards: replicas of several nodes, fencing between nexuses, what is given back. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../../../src/engine/reactor/tcp-stream.ts";
import { nodeHostNqn } from "../../../../src/names.ts";
import { probeBdev, withReactor } from "../../../support/reactor.ts";
import { codeOf, TestRecorder, TestShard } from "../../../support/shard.ts";
import { inventory } from "../../../support/target.ts";

const MIB = 1 << 20;

interface Nodes {
  readonly reactor: Reactor;
  readonly recorder: TestRecorder;
  readonly nodes: readonly TestShard[];
}

/** Runs `body` with `count` nodes, closes them, and checks that everything was given back. */
function withNodes(count: number, body: (nodes: Nodes) => Promise<void>): void {
  withReactor(async (reactor) => {
    recvBuffersOf(reactor);
    const recorder = new TestRecorder();
    const nodes: TestShard[] = [];
    for (let i = 0; i < count; i++) {
      nodes.push(await new TestShard(reactor, `node-${i + 1}`, recorder).listen());
    }
    try {
      await body({ reactor, recorder, nodes });
    } finally {
      for (const node of nodes) await node.close();
    }
    const { io, arena } = reactor;
    expect(io.free).toBe(io.capacity);
    expect(io.promise(io.capacity)).toBe(true);
    expect(reactor.handlerCount).toBe(0);
    expect(arena.freeBytes).toBeGreaterThan(0);
  });
}

/** A pool in memory with one shared replica. */
async function makeReplica(node: TestShard, sizeBytes = 16 * MIB) {
  const name = `pool-${node.nodeName}`;
  const uuid = randomUUID();
  await node.call("createPool", {
    name,
    disks: [`malloc:///disk-${node.nodeName}?size_mb=64`],
    clusterSizeBytes: MIB,
  });
  return node.call("createReplica", {
    uuid,
    poolName: name,
    sizeBytes,
    thin: true,
    share: "nvmf",
  });
}

async function openVolume(reactor: Reactor, uri: string) {
  return openBdev(reactor, uri, { host: { nqn: nodeHostNqn("host"), id: randomUUID() } });
}

async function until(reactor: Reactor, condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await reactor.sleep(2);
}

describe("a volume over three nodes", () => {
  test("serves a host, mirrors what it writes, and closes cleanly", () => {
    withNodes(3, async ({ reactor, recorder, nodes }) => {
      const [a, b, c] = nodes as [TestShard, TestShard, TestShard];
      const replicas = [await makeReplica(a), await makeReplica(b), await makeReplica(c)];
      const uuid = randomUUID();
      const volumeUuid = randomUUID();
      await a.call("createNexus", {
        uuid,
        volumeUuid,
        epoch: 1,
        children: [
          { uri: `bdev:///${replicas[0]!.uuid}` },
          { uri: replicas[1]!.uri },
          { uri: replicas[2]!.uri },
        ],
      });
      const { deviceUri } = await a.call("shareNexusNvmf", { uuid });
      const volume = await openVolume(reactor, deviceUri);
      expect(volume.uuid).toBe(volumeUuid);
      const probe = probeBdev(volume);
      const bytes = new Uint8Array(64 << 10).fill(0x5a);
      expect(await probe.write(3 * MIB, bytes)).toBe(0);
      expect((await probe.read(3 * MIB, bytes.byteLength)).bytes).toEqual(bytes);
      await volume.close();
      const checksums = [];
      for (const [i, node] of [a, b, c].entries()) {
        const { checksum } = await node.call("wipeReplica", {
          uuid: replicas[i]!.uuid,
          method: "checksum",
        });
        checksums.push(checksum);
      }
      expect(new Set(checksums).size).toBe(1);
      expect(recorder.records.get(volumeUuid)?.cleanShutdown).toBe(false);
      await a.call("destroyNexus", { uuid });
      expect(recorder.records.get(volumeUuid)?.cleanShutdown).toBe(true);
      const { sync } = await b.call("getReplica", { uuid: replicas[1]!.uuid });
      expect(sync).toMatchObject({ epoch: 1, clean: true, dirtyRegions: 0 });
    });
  });

  test("a nexus of a newer epoch takes the replicas; the older one can acknowledge nothing more", () => {
    withNodes(3, async ({ reactor, nodes }) => {
      const [a, b, c] = nodes as [TestShard, TestShard, TestShard];
      const replicas = [await makeReplica(b), await makeReplica(c)];
      const children = replicas.map(({ uri }) => ({ uri }));
      const volumeUuid = randomUUID();
      const older = randomUUID();
      await a.call("createNexus", { uuid: older, volumeUuid, epoch: 1, children });
      const { deviceUri } = await a.call("shareNexusNvmf", { uuid: older });
      const host = await openVolume(reactor, deviceUri);
      const probe = probeBdev(host);
      expect(await probe.write(0, new Uint8Array(4096).fill(1))).toBe(0);

      // The same volume on another node, one of its replicas local.
      const newer = randomUUID();
      await b.call("createNexus", {
        uuid: newer,
        volumeUuid,
        epoch: 2,
        children: [{ uri: `bdev:///${replicas[0]!.uuid}` }, { uri: replicas[1]!.uri }],
      });
      expect(await probe.write(0, new Uint8Array(4096).fill(2))).not.toBe(0);
      expect((await a.call("getNexus", { uuid: older })).state).toBe("shutdown");
      const events = a.events.filter(({ kind }) => kind === "nexus-superseded");
      expect(events).toHaveLength(1);
      for (const [i, node] of [b, c].entries()) {
        const { sync } = await node.call("getReplica", { uuid: replicas[i]!.uuid });
        expect(sync.epoch).toBe(2);
      }
      // Nor does it get in again by asking once more with its epoch.
      await a.call("destroyNexus", { uuid: older });
      const again = a.call("createNexus", { uuid: older, volumeUuid, epoch: 1, children });
      expect(await codeOf(again)).toBe("Superseded");
      await host.close();
    });
  });

  test("a local nexus is fenced by a newer one elsewhere", () => {
    withNodes(2, async ({ reactor, nodes }) => {
      const [a, b] = nodes as [TestShard, TestShard];
      const replica = await makeReplica(a);
      const volumeUuid = randomUUID();
      const local = randomUUID();
      await a.call("createNexus", {
        uuid: local,
        volumeUuid,
        epoch: 1,
        children: [{ uri: `bdev:///${replica.uuid}` }],
      });
      expect((await a.call("getReplica", { uuid: replica.uuid })).claimedBy).toBe(local);
      await b.call("createNexus", {
        uuid: randomUUID(),
        volumeUuid,
        epoch: 2,
        children: [{ uri: replica.uri }],
      });
      await until(reactor, async () => {
        return (await a.call("getNexus", { uuid: local })).state === "shutdown";
      });
      expect((await a.call("getReplica", { uuid: replica.uuid })).claimedBy).toBeNull();
      const again = a.call("createNexus", {
        uuid: randomUUID(),
        volumeUuid: randomUUID(),
        epoch: 1,
        children: [{ uri: `bdev:///${replica.uuid}` }],
      });
      expect(await codeOf(again)).toBe("Superseded");
    });
  });

  test("a child that was away resyncs only what it missed, and is durable in its pool", () => {
    withNodes(2, async ({ reactor, nodes }) => {
      const [a, b] = nodes as [TestShard, TestShard];
      const mine = await makeReplica(a);
      const other = await makeReplica(b);
      const uuid = randomUUID();
      await a.call("createNexus", {
        uuid,
        epoch: 1,
        children: [{ uri: `bdev:///${mine.uuid}` }, { uri: other.uri }],
      });
      const { deviceUri } = await a.call("shareNexusNvmf", { uuid });
      const host = await openVolume(reactor, deviceUri);
      const probe = probeBdev(host);
      expect(await probe.write(0, new Uint8Array(64 << 10).fill(1))).toBe(0);
      await a.call("offlineNexusChild", { uuid, childUri: other.uri });
      expect((await a.call("getNexus", { uuid })).state).toBe("degraded");
      expect(await probe.write(8 * MIB, new Uint8Array(64 << 10).fill(2))).toBe(0);
      await a.call("onlineNexusChild", { uuid, childUri: other.uri });
      await until(reactor, async () => (await a.call("getNexus", { uuid })).state === "online");
      const rebuild = await a.call("getRebuild", { uuid, childUri: other.uri });
      expect(rebuild).toMatchObject({ state: "completed", isPartial: true, error: null });
      // Two regions of 4 MiB were dirty at most, of the volume's 16 MiB.
      expect(rebuild.blocksTotal * rebuild.blockSize).toBeLessThanOrEqual(8 * MIB);
      const read = (node: TestShard, replica: string) =>
        node.call("wipeReplica", { uuid: replica, method: "checksum" });
      expect(await read(a, mine.uuid)).toEqual(await read(b, other.uuid));
      await host.close();
    });
  });

  test("opening and closing volumes over and over leaves nothing behind", () => {
    withNodes(2, async ({ reactor, nodes }) => {
      const [a, b] = nodes as [TestShard, TestShard];
      const mine = await makeReplica(a);
      const other = await makeReplica(b);
      const cycle = async (epoch: number): Promise<void> => {
        const uuid = randomUUID();
        const children = [{ uri: `bdev:///${mine.uuid}` }, { uri: other.uri }];
        await a.call("createNexus", { uuid, epoch, children });
        const { deviceUri } = await a.call("shareNexusNvmf", { uuid });
        await a.call("shareNexusNbd", { uuid });
        const host = await openVolume(reactor, deviceUri);
        expect(await probeBdev(host).write(epoch * 4096, new Uint8Array(4096).fill(epoch))).toBe(0);
        await host.close();
        await a.call("destroyNexus", { uuid });
        await a.call("getReplica", { uuid: mine.uuid });
      };
      await cycle(1);
      await settled(reactor);
      const before = inventory(reactor);
      for (let epoch = 2; epoch < 12; epoch++) await cycle(epoch);
      await until(reactor, async () => {
        return JSON.stringify(inventory(reactor)) === JSON.stringify(before);
      });
    });
  });

  test("replicas, snapshots and clones that come and go leave nothing behind", () => {
    withNodes(1, async ({ reactor, nodes }) => {
      const [a] = nodes as [TestShard];
      const { poolName } = await makeReplica(a);
      const cycle = async (): Promise<void> => {
        const [uuid, snapshot, clone] = [randomUUID(), randomUUID(), randomUUID()];
        await a.call("createReplica", { uuid, poolName, sizeBytes: 4 * MIB, share: "nvmf" });
        await a.call("createSnapshot", { uuid: snapshot, sourceUuid: uuid });
        await a.call("createClone", { uuid: snapshot, cloneUuid: clone });
        expect(await a.call("listClones", { uuid: snapshot })).toHaveLength(1);
        await a.call("destroyReplica", { uuid: clone });
        await a.call("destroySnapshot", { uuid: snapshot });
        await a.call("destroyReplica", { uuid });
      };
      await cycle();
      await settled(reactor);
      const before = inventory(reactor);
      const pool = await a.call("getPool", { name: poolName });
      for (let i = 0; i < 10; i++) await cycle();
      await until(reactor, async () => {
        const { usedBytes } = await a.call("getPool", { name: poolName });
        const isSame = JSON.stringify(inventory(reactor)) === JSON.stringify(before);
        return isSame && usedBytes === pool.usedBytes;
      });
    });
  });
});

/** Lets what was begun in the background come to rest: two looks in a row see the same. */
async function settled(reactor: Reactor): Promise<void> {
  let last = "";
  await until(reactor, async () => {
    const now = JSON.stringify(inventory(reactor));
    const isSame = now === last;
    last = now;
    return isSame;
  });
}
