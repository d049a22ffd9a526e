/** What nexuses have recorded, over a store. */
import { describe, expect, test } from "bun:test";
import type { VolumeRecord } from "../../../../src/control/model.ts";
import { controlRecorder, type RecordRequest } from "../../../../src/control/recorder/recorder.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { MemoryStore } from "../../../support/control/memory-store.ts";
import { nexusRecord, replicaRecord, volumeRecord } from "../../../support/store-records.ts";

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const VOLUME = id(1);
const NEXUS = id(2);
const NOW_MS = 1_800_000_000_000;
const REPLICAS = [id(10), id(11), id(12)];
const uriOf = (uuid: string) =>
  uuid === id(10) ? `bdev:///${uuid}` : `nvmf+tcp://h:1/nqn.x:${uuid}?uuid=${uuid}`;

function setting(volume: Partial<VolumeRecord> = {}) {
  const store = new MemoryStore();
  const target = {
    nexusUuid: NEXUS,
    nodeId: "node-1",
    protocol: "nvmf",
    frontendNodes: [],
    publishContext: {},
  } as const;
  store.seed(
    { table: "volumes", put: volumeRecord(VOLUME, { epoch: 3, target, ...volume }) },
    { table: "nexuses", put: nexusRecord(NEXUS, { volumeUuid: VOLUME, epoch: 3 }) },
    ...REPLICAS.map(
      (uuid) => ({ table: "replicas", put: replicaRecord(uuid, VOLUME, "p") }) as const,
    ),
  );
  const forwarded: RecordRequest[] = [];
  const recorder = controlRecorder({
    store,
    forward: async (request) => {
      forwarded.push(request);
    },
    nowMs: () => NOW_MS,
    log: () => {},
  });
  /** Records these replicas as healthy, the others that are named as lost. */
  const record = (
    healthy: readonly string[],
    lost: readonly string[] = [],
    changes: Partial<RecordRequest> = {},
  ) =>
    recorder.record({
      volumeUuid: VOLUME,
      nexusUuid: NEXUS,
      epoch: 3,
      children: [
        ...healthy.map((uuid) => ({ uri: uriOf(uuid), healthy: true })),
        ...lost.map((uuid) => ({ uri: uriOf(uuid), healthy: false })),
      ],
      cleanShutdown: false,
      ...changes,
    });
  const health = () => REPLICAS.map((uuid) => store.view().replicas.get(uuid)!.healthy);
  return { store, recorder, record, health, forwarded };
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "";
  } catch (error) {
    return error instanceof TrilithError ? error.code : String(error);
  }
}

describe("a record of a volume's children", () => {
  test("makes replicas unhealthy that are lost, and healthy again", async () => {
    const { store, record, health } = setting();
    await record([id(10), id(11)], [id(12)]);
    expect(health()).toEqual([true, true, false]);
    expect(store.view().replicas.get(id(12))!.faultedAtMs).toBe(NOW_MS);
    expect(store.view().volumes.get(VOLUME)!.cleanShutdown).toBe(false);
    await record(REPLICAS, [], { cleanShutdown: true });
    expect(health()).toEqual([true, true, true]);
    expect(store.view().replicas.get(id(12))!.faultedAtMs).toBeNull();
    expect(store.view().volumes.get(VOLUME)!.cleanShutdown).toBe(true);
  });

  test("makes replicas unhealthy that the nexus does not have", async () => {
    const { record, health } = setting();
    await record([id(11)]);
    expect(health()).toEqual([false, true, false]);
  });

  test("never leaves the volume without a healthy replica", async () => {
    const { store, record, health } = setting();
    expect(await codeOf(record([], REPLICAS))).toBe("InvalidArgument");
    expect(await codeOf(record([id(99)], REPLICAS))).toBe("InvalidArgument");
    store.seed({
      table: "replicas",
      put: { ...store.view().replicas.get(id(10))!, status: "Deleting" },
    });
    expect(await codeOf(record([id(10)], [id(11), id(12)]))).toBe("InvalidArgument");
    expect(health()).toEqual([true, true, true]);
  });

  test("of a superseded nexus is refused", async () => {
    const { record, health } = setting();
    expect(await codeOf(record([id(10)], [], { epoch: 2 }))).toBe("Superseded");
    expect(await codeOf(record([id(10)], [], { nexusUuid: id(3) }))).toBe("Superseded");
    expect(await codeOf(record([id(10)], [], { epoch: 4 }))).toBe("FailedPrecondition");
    expect(health()).toEqual([true, true, true]);
  });

  test("is refused when the epoch rises between looking and writing", async () => {
    const { store, record, health } = setting();
    store.meanwhile = () => {
      store.meanwhile = () => {};
      store.seed({ table: "volumes", put: { ...store.view().volumes.get(VOLUME)!, epoch: 4 } });
    };
    expect(await codeOf(record([id(10)], [id(11), id(12)]))).toBe("Superseded");
    expect(health()).toEqual([true, true, true]);
  });

  test("of a former target that closes is taken until another epoch is given out", async () => {
    const { store, record } = setting({ target: null });
    store.seed({
      table: "nexuses",
      put: { ...store.view().nexuses.get(NEXUS)!, phase: "Shutdown" },
    });
    await record(REPLICAS, [], { cleanShutdown: true });
    expect(store.view().volumes.get(VOLUME)!.cleanShutdown).toBe(true);
  });
});

test("a nexus without a volume has a record of its own", async () => {
  const { store, recorder } = setting();
  const uuid = id(5);
  const request = {
    volumeUuid: uuid,
    nexusUuid: uuid,
    epoch: 1,
    children: [
      { uri: "bdev:///a", healthy: true },
      { uri: "bdev:///b", healthy: false },
    ],
    cleanShutdown: false,
  };
  expect(await codeOf(recorder.record(request))).toBe("NotFound");
  store.seed({ table: "nexuses", put: nexusRecord(uuid, { epoch: 1 }) });
  await recorder.record(request);
  expect(await recorder.get(uuid)).toMatchObject(request);
  expect(await codeOf(recorder.record({ ...request, epoch: 0 }))).toBe("Superseded");
  expect((await recorder.list()).map(({ volumeUuid }) => volumeUuid).sort()).toEqual(
    [VOLUME, uuid].sort(),
  );
});

test("whoever does not lead asks the leader", async () => {
  const { store, record, forwarded, health } = setting();
  store.setLeader(false);
  await record([id(10)], [id(11)]);
  expect(forwarded).toMatchObject([
    { volumeUuid: VOLUME, epoch: 3, children: [{ healthy: true }, { healthy: false }] },
  ]);
  expect(health()).toEqual([true, true, true]);
});
