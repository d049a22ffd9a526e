/** Mirrored volumes over engine processes that are killed and come back. */
import { afterEach, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { startDemoLoad } from "../../src/demo/load.ts";
import { serveRecorder } from "../../src/engine/main/recorder-server.ts";
import { openFileRecorder } from "../../src/engine/recorder.ts";
import { EngineProcess, endEngines, until } from "../support/engine-process.ts";
import { testSeed } from "../support/random.ts";
import { tempFolders } from "../support/temp-folder.ts";

const MIB = 1 << 20;
const VOLUME_BYTES = 128 * MIB;
const tempFolder = tempFolders();
const ends: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await endEngines();
});

/** A recorder that engines share. */
function sharedRecorder() {
  const recorder = openFileRecorder(join(tempFolder(), "recorder.sqlite"), () => new Date());
  const serve = (port: number) => serveRecorder(recorder, { address: "127.0.0.1", port }, () => {});
  let server = serve(0);
  const { url } = server;
  ends.push(() => recorder.close());
  ends.push(() => server.stop());
  return {
    recorder,
    url,
    /** Nobody can reach it until `comeBack`. */
    goAway: () => server.stop(),
    comeBack: () => {
      server = serve(Number(new URL(url).port));
    },
  };
}

interface Copy {
  readonly engine: EngineProcess;
  readonly replicaUuid: string;
  readonly uri: string;
}

async function startNode(recorderUrl: string): Promise<EngineProcess> {
  const options = ["--reactors", "1", "--discovery-port", "none", "--nbd-port", "none"];
  const engine = new EngineProcess({ options: [...options, "--recorder", recorderUrl] });
  await engine.start();
  await openPool(engine);
  return engine;
}

/** Makes the engine's pool, or imports it. */
async function openPool(engine: EngineProcess): Promise<void> {
  await engine.rpc.createPool({ name: "pool", disks: [engine.disk()], clusterSizeBytes: MIB });
}

async function makeCopy(engine: EngineProcess, nexusNode: EngineProcess): Promise<Copy> {
  const replicaUuid = randomUUID();
  const { uri } = await engine.rpc.createReplica({
    uuid: replicaUuid,
    poolName: "pool",
    sizeBytes: VOLUME_BYTES,
    thin: true,
    share: "nvmf",
    allowedHosts: [nexusNode.hostNqn],
  });
  const local = `bdev:///${replicaUuid}`;
  return { engine, replicaUuid, uri: engine === nexusNode ? local : uri };
}

async function startLoad(uri: string) {
  const seed = testSeed();
  console.log(`load with seed ${seed}`);
  const request = { requestBytes: 4096, queueDepth: 8, readPercent: 50, size: 24 * MIB };
  const load = await startDemoLoad({ uri, ...request, seed }, (error) => {
    throw error;
  });
  ends.push(() => load.terminate());
  return load;
}

type Load = Awaited<ReturnType<typeof startLoad>>;

/** Waits until the load has done `count` more requests. */
async function progress(load: Load, count = 300): Promise<void> {
  const done = async () => {
    const { reads, writes } = await load.stats();
    return reads + writes;
  };
  const before = await done();
  await until("the load going on", done, (now) => now >= before + count);
}

async function checksums(copies: readonly Copy[]): Promise<(number | null)[]> {
  const found: (number | null)[] = [];
  for (const { engine, replicaUuid } of copies) {
    const request = { uuid: replicaUuid, method: "checksum" } as const;
    found.push((await engine.rpc.wipeReplica(request)).checksum);
  }
  return found;
}

async function expectIntact(load: Load, copies: readonly Copy[]): Promise<void> {
  const result = await load.finish();
  const { mismatches, errorCount, unreadable, firstMismatches } = result;
  expect({ mismatches, errorCount, unreadable, firstMismatches }).toEqual({
    mismatches: 0,
    errorCount: 0,
    unreadable: 0,
    firstMismatches: [],
  });
  expect(result.blocksVerified).toBeGreaterThan(0);
  expect(new Set(await checksums(copies)).size).toBe(1);
}

