/** What a scrape of a node holds: names and labels as Mayastor's, values as the engine says. */
import { afterEach, describe, expect, test } from "bun:test";
import type {
  ClusterState,
  ObservedNode,
  StoreView,
} from "../../../../src/control/cluster-state.ts";
import type { NodeRecord, ReplicaRecord, VolumeRecord } from "../../../../src/control/model.ts";
import type { StoreStatus } from "../../../../src/control/store/store.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { CONTENT_TYPE } from "../../../../src/ops/metrics/exposition.ts";
import {
  type ClusterReading,
  catalog,
  controlInstruments,
  createMetrics,
  type MetricsServer,
  type MetricsSources,
  sampleNames,
  serveMetrics,
} from "../../../../src/ops/metrics/index.ts";
import { type ParsedFamily, parseExposition } from "../../../support/exposition-parser.ts";
import { NEXUS, POOL_UUID, REPLICA, reading, sourceOf, VOLUME } from "./fixture.ts";

const servers: MetricsServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

const raftStatus: StoreStatus = {
  raftId: "1",
  role: "leader",
  term: 3,
  leader: "1",
  commitIndex: 120,
  appliedIndex: 119,
  firstIndex: 50,
  members: [
    { raftId: "1", nodeId: "node-1", isVoter: true, isLeader: true, matchIndex: 120 },
    { raftId: "2", nodeId: "node-2", isVoter: true, isLeader: false, matchIndex: 100 },
    { raftId: "3", nodeId: "node-3", isVoter: false, isLeader: false, matchIndex: null },
  ],
};

/** A cluster of three nodes (one away, one drained) and a volume that lacks a replica. */
function cluster(): ClusterReading {
  const node = (id: string, more: Partial<NodeRecord> = {}) =>
    ({ id, cordonLabels: [], drainLabels: [], drainPhase: "none", ...more }) as NodeRecord;
  const observed = (id: string, status: ObservedNode["status"]) =>
    [id, { id, status } as ObservedNode] as const;
  const nodes = [
    node("node-1", { cordonLabels: ["by-hand"] }),
    node("node-2"),
    node("node-3", { drainLabels: ["service"], drainPhase: "draining" }),
  ];
  const replica = { uuid: REPLICA, healthy: true, status: "Created" } as ReplicaRecord;
  const volume = {
    uuid: VOLUME,
    sizeBytes: 100 << 20,
    replicaCount: 2,
    target: null,
  } as VolumeRecord;
  const stored = {
    nodes: new Map(nodes.map((one) => [one.id, one])),
    pools: new Map(),
    volumes: new Map([[VOLUME, volume]]),
    replicas: new Map([[REPLICA, replica]]),
    snapshots: new Map(),
    replicasOfVolume: new Map([[VOLUME, new Set([REPLICA])]]),
  } as unknown as StoreView;
  const state = {
    nowMs: 0,
    stored,
    observed: new Map([observed("node-1", "Online"), observed("node-2", "Offline")]),
  } as unknown as ClusterState;
  const warning = { severity: "critical", subject: "", message: "", remedy: "" } as const;
  const scrub = {
    isRunning: true,
    progressRatio: 0.5,
    completedAtMs: 60_000,
    comparedBytes: 5000,
    mismatchedBytes: 12_288,
    repairedBytes: 8192,
    unrepairedBytes: 4096,
  };
  const scrubOf = () => scrub;
  return { state, warnings: [warning], volumeStatus: () => "Degraded", scrubOf };
}

function sources(more: Partial<MetricsSources> = {}): MetricsSources {
  return { engine: sourceOf(reading()), log: () => {}, now: () => 0, ...more };
}

async function scrape(more: Partial<MetricsSources> = {}): Promise<Map<string, ParsedFamily>> {
  return parseExposition(await createMetrics(sources(more)).scrape());
}

async function scrapeAll(): Promise<Map<string, ParsedFamily>> {
  const instruments = controlInstruments();
  instruments.proposed(3, true);
  instruments.proposed(3, false);
  instruments.leadershipChanged();
  const work = { subject: "volume/x", steps: [] };
  instruments.planned(5, { works: [work, work], warnings: [], wakeAtMs: null });
  instruments.stepped("createReplica", 8, "NoSpace");
  instruments.requested("GET", "/v0/volumes", 200, 2);
  const event = { target: "", nodeId: null, component: "", message: "" };
  instruments.happened({ ...event, category: "Volume", action: "Create" });
  instruments.happened({ ...event, category: "Nexus", action: "RebuildBegin" });
  instruments.happened({ ...event, category: "Nexus", action: "NoSuchAction" });
  const loop = { read: () => ({ stalls: 1, stallMsMax: 60, stallMsSum: 60 }), stop: () => {} };
  return scrape({ instruments, raft: () => raftStatus, cluster, loop });
}

