/** Standbys: hosts stay connected while the nexus of a volume comes and goes. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../../../src/engine/reactor/tcp-stream.ts";
import { serialOf } from "../../../../src/engine/shard/shares.ts";
import {
  AdminOpcode,
  AnaState,
  FeatureId,
  IoOpcode,
  LogPageId,
  Status,
} from "../../../../src/nvme/constants.ts";
import { connectQueue, HOST_NQN, pattern, type RawHost, sqe } from "../../../support/raw-host.ts";
import { withReactor } from "../../../support/reactor.ts";
import { codeOf, TestRecorder, TestShard } from "../../../support/shard.ts";

const MIB = 1 << 20;
const BYTES = 16 * MIB;
const BLOCK = 512;
const ANA_EVENTS = 1 << 11;
const NAMESPACE_EVENTS = 1 << 8;
const ANA_CHANGED = 0x0c0302;
const NAMESPACE_CHANGED = 0x040002;
/** One header and one group with one namespace. */
const ANA_LOG_BYTES = 52;

interface Nodes {
  readonly reactor: Reactor;
  readonly nodes: readonly TestShard[];
  readonly volumeUuid: string;
}

function withNodes(count: number, body: (nodes: Nodes) => Promise<void>): void {
  withReactor(async (reactor) => {
    recvBuffersOf(reactor);
    const recorder = new TestRecorder();
    const nodes: TestShard[] = [];
    for (let i = 0; i < count; i++) {
      nodes.push(await new TestShard(reactor, `node-${i + 1}`, recorder).listen());
    }
    try {
      await body({ reactor, nodes, volumeUuid: randomUUID() });
    } finally {
      for (const node of nodes) await node.close();
    }
    const { io } = reactor;
    expect(io.free).toBe(io.capacity);
    expect(io.promise(io.capacity)).toBe(true);
    expect(reactor.handlerCount).toBe(0);
  });
}

async function makeReplica(node: TestShard) {
  const poolName = `pool-${node.nodeName}`;
  const disks = [`malloc:///disk-${node.nodeName}?size_mb=64`];
  await node.call("createPool", { name: poolName, disks, clusterSizeBytes: MIB });
  const uuid = randomUUID();
  return node.call("createReplica", {
    uuid,
    poolName,
    sizeBytes: BYTES,
    thin: true,
    share: "nvmf",
  });
}

/** A host's path to the volume through one node: admin queue and one I/O queue. */
class Path {
  readonly admin: RawHost;
  readonly io: RawHost;
  readonly controllerId: number;

  private constructor(admin: RawHost, io: RawHost, controllerId: number) {
    this.admin = admin;
    this.io = io;
    this.controllerId = controllerId;
  }

  static async open(reactor: Reactor, node: TestShard, volumeUuid: string): Promise<Path> {
    const at = { address: "127.0.0.1", port: node.port };
    const subsystemNqn = `nqn.2019-05.io.openebs:${volumeUuid}`;
    const { host: admin, controllerId } = await connectQueue(reactor, at, { subsystemNqn });
    const options = { subsystemNqn, queueId: 1, controllerId };
    const { host: io } = await connectQueue(reactor, at, options);
    const path = new Path(admin, io, controllerId);
    await path.admin.command(
      sqe(AdminOpcode.SET_FEATURES, 0, [
        FeatureId.ASYNC_EVENT_CONFIGURATION,
        ANA_EVENTS | NAMESPACE_EVENTS,
      ]),
    );
    return path;
  }

  async write(bytes: Uint8Array): Promise<number> {
    const blocks = bytes.byteLength / BLOCK - 1;
    return (await this.io.command(sqe(IoOpcode.WRITE, 1, [0, 0, blocks]), { data: bytes })).status;
  }

  async read(length: number): Promise<{ status: number; data: Uint8Array }> {
    return this.io.command(sqe(IoOpcode.READ, 1, [0, 0, length / BLOCK - 1]), { room: length });
  }

  /** Resolves with dword 0 of the next event. */
  async event(): Promise<number> {
    return (await this.admin.command(sqe(AdminOpcode.ASYNC_EVENT_REQUEST, 0))).dword0;
  }