describe("a volume with three replicas", () => {
  test("goes on when a node with a replica is killed, and is whole after it came back", async () => {
    const { recorder, url } = sharedRecorder();
    const nodes = [await startNode(url), await startNode(url), await startNode(url)];
    const [nexusNode, , lost] = nodes as [EngineProcess, EngineProcess, EngineProcess];
    const copies: Copy[] = [];
    for (const node of nodes) copies.push(await makeCopy(node, nexusNode));
    const uuid = randomUUID();
    const volumeUuid = randomUUID();
    const children = copies.map(({ uri }) => ({ uri }));
    await nexusNode.rpc.createNexus({ uuid, volumeUuid, epoch: 1, children });
    const { deviceUri } = await nexusNode.rpc.shareNexusNvmf({ uuid });
    const load = await startLoad(deviceUri);
    await progress(load);

    const lostUri = copies[2]!.uri;
    await lost.kill();
    await until(
      "losing the child",
      () => nexusNode.rpc.getNexus({ uuid }),
      ({ state }) => state === "degraded",
    );
    await progress(load);
    // Writes were acknowledged since, so the loss is on record.
    const { children: recorded } = await recorder.get(volumeUuid);
    expect(recorded.find(({ uri }) => uri === lostUri)?.healthy).toBe(false);
    const faults = await nexusNode.rpc.listEvents({});
    expect(faults.events.map(({ kind }) => kind)).toContain("child-faulted");

    await lost.start();
    await openPool(lost);
    await nexusNode.rpc.onlineNexusChild({ uuid, childUri: lostUri });
    await until(
      "the rebuild",
      () => nexusNode.rpc.getNexus({ uuid }),
      ({ state }) => state === "online",
    );
    const rebuild = await nexusNode.rpc.getRebuild({ uuid, childUri: lostUri });
    expect(rebuild).toMatchObject({ state: "completed", isPartial: true });
    expect((await recorder.get(volumeUuid)).children.every(({ healthy }) => healthy)).toBe(true);
    await progress(load);
    await expectIntact(load, copies);
    for (const node of nodes) expect(await node.stop()).toBe(0);
    expect((await recorder.get(volumeUuid)).cleanShutdown).toBe(true);
  });

  test("goes on when the node that serves it is killed and comes back", async () => {
    const { recorder, url } = sharedRecorder();
    const nodes = [await startNode(url), await startNode(url), await startNode(url)];
    const [nexusNode] = nodes as [EngineProcess, EngineProcess, EngineProcess];
    const copies: Copy[] = [];
    for (const node of nodes) copies.push(await makeCopy(node, nexusNode));
    const volumeUuid = randomUUID();
    const first = randomUUID();
    await nexusNode.rpc.createNexus({
      uuid: first,
      volumeUuid,
      epoch: 1,
      children: copies.map(({ uri }) => ({ uri })),
    });
    const { deviceUri } = await nexusNode.rpc.shareNexusNvmf({ uuid: first });
    const load = await startLoad(deviceUri);
    await progress(load);

    await nexusNode.kill();
    await nexusNode.start();
    await openPool(nexusNode);
    const second = randomUUID();
    const { children } = await recorder.get(volumeUuid);
    await nexusNode.rpc.createNexus({
      uuid: second,
      volumeUuid,
      epoch: 2,
      children: children.map(({ uri, healthy }) => ({ uri, healthy })),
    });
    expect((await nexusNode.rpc.shareNexusNvmf({ uuid: second })).deviceUri).toBe(deviceUri);
    await progress(load);
    await until(
      "making the replicas equal",
      () => nexusNode.rpc.getNexus({ uuid: second }),
      ({ state }) => state === "online",
    );
    await expectIntact(load, copies);
  });

  test("holds writes while the recorder is away, and goes on when it is back", async () => {
    const { recorder, url, goAway, comeBack } = sharedRecorder();
    const nodes = [await startNode(url), await startNode(url)];
    const [nexusNode, lost] = nodes as [EngineProcess, EngineProcess];
    const copies = [await makeCopy(nexusNode, nexusNode), await makeCopy(lost, nexusNode)];
    const uuid = randomUUID();
    const children = copies.map(({ uri }) => ({ uri }));
    await nexusNode.rpc.createNexus({ uuid, epoch: 1, children });
    const { deviceUri } = await nexusNode.rpc.shareNexusNvmf({ uuid });
    const load = await startLoad(deviceUri);
    await progress(load);
    await goAway();
    await lost.kill();
    await until(
      "losing the child",
      () => nexusNode.rpc.getNexus({ uuid }),
      ({ state }) => state !== "online",
    );
    // Nobody has recorded the loss, so no write may be acknowledged: all requests come to a stop.
    let last = -1;
    let same = 0;
    await until(
      "writes being held",
      async () => {
        const { reads, writes } = await load.stats();
        same = reads + writes === last ? same + 1 : 0;
        last = reads + writes;
        return same;
      },
      (times) => times >= 20,
    );
    comeBack();
    await progress(load);
    expect((await recorder.get(uuid)).children.map(({ healthy }) => healthy)).toEqual([
      true,
      false,
    ]);
    const { mismatches, errorCount } = await load.finish();
    expect({ mismatches, errorCount }).toEqual({ mismatches: 0, errorCount: 0 });
  });
});