/** Value of the one sample of `name` that has `labels`. */
function valueIn(
  families: Map<string, ParsedFamily>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const samples = [...families.values()]
    .flatMap((family) => family.samples)
    .filter((sample) => sample.name === name)
    .filter((sample) => Object.entries(labels).every(([key, is]) => sample.labels[key] === is));
  expect(samples.map((sample) => sample.labels)).toHaveLength(1);
  return samples[0]!.value;
}

describe("Mayastor's metrics", () => {
  const pool = { node: "node-1", name: "pool-1" };
  const volume = { node: "node-1", pv_name: `pvc-${VOLUME}` };
  const replica = { node: "node-1", name: REPLICA, pv_name: `pvc-${VOLUME}` };
  const six = {
    bytes_read: 28_672,
    num_read_ops: 7,
    bytes_written: 12_288,
    num_write_ops: 3,
    read_latency_us: 700,
    write_latency_us: 600,
  };
  const MIB = 1 << 20;
  const expected: [name: string, labels: Readonly<Record<string, string>>, value: number][] = [
    ...["diskpool", "disk_pool"].flatMap((front): typeof expected => [
      [`${front}_total_size_bytes`, pool, 1000 * MIB],
      [`${front}_used_size_bytes`, pool, 100 * MIB],
      [`${front}_committed_size_bytes`, pool, 200 * MIB],
      [`${front}_status`, pool, 2],
    ]),
    ["diskpool_disk_capacity_bytes", pool, 1024 * MIB],
    ["diskpool_io_error_count", pool, 7],
    ...Object.entries(six).flatMap(([name, value]): typeof expected => [
      [`diskpool_${name}`, pool, value],
      [`volume_${name}`, volume, value],
      [`replica_${name}`, { ...replica, pool_name: "pool-1", pool_uuid: POOL_UUID }, value],
    ]),
    ["mayastor_node_online", { node_id: "node-1" }, 1],
    ["mayastor_node_cordoned", { node_id: "node-1" }, 1],
    ["mayastor_node_draining", { node_id: "node-1" }, 0],
  ];
  for (const [name, labels, value] of expected) {
    test(`${name} has its labels, its value, and is a gauge`, async () => {
      const family = (await scrapeAll()).get(name)!;
      expect(family.type).toBe("gauge");
      const sample = family.samples.find((one) =>
        Object.entries(labels).every(([key, is]) => one.labels[key] === is),
      );
      expect(sample).toEqual({ name, labels, value });
    });
  }

  test("counters of what was created and deleted begin at zero", async () => {
    const families = await scrapeAll();
    expect(valueIn(families, "volume", { action: "created" })).toBe(1);
    expect(valueIn(families, "volume", { action: "deleted" })).toBe(0);
    expect(valueIn(families, "pool", { action: "created" })).toBe(0);
    expect(valueIn(families, "nexus", { action: "rebuild_started" })).toBe(1);
    expect(valueIn(families, "nexus", { action: "rebuild_ended" })).toBe(0);
    expect(valueIn(families, "nexus", { action: "created" })).toBe(0);
  });

  test("every state of a pool has its number", async () => {
    const numbers = { offline: 0, online: 1, degraded: 2, faulted: 3 } as const;
    for (const [state, number] of Object.entries(numbers)) {
      const answers = reading();
      answers.pools[0]!.state = state as keyof typeof numbers;
      const families = await scrape({ engine: sourceOf(answers) });
      expect(valueIn(families, "diskpool_status")).toBe(number);
    }
  });
});