  /** Change count, group id and state as the ANA log tells them; reading it arms the event again. */
  async ana(): Promise<{ changes: number; group: number; state: number; namespaces: number }> {
    const dwords = [LogPageId.ANA | ((ANA_LOG_BYTES / 4 - 1) << 16)];
    const command = sqe(AdminOpcode.GET_LOG_PAGE, 0xffffffff, dwords);
    const { data } = await this.admin.command(command, { room: ANA_LOG_BYTES });
    const view = new DataView(data.buffer, data.byteOffset);
    return {
      changes: view.getUint32(0, true),
      group: view.getUint32(16, true),
      namespaces: view.getUint32(20, true),
      state: view.getUint8(32) & 0xf,
    };
  }

  /** What tells a host whether two paths lead to the same namespace, and its size. */
  async identity(): Promise<{
    serial: string;
    blocks: bigint;
    nguid: string;
    descriptors: string;
  }> {
    const page = async (nsid: number, cns: number) =>
      (await this.admin.command(sqe(AdminOpcode.IDENTIFY, nsid, [cns]), { room: 4096 })).data;
    const controller = await page(0, 1);
    const namespace = await page(1, 0);
    const view = new DataView(namespace.buffer, namespace.byteOffset);
    return {
      serial: Buffer.from(controller.subarray(4, 24)).toString("latin1").trimEnd(),
      blocks: view.getBigUint64(0, true),
      nguid: Buffer.from(namespace.subarray(104, 120)).toString("hex"),
      descriptors: Buffer.from((await page(1, 3)).subarray(0, 64)).toString("hex"),
    };
  }

  async close(): Promise<void> {
    await this.io.close();
    await this.admin.close();
  }
}

async function openNexus(
  node: TestShard,
  volumeUuid: string,
  epoch: number,
  uris: readonly string[],
  controllerIds: { min: number; max: number },
): Promise<string> {
  const uuid = randomUUID();
  const children = uris.map((uri) => ({ uri }));
  await node.call("createNexus", { uuid, volumeUuid, epoch, sizeBytes: BYTES, children });
  await node.call("shareNexusNvmf", { uuid, controllerIds, allowedHosts: [HOST_NQN] });
  return uuid;
}

const first = { min: 1, max: 64 };
const second = { min: 65, max: 128 };

function standbyOf(volumeUuid: string, controllerIds: { min: number; max: number }) {
  const shape = { sizeBytes: BYTES, blockSize: BLOCK } as const;
  return { volumeUuid, ...shape, controllerIds, allowedHosts: [HOST_NQN] };
}

