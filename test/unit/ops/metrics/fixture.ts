/** An engine's answers for tests of metrics: one pool, one replica, one published volume that rebuilds. */

import type { OpStats } from "../../../../src/engine/rpc/stats.ts";
import type { EngineReading, EngineSource } from "../../../../src/ops/metrics/engine-source.ts";

export const VOLUME = "0c08667c-8b59-4d11-9192-b54e27e0ce0f";
export const NEXUS = "1d1f7d5c-2f0e-4a5f-9a86-2f6f8f5b8a11";
export const REPLICA = "2e7b0a5e-7b8e-4b0d-8c54-02f2a2b9b3c4";
export const POOL_UUID = "3f9b7f1e-4a77-4c0b-9d53-0a4e0a6f7d21";

const none: OpStats = { ops: 0, bytes: 0, errors: 0, latencyUs: 0, latencyCounts: [] };

function op(ops: number, bytes: number, latencyUs: number, errors = 0): OpStats {
  const latencyCounts = ops === 0 ? [] : [0, 0, 0, 0, 0, 0, 0, ops];
  return { ops, bytes, errors, latencyUs, latencyCounts };
}

function stats(kind: "pool" | "replica" | "nexus" | "child", name: string) {
  return {
    kind,
    name,
    nexusUuid: kind === "child" ? NEXUS : null,
    read: op(7, 28_672, 700, 1),
    write: op(3, 12_288, 600),
    flush: op(1, 0, 50),
    writeZeroes: none,
    discard: none,
    reactor: 0,
  };
}

const childUri = `nvmf+tcp://10.0.0.2:8420/nqn.2019-05.io.openebs:${REPLICA}?uuid=${REPLICA}`;

export function reading(): EngineReading {
  return {
    info: {
      nodeName: "node-1",
      version: "0.1.0",
      commit: "abc",
      bun: "1.4.5",
      apiVersions: ["v1"],
      instanceUuid: "4e9c2f57-5b7e-4f5b-8b5e-0d9f1a2b3c4d",
      pid: 1,
      startedAt: "2026-01-31T12:00:00.000Z",
      hostNqn: "nqn.2019-05.io.openebs:node-name:node-1",
      hostId: "5e9c2f57-5b7e-4f5b-8b5e-0d9f1a2b3c4d",
      address: "10.0.0.1",
      nvmf: [],
      discovery: [],
      nbd: [],
      rpc: [],
      reactors: 1,
      features: {
        asymmetricNamespaceAccess: true,
        nbd: true,
        writeIntentLog: true,
        replicaSnapshots: true,
        poolGrow: true,
      },
    },
    usage: {
      uptimeMs: 1000,
      userUs: 2_000_000,
      systemUs: 1_000_000,
      rssBytes: 100 << 20,
      mainHeapBytes: 10 << 20,
      mainStalls: 2,
      mainStallMsMax: 75,
      openFiles: 20,
      reactors: [
        {
          index: 0,
          core: null,
          turns: 10,
          completions: 20,
          busyNs: 5_000_000,
          sleeps: 3,
          spins: 4,
          stalls: 1,
          stallNsMax: 12_000_000,
          arenaBytes: 64 << 20,
          arenaFreeBytes: 63 << 20,
          arenaPages: "transparent",
          slots: 1024,
          slotsFree: 1000,
          handlers: 5,
          timers: 2,
          connections: 1,
          heapBytes: 5 << 20,
          bdevs: 1,
          pools: 1,
          nexuses: 1,
          subsystems: 1,
        },
      ],
    },
    pools: [
      {
        name: "pool-1",
        uuid: POOL_UUID,
        disks: ["/dev/sdb"],
        state: "degraded",
        stateReason: "a copy of the superblock is damaged",
        readErrors: 1,
        writeErrors: 2,
        metadataErrors: 4,
        blockSize: 512,
        clusterSizeBytes: 4 << 20,
        capacityBytes: 1000 << 20,
        usedBytes: 100 << 20,
        committedBytes: 200 << 20,
        metadataBytes: 8 << 20,
        diskCapacityBytes: 1024 << 20,
        replicas: 1,
        snapshots: 3,
        reactor: 0,
      },
    ],
    replicas: [
      {
        uuid: REPLICA,
        name: REPLICA,
        poolName: "pool-1",
        poolUuid: POOL_UUID,
        kind: "regular",
        state: "online",
        sizeBytes: 100 << 20,
        blockSize: 512,
        thin: true,
        entityId: VOLUME,
        snapshotUuid: null,
        uri: childUri,
        shares: [],
        claimedBy: null,
        space: {
          capacityBytes: 100 << 20,
          allocatedBytes: 4 << 20,
          allocatedBytesSnapshots: 0,
          allocatedBytesAllSnapshots: 0,
          clusterSizeBytes: 4 << 20,
          clusters: 25,
          allocatedClusters: 1,
        },
        sync: {
          volumeUuid: VOLUME,
          epoch: 1,
          generation: 1,
          baseGeneration: 1,
          clean: false,
          dirtyRegions: 0,
        },
        reactor: 0,
      },
    ],
    nexuses: [
      {
        uuid: NEXUS,
        name: VOLUME,
        volumeUuid: VOLUME,
        epoch: 1,
        generation: 1,
        sizeBytes: 100 << 20,
        blockSize: 512,
        state: "degraded",
        children: [
          { uri: "bdev:///local", state: "online", reason: "none", isLocal: true, rebuild: null },
          {
            uri: childUri,
            state: "degraded",
            reason: "out-of-sync",
            isLocal: false,
            rebuild: {
              childUri,
              srcUri: "bdev:///local",
              state: "rebuilding",
              blocksTotal: 1000,
              blocksRecovered: 250,
              blocksTransferred: 100,
              blocksRemaining: 750,
              blockSize: 512,
              progressPercent: 25,
              isPartial: true,
              startTimeMs: 0,
              endTimeMs: null,
              bytesPerSec: 64_000,
              etaMs: 6_000,
              error: null,
            },
          },
        ],
        deviceUri: "nvmf+tcp://10.0.0.1:8420/nqn.2019-05.io.openebs:volume",
        shares: [],
        rebuilds: 1,
        dirtyRegions: 5,
        waitingRequests: 2,
        isPaused: false,
        reactor: 0,
      },
    ],
    stats: [
      stats("pool", "pool-1"),
      stats("replica", REPLICA),
      stats("nexus", NEXUS),
      stats("child", childUri),
    ],
  };
}

/** An engine that gives these answers. `calls` counts what it was asked. */
export function sourceOf(answers: EngineReading): EngineSource & { readonly calls: string[] } {
  const calls: string[] = [];
  const give =
    <K extends keyof EngineReading>(key: K) =>
    async () => {
      calls.push(key);
      return answers[key];
    };
  return {
    calls,
    getInfo: give("info"),
    getUsage: give("usage"),
    listPools: give("pools"),
    listReplicas: give("replicas"),
    listNexuses: give("nexuses"),
    listStats: give("stats"),
  };
}