describe("our metrics", () => {
  test("are all exported by a node that leads, and nothing else is", async () => {
    const families = await scrapeAll();
    expect([...families.keys()].sort()).toEqual(catalog.map(({ name }) => name).sort());
    for (const definition of catalog) {
      const family = families.get(definition.name)!;
      expect(family.type).toBe(definition.type);
      for (const { name, labels } of family.samples) {
        expect(sampleNames(definition)).toContain(name);
        const own = Object.keys(labels).filter((label) => label !== "le");
        expect(own).toEqual([...definition.labels]);
      }
    }
  });

  test("carry a prefix, a help text, and units", () => {
    const theirs = /^(disk_?pool|volume|replica|mayastor_node|process|pool|nexus)(_|$)/;
    for (const { name, type, help } of catalog) {
      expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
      expect(help.length).toBeGreaterThan(5);
      if (theirs.test(name)) continue;
      expect(name).toStartWith("trilith_");
      expect(name.endsWith("_total")).toBe(type === "counter");
      if (type === "histogram") expect(name).toEndWith("_seconds");
      // Base units: seconds and bytes.
      expect(name).not.toMatch(/_(ms|us|ns|kib|mib|percent)(_|$)/);
    }
  });

  test("tell of a rebuild how far, how fast, and how long still", async () => {
    const families = await scrape();
    const of = { pv_name: `pvc-${VOLUME}`, nexus: NEXUS, child: REPLICA };
    expect(valueIn(families, "trilith_rebuild_progress_ratio", of)).toBe(0.25);
    expect(valueIn(families, "trilith_rebuild_bytes_per_second", of)).toBe(64_000);
    expect(valueIn(families, "trilith_rebuild_eta_seconds", of)).toBe(6);
    expect(valueIn(families, "trilith_rebuild_size_bytes", of)).toBe(512_000);
    expect(valueIn(families, "trilith_rebuild_recovered_bytes", of)).toBe(128_000);
    expect(valueIn(families, "trilith_rebuild_transferred_bytes", of)).toBe(51_200);
    expect(valueIn(families, "trilith_rebuild_partial", of)).toBe(1);
  });

  test("leave a rebuild's remaining time out while it is not known", async () => {
    const answers = reading();
    answers.nexuses[0]!.children[1]!.rebuild!.etaMs = null;
    const families = await scrape({ engine: sourceOf(answers) });
    expect(families.has("trilith_rebuild_eta_seconds")).toBe(false);
    expect(families.has("trilith_rebuild_progress_ratio")).toBe(true);
  });

  test("tell latencies of pools, replicas and volumes apart by operation", async () => {
    const families = await scrape();
    for (const thing of ["pool", "replica", "volume"]) {
      const name = `trilith_${thing}_latency_seconds`;
      expect(valueIn(families, `${name}_count`, { op: "read" })).toBe(7);
      expect(valueIn(families, `${name}_count`, { op: "write" })).toBe(3);
      expect(valueIn(families, `${name}_sum`, { op: "read" })).toBeCloseTo(700e-6, 12);
      // The fixture's latencies lie between 65.536 and 131.072 us.
      expect(valueIn(families, `${name}_bucket`, { op: "read", le: "0.000065536" })).toBe(0);
      expect(valueIn(families, `${name}_bucket`, { op: "read", le: "0.000131072" })).toBe(7);
    }
    expect(valueIn(families, "trilith_volume_io_errors_total", { op: "read" })).toBe(1);
    expect(valueIn(families, "trilith_volume_operations_total", { op: "flush" })).toBe(1);
  });

  test("count two nexuses of one volume together", async () => {
    const answers = reading();
    const other = "6e9c2f57-5b7e-4f5b-8b5e-0d9f1a2b3c4d";
    answers.nexuses.push({ ...answers.nexuses[0]!, uuid: other, state: "shutdown" });
    answers.stats.push({ ...answers.stats[2]!, name: other });
    const families = await scrape({ engine: sourceOf(answers) });
    expect(valueIn(families, "volume_num_read_ops")).toBe(14);
    expect(valueIn(families, "trilith_volume_latency_seconds_count", { op: "read" })).toBe(14);
  });

  test("leave out statistics of what was destroyed meanwhile", async () => {
    const answers = { ...reading(), nexuses: [], replicas: [] };
    const families = await scrape({ engine: sourceOf(answers) });
    expect(families.has("volume_num_read_ops")).toBe(false);
    expect(families.has("replica_num_read_ops")).toBe(false);
    expect(families.has("diskpool_num_read_ops")).toBe(true);
  });

  test("say of raft what this member knows", async () => {
    const families = await scrapeAll();
    expect(valueIn(families, "trilith_raft_term")).toBe(3);
    expect(valueIn(families, "trilith_raft_commit_index")).toBe(120);
    expect(valueIn(families, "trilith_raft_applied_index")).toBe(119);
    expect(valueIn(families, "trilith_raft_role", { role: "leader" })).toBe(1);
    expect(valueIn(families, "trilith_raft_role", { role: "follower" })).toBe(0);
    expect(valueIn(families, "trilith_raft_members", { kind: "voter" })).toBe(2);
    expect(valueIn(families, "trilith_raft_members", { kind: "learner" })).toBe(1);
    expect(valueIn(families, "trilith_raft_member_lag_entries", { member: "node-2" })).toBe(20);
    expect(families.get("trilith_raft_member_lag_entries")!.samples).toHaveLength(2);
  });

  test("say of the cluster what the leader knows", async () => {
    const families = await scrapeAll();
    expect(valueIn(families, "trilith_cluster_nodes", { status: "Online" })).toBe(1);
    expect(valueIn(families, "trilith_cluster_nodes", { status: "Offline" })).toBe(1);
    expect(valueIn(families, "trilith_cluster_nodes", { status: "Unknown" })).toBe(1);
    expect(valueIn(families, "mayastor_node_online", { node_id: "node-2" })).toBe(0);
    expect(valueIn(families, "mayastor_node_cordoned", { node_id: "node-3" })).toBe(1);
    expect(valueIn(families, "mayastor_node_draining", { node_id: "node-3" })).toBe(1);
    expect(valueIn(families, "trilith_cluster_volumes", { status: "Degraded" })).toBe(1);
    expect(valueIn(families, "trilith_volume_replicas_desired")).toBe(2);
    expect(valueIn(families, "trilith_volume_replicas_healthy")).toBe(1);
    expect(valueIn(families, "trilith_warnings", { severity: "critical" })).toBe(1);
  });

  test("leave the cluster out where this node does not lead", async () => {
    const families = await scrape({ cluster: () => null, raft: () => raftStatus });
    expect(families.has("mayastor_node_online")).toBe(false);
    expect(families.has("trilith_raft_term")).toBe(true);
  });
});