describe("a standby", () => {
  test("is the same disk to a host, says so before it can serve, and sends commands elsewhere", () => {
    withNodes(2, async ({ reactor, nodes, volumeUuid }) => {
      const [a, b] = nodes as [TestShard, TestShard];
      const replica = await makeReplica(a);
      await openNexus(a, volumeUuid, 1, [`bdev:///${replica.uuid}`], first);
      const made = await b.call("createStandby", standbyOf(volumeUuid, second));
      expect(made).toMatchObject({ state: "listening", controllers: 0, controllerIds: second });
      const paths = [
        await Path.open(reactor, a, volumeUuid),
        await Path.open(reactor, b, volumeUuid),
      ] as const;
      expect(paths.map(({ controllerId }) => controllerId)).toEqual([1, 65]);
      const identity = await paths[0].identity();
      expect(identity).toMatchObject({
        serial: serialOf(volumeUuid),
        blocks: BigInt(BYTES / BLOCK),
      });
      expect(await paths[1].identity()).toEqual(identity);
      const group = { group: 1, namespaces: 1 };
      expect(await paths[0].ana()).toEqual({ ...group, changes: 0, state: AnaState.OPTIMIZED });
      expect(await paths[1].ana()).toEqual({ ...group, changes: 0, state: AnaState.INACCESSIBLE });
      const big = pattern(64 << 10, 2);
      expect([
        await paths[1].write(pattern(4096, 1)),
        await paths[1].write(big), // by R2T
        (await paths[1].read(4096)).status,
        (await paths[1].io.command(sqe(IoOpcode.FLUSH, 1))).status,
      ]).toEqual(Array(4).fill(Status.ANA_INACCESSIBLE));
      expect((await b.call("listStandbys", {}))[0]).toMatchObject({ controllers: 1 });
      for (const path of paths) await path.close();
    });
  });

  test("becomes the target in place, and the former target a standby: nobody connects anew", () => {
    withNodes(2, async ({ reactor, nodes, volumeUuid }) => {
      const [a, b] = nodes as [TestShard, TestShard];
      const [ra, rb] = [await makeReplica(a), await makeReplica(b)];
      const nexus = await openNexus(a, volumeUuid, 1, [`bdev:///${ra.uuid}`, rb.uri], first);
      await b.call("createStandby", standbyOf(volumeUuid, second));
      const pathA = await Path.open(reactor, a, volumeUuid);
      const pathB = await Path.open(reactor, b, volumeUuid);
      const bytes = pattern(64 << 10, 3);
      expect(await pathA.write(bytes)).toBe(0);

      // The former target is told to stay as a standby, then closed in order.
      const kept = await a.call("createStandby", standbyOf(volumeUuid, first));
      expect(kept.state).toBe("serving");
      expect(await pathA.write(bytes)).toBe(0);
      const toldA = pathA.event();
      await a.call("destroyNexus", { uuid: nexus });
      expect((await toldA) & 0xffffff).toBe(ANA_CHANGED);
      expect(await pathA.ana()).toMatchObject({ changes: 1, state: AnaState.INACCESSIBLE });
      expect(await pathA.write(bytes)).toBe(Status.ANA_INACCESSIBLE);
      expect((await a.call("listStandbys", {}))[0]).toMatchObject({
        state: "listening",
        controllers: 1,
      });

      const toldB = pathB.event();
      await openNexus(b, volumeUuid, 2, [ra.uri, `bdev:///${rb.uuid}`], second);
      expect((await toldB) & 0xffffff).toBe(ANA_CHANGED);
      expect(await pathB.ana()).toMatchObject({ changes: 1, state: AnaState.OPTIMIZED });
      const back = await pathB.read(bytes.byteLength);
      expect([back.status, Buffer.from(back.data).equals(Buffer.from(bytes))]).toEqual([0, true]);
      expect(await pathB.write(pattern(64 << 10, 4))).toBe(0);
      expect(await b.call("listStandbys", {})).toEqual([]);

      // And back again, over the same connections.
      const { uuid } = (await b.call("listNexuses", {}))[0]!;
      await b.call("createStandby", standbyOf(volumeUuid, second));
      await b.call("destroyNexus", { uuid });
      const third = await openNexus(a, volumeUuid, 3, [`bdev:///${ra.uuid}`, rb.uri], first);
      const again = await pathA.read(64 << 10);
      expect(Buffer.from(again.data).equals(Buffer.from(pattern(64 << 10, 4)))).toBe(true);
      expect(await pathB.write(bytes)).toBe(Status.ANA_INACCESSIBLE);
      // Without being told to stay it goes, with its connections.
      await a.call("destroyNexus", { uuid: third });
      await pathA.io.ended();
      for (const path of [pathA, pathB]) await path.close();
    });
  });

  test("commands that wait in a nexus that leaves are sent to other paths, not failed", () => {
    withNodes(1, async ({ reactor, nodes, volumeUuid }) => {
      const [a] = nodes as [TestShard];
      const replica = await makeReplica(a);
      const uuid = await openNexus(a, volumeUuid, 1, [`bdev:///${replica.uuid}`], first);
      await a.call("createStandby", standbyOf(volumeUuid, first));
      const path = await Path.open(reactor, a, volumeUuid);
      await a.call("pauseNexus", { uuid });
      const waiting = [path.write(pattern(4096, 1)), path.write(pattern(64 << 10, 1))];
      while ((await a.call("getNexus", { uuid })).waitingRequests < 2) await reactor.sleep(1);
      await a.call("destroyNexus", { uuid });
      const PATH_RELATED = 3;
      for (const status of await Promise.all(waiting)) expect(status >>> 8).toBe(PATH_RELATED);
      await path.close();
    });
  });

  test("a superseded target stays as a standby, and its hosts go on with the new one", () => {
    withNodes(2, async ({ reactor, nodes, volumeUuid }) => {
      const [a, b] = nodes as [TestShard, TestShard];
      const [ra, rb] = [await makeReplica(a), await makeReplica(b)];
      const old = await openNexus(a, volumeUuid, 1, [`bdev:///${ra.uuid}`, rb.uri], first);
      await b.call("createStandby", standbyOf(volumeUuid, second));
      const pathA = await Path.open(reactor, a, volumeUuid);
      const pathB = await Path.open(reactor, b, volumeUuid);
      expect(await pathA.write(pattern(4096, 1))).toBe(0);
      await openNexus(b, volumeUuid, 2, [`bdev:///${rb.uuid}`], second);
      const late = await pathA.write(pattern(4096, 2));
      expect(late >>> 8).toBe(3);
      const { data } = await pathB.read(4096);
      expect(Buffer.from(data).equals(Buffer.from(pattern(4096, 1)))).toBe(true);
      await a.call("createStandby", standbyOf(volumeUuid, first));
      await a.call("destroyNexus", { uuid: old });
      expect(await pathA.write(pattern(4096, 2))).toBe(Status.ANA_INACCESSIBLE);
      for (const path of [pathA, pathB]) await path.close();
    });
  });

  test("follows size and hosts of its volume; hosts that may not connect are refused", () => {
    withNodes(1, async ({ reactor, nodes, volumeUuid }) => {
      const [a] = nodes as [TestShard];
      const wanted = standbyOf(volumeUuid, first);
      await a.call("createStandby", wanted);
      await a.call("createStandby", wanted);
      const path = await Path.open(reactor, a, volumeUuid);
      const told = path.event();
      await a.call("createStandby", { ...wanted, sizeBytes: 2 * BYTES });
      expect((await told) & 0xffffff).toBe(NAMESPACE_CHANGED);
      expect((await path.identity()).blocks).toBe(BigInt((2 * BYTES) / BLOCK));
      await a.call("createStandby", { ...wanted, allowedHosts: ["nqn.2014-08.org.example:other"] });
      await path.io.ended();
      await path.close();
      const refused = await Path.open(reactor, a, volumeUuid).then(
        () => "connected",
        (error: Error) => error.message,
      );
      expect(refused).toContain(Status.CONNECT_INVALID_HOST.toString(16));
    });
  });

  test("is removed with its connections; what is wrong is refused", () => {
    withNodes(1, async ({ reactor, nodes, volumeUuid }) => {
      const [a] = nodes as [TestShard];
      const wanted = standbyOf(volumeUuid, first);
      await a.call("createStandby", wanted);
      const path = await Path.open(reactor, a, volumeUuid);
      await a.call("removeStandby", { volumeUuid });
      await path.io.ended();
      await path.close();
      expect(await a.call("listStandbys", {})).toEqual([]);
      expect(await codeOf(a.call("removeStandby", { volumeUuid }))).toBe("NotFound");
      const odd = a.call("createStandby", { ...wanted, sizeBytes: BYTES + 1 });
      expect(await codeOf(odd)).toBe("InvalidArgument");
    });
  });

  test("of other controller ids is not taken over: its hosts connect anew", () => {
    withNodes(1, async ({ reactor, nodes, volumeUuid }) => {
      const [a] = nodes as [TestShard];
      const replica = await makeReplica(a);
      await a.call("createStandby", standbyOf(volumeUuid, second));
      const path = await Path.open(reactor, a, volumeUuid);
      await openNexus(a, volumeUuid, 1, [`bdev:///${replica.uuid}`], first);
      await path.io.ended();
      await path.close();
      const anew = await Path.open(reactor, a, volumeUuid);
      expect([anew.controllerId, await anew.write(pattern(4096, 1))]).toEqual([1, 0]);
      await anew.close();
    });
  });
});
