/** Standbys of engines with several reactors: wherever they live, the nexus takes their name over. */
import { afterEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { EngineProcess, endEngines } from "../support/engine-process.ts";

const MIB = 1 << 20;
const BYTES = 16 * MIB;
const REACTORS = 2;
const controllerIds = { min: 1, max: 64 };

afterEach(endEngines);

async function startEngine(): Promise<EngineProcess> {
  const none = ["--discovery-port", "none", "--nbd-port", "none"];
  const engine = new EngineProcess({ options: ["--reactors", String(REACTORS), ...none] });
  await engine.start();
  await engine.rpc.createPool({ name: "pool", disks: [engine.disk()], clusterSizeBytes: MIB });
  return engine;
}

async function makeReplica({ rpc }: EngineProcess): Promise<{ uuid: string; reactor: number }> {
  const uuid = randomUUID();
  return rpc.createReplica({ uuid, poolName: "pool", sizeBytes: BYTES, thin: true });
}

test("a standby lives beside the replica that it names, else anywhere; the nexus is served in its place", async () => {
  const engine = await startEngine();
  const { rpc } = engine;
  const replica = await makeReplica(engine);
  const seen = new Set<number>();
  for (const isNamed of [true, false, false]) {
    const volumeUuid = randomUUID();
    const wanted = { volumeUuid, sizeBytes: BYTES, blockSize: 512, controllerIds } as const;
    const named = isNamed ? { replicaUuid: replica.uuid } : {};
    const standby = await rpc.createStandby({ ...wanted, ...named });
    if (isNamed) expect(standby.reactor).toBe(replica.reactor);
    seen.add(standby.reactor);
    // Asked for again it is where it was.
    expect((await rpc.createStandby(wanted)).reactor).toBe(standby.reactor);

    const uuid = randomUUID();
    const children = [{ uri: `bdev:///${replica.uuid}` }];
    const nexus = await rpc.createNexus({ uuid, volumeUuid, epoch: 1, children });
    expect(nexus.reactor).toBe(replica.reactor);
    await rpc.shareNexusNvmf({ uuid, controllerIds });
    expect(await rpc.listStandbys()).toEqual([]);
    const subsystems = await rpc.listSubsystems({ nqn: standby.nqn });
    expect(subsystems).toMatchObject([{ reactor: replica.reactor, anaState: "optimized" }]);

    // Told to stay it does, on the nexus's reactor, and hosts find it there.
    const stays = await rpc.createStandby(wanted);
    expect(stays).toMatchObject({ state: "serving", reactor: replica.reactor });
    await rpc.destroyNexus({ uuid });
    const [left] = await rpc.listStandbys();
    expect(left).toMatchObject({ volumeUuid, state: "listening", reactor: replica.reactor });
    await rpc.removeStandby({ volumeUuid });
    expect(await rpc.listSubsystems({ nqn: standby.nqn })).toEqual([]);
    // The replica is the next volume's.
    await rpc.destroyReplica({ uuid: replica.uuid });
    await rpc.createReplica({ uuid: replica.uuid, poolName: "pool", sizeBytes: BYTES, thin: true });
  }
  // Otherwise no standby was on another reactor than its nexus.
  expect(seen.size).toBe(REACTORS);
});