describe("a scrape", () => {
  test("goes on without the engine when that does not answer", async () => {
    const engine = sourceOf(reading());
    const away = {
      ...engine,
      listPools: () => Promise.reject(new TrilithError("Unavailable", "nobody there")),
    };
    const families = await scrape({ engine: away, raft: () => raftStatus });
    expect(valueIn(families, "trilith_engine_up")).toBe(0);
    expect(families.has("diskpool_status")).toBe(false);
    expect(valueIn(families, "trilith_raft_term")).toBe(3);
  });

  test("goes on without a source that throws", async () => {
    const logged: string[] = [];
    const families = await scrape({
      log: (level, text) => logged.push(`${level} ${text}`),
      cluster: () => {
        throw new Error("not yet");
      },
    });
    expect(valueIn(families, "trilith_engine_up")).toBe(1);
    expect(families.has("trilith_cluster_nodes")).toBe(false);
    expect(logged).toEqual(["warn metrics are left out"]);
  });

  test("is shared by those who ask within the cache's time, and made anew after it", async () => {
    let nowMs = 1_000;
    const engine = sourceOf(reading());
    const metrics = createMetrics(sources({ engine, now: () => nowMs, cacheMs: 500 }));
    const asked = () => engine.calls.filter((call) => call === "pools").length;
    await Promise.all([metrics.scrape(), metrics.scrape()]);
    expect(asked()).toBe(1);
    nowMs = 1_499;
    await metrics.scrape();
    expect(asked()).toBe(1);
    nowMs = 1_500;
    await metrics.scrape();
    expect(asked()).toBe(2);
    // The clock was set back: what is cached may be of any age.
    nowMs = 10;
    await metrics.scrape();
    expect(asked()).toBe(3);
  });
});

describe("the endpoint", () => {
  function serve(): string {
    const server = serveMetrics(
      createMetrics(sources()),
      { address: "127.0.0.1", port: 0 },
      () => {},
    );
    servers.push(server);
    return server.url;
  }

  test("answers GET /metrics in Prometheus' format", async () => {
    const answer = await fetch(`${serve()}/metrics`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe(CONTENT_TYPE);
    expect(parseExposition(await answer.text()).has("diskpool_status")).toBe(true);
  });

  test("compresses for those who can read that", async () => {
    const url = `${serve()}/metrics`;
    const zipped = await fetch(url, { decompress: false, headers: { "accept-encoding": "gzip" } });
    expect(zipped.headers.get("content-encoding")).toBe("gzip");
    const text = new TextDecoder().decode(Bun.gunzipSync(await zipped.arrayBuffer()));
    expect(parseExposition(text).has("diskpool_status")).toBe(true);
    const plain = await fetch(url, {
      decompress: false,
      headers: { "accept-encoding": "identity" },
    });
    expect(plain.headers.get("content-encoding")).toBeNull();
  });

  test("refuses other methods and other paths", async () => {
    const url = serve();
    expect((await fetch(`${url}/metrics`, { method: "POST" })).status).toBe(405);
    expect((await fetch(`${url}/other`)).status).toBe(404);
  });

  test("says who has the port when it is taken", () => {
    const url = new URL(serve());
    const again = () =>
      serveMetrics(
        createMetrics(sources()),
        { address: "127.0.0.1", port: Number(url.port) },
        () => {},
      );
    expect(again).toThrow(TrilithError);
  });
});

test("scrubs are told by the leader, with what no majority could repair", async () => {
  const families = await scrapeAll();
  const of = { pv_name: `pvc-${VOLUME}` };
  const told = (name: string) => valueIn(families, `trilith_volume_scrub_${name}`, of);
  expect(told("completed_timestamp_seconds")).toBe(60);
  expect(told("progress_ratio")).toBe(0.5);
  expect(told("compared_bytes")).toBe(5000);
  expect(told("mismatched_bytes")).toBe(12_288);
  expect(told("repaired_bytes")).toBe(8192);
  expect(told("unrepaired_bytes")).toBe(4096);
});
