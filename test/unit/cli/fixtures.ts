/** A small cluster as the API shows it, and what runs a command line against a stand-in of the API. */
import { afterEach } from "bun:test";
import type { CliContext, Terminal } from "../../../src/cli/context.ts";
import { runCli } from "../../../src/cli/run.ts";
import type {
  ClusterStatus,
  Node,
  Pool,
  RebuildHistory,
  Volume,
  VolumeSnapshot,
} from "../../../src/client/types.ts";
import { type Answers, apiStandIn, type StandIn } from "../../support/api-stand-in.ts";

export const VOLUME = "18e30e83-b106-4e0d-9fb6-2b04e761e18a";
export const CLONE = "0c08667c-8b59-4d11-9192-b54e27e0ce0f";
export const REPLICAS = [
  "93b1e1e9-ffcd-4c56-971e-294a530ea5cd",
  "88d89a92-40cf-4147-97d4-09e64979f548",
  "a76adcd6-9df0-47a1-90a5-2d5bf4151572",
] as const;
export const SNAPSHOT = "25823425-41fa-434a-9efd-a356b70b5d7c";
export const NEXUS = "61d6afc8-15c6-4127-b0aa-15a570198880";
export const GIB = 2 ** 30;
export const TARGET_URI =
  `nvmf+tcp://10.0.0.1:8420/nqn.2019-05.io.openebs:${VOLUME}` +
  `?hostnqn=nqn.2019-05.io.openebs:node-name:host-1&uuid=${VOLUME}`;

export function node(
  id: string,
  more: Partial<NonNullable<Node["spec"]>> = {},
  status = "Online",
): Node {
  const grpcEndpoint = `10.0.0.${id.at(-1)}:10124`;
  const version = "0.1.0";
  return {
    id,
    spec: { id, grpcEndpoint, version, ...more },
    state: { id, grpcEndpoint, version, status: status as "Online" },
  };
}

export const nodes: Node[] = [
  node("node-1", { labels: { zone: "a", rack: "1" } }),
  node("node-2", {
    cordondrainstate: {
      drainingstate: { cordonlabels: ["disk swap"], drainlabels: ["upgrade"] },
    },
  }),
  node("node-3", { cordondrainstate: { cordonedstate: { cordonlabels: ["slow"] } } }, "Offline"),
];

export function pool(
  id: string,
  onNode: string,
  more: Partial<NonNullable<Pool["spec"]>> = {},
): Pool {
  const disks = [`uring:///dev/disk/by-id/${id}`];
  return {
    id,
    spec: { id, node: onNode, disks, status: "Created", ...more },
    state: {
      id,
      node: onNode,
      disks,
      status: "Online",
      capacity: 100 * GIB,
      used: 10.5 * GIB,
      committed: 30 * GIB,
    },
  };
}

export const pools: Pool[] = [
  pool("pool-1", "node-1", {
    labels: { tier: "fast", "openebs.io/created-by": "operator-diskpool" },
  }),
  pool("pool-2", "node-2", { cordoned: true }),
  { id: "pool-3", spec: { id: "pool-3", node: "node-3", disks: ["/dev/sdc"], status: "Creating" } },
];

export const volume: Volume = {
  spec: {
    uuid: VOLUME,
    num_replicas: 3,
    size: 10 * GIB,
    status: "Created",
    policy: { self_heal: true },
    thin: false,
    as_thin: true,
    num_snapshots: 1,
    target: { node: "node-1", protocol: "nvmf" },
  },
  state: {
    uuid: VOLUME,
    size: 10 * GIB,
    status: "Degraded",
    target: {
      uuid: NEXUS,
      node: "node-1",
      protocol: "nvmf",
      state: "Degraded",
      size: 10 * GIB,
      rebuilds: 1,
      deviceUri: TARGET_URI,
      children: [],
    },
    usage: {
      capacity: 10 * GIB,
      allocated: 4 * GIB,
      allocated_replica: 4 * GIB,
      allocated_snapshots: GIB,
      allocated_all_snapshots: GIB,
      total_allocated: 12 * GIB,
      total_allocated_replicas: 12 * GIB,
      total_allocated_snapshots: 3 * GIB,
    },
    replica_topology: {
      [REPLICAS[0]]: {
        node: "node-1",
        pool: "pool-1",
        state: "Online",
        "child-status": "Online",
        usage: {
          capacity: 10 * GIB,
          allocated: 4 * GIB,
          allocated_snapshots: GIB,
          allocated_all_snapshots: GIB,
        },
      },
      [REPLICAS[1]]: {
        node: "node-2",
        pool: "pool-2",
        state: "Online",
        "child-status": "Degraded",
        "rebuild-progress": 42,
      },
      [REPLICAS[2]]: {
        node: "node-3",
        pool: "pool-3",
        state: "Unknown",
        "child-status": "Faulted",
        "child-status-reason": "OutOfSpace",
      },
    },
  },
};

export const clone: Volume = {
  spec: {
    uuid: CLONE,
    num_replicas: 1,
    size: GIB,
    status: "Created",
    policy: { self_heal: true },
    thin: true,
    num_snapshots: 0,
    content_source: { snapshot: { snapshot: SNAPSHOT, volume: VOLUME } },
  },
  state: {
    uuid: CLONE,
    size: GIB,
    status: "Online",
    replica_topology: {
      "03f0c3f1-4d3e-44e5-b768-4c50e53f7a34": { node: "node-1", pool: "pool-1", state: "Online" },
    },
  },
};

export const volumes = { entries: [volume, clone] };

const replicaSnapshot = (index: number) => ({
  uuid: SNAPSHOT.replace(/^.{8}/, `0000000${index}`),
  source_id: REPLICAS[index]!,
  pool_id: `pool-${index + 1}`,
  pool_uuid: "3a1f6c1e-0c3e-4f0e-8f0a-000000000001",
});

export const snapshot: VolumeSnapshot = {
  definition: {
    metadata: {
      status: "Created",
      timestamp: "2026-11-21T10:00:00Z",
      size: 10 * GIB,
      spec_size: 10 * GIB,
      total_allocated_size: 2 * GIB,
      txn_id: "1",
      transactions: {},
      num_restores: 1,
      num_snapshot_replicas: 2,
    },
    spec: { uuid: SNAPSHOT, source_volume: VOLUME },
  },
  state: {
    uuid: SNAPSHOT,
    allocated_size: GIB,
    source_volume: VOLUME,
    timestamp: "2026-11-21T10:00:00Z",
    ready_as_source: true,
    replica_snapshots: [
      {
        online: {
          ...replicaSnapshot(0),
          timestamp: "2026-11-21T10:00:00Z",
          size: 10 * GIB,
          allocated_size: GIB,
          predecessor_alloc_size: 0,
        },
      },
      { offline: replicaSnapshot(1) },
    ],
  },
};

const record = {
  childUri: `nvmf+tcp://10.0.0.2:8420/nqn.2019-05.io.openebs:${REPLICAS[1]}`,
  srcUri: `bdev:///${REPLICAS[0]}`,
  blocksTotal: 20_971_520,
  blocksRecovered: 10_485_760,
  blocksTransferred: 5_242_880,
  blocksRemaining: 10_485_760,
  blockSize: 512,
  isPartial: true,
  startTime: "2026-11-21T10:00:00Z",
};

export const rebuildHistory: RebuildHistory = {
  targetUuid: NEXUS,
  records: [{ ...record, rebuildJobState: "Completed", endTime: "2026-11-21T10:01:30Z" }],
};

export const runningRebuild = {
  ...record,
  rebuildJobState: "Rebuilding",
  replica: REPLICAS[1],
  progressPercent: 50,
  bytesPerSec: 100 * 2 ** 20,
  etaMs: 52_000,
};

export const cluster = {
  leader: "node-1",
  members: [
    { node: "node-1", raftId: "1", voter: true, leader: true, matchIndex: 120 },
    { node: "node-2", raftId: "2", voter: true, leader: false },
    { node: "node-3", raftId: "3", voter: true, leader: false },
  ],
  raft: {
    raftId: "1",
    role: "leader",
    leader: "1",
    term: 4,
    commitIndex: 120,
    appliedIndex: 120,
    firstIndex: 1,
  },
};

export const status: ClusterStatus = {
  at: "2026-11-21T10:00:00.000Z",
  cluster,
  nodes: [
    {
      id: "node-1",
      status: "Online",
      version: "0.1.0",
      cordoned: false,
      drain: "none",
      pools: 1,
      replicas: 2,
      targets: 1,
    },
    {
      id: "node-2",
      status: "Online",
      version: "0.1.0",
      cordoned: true,
      drain: "draining",
      pools: 1,
      replicas: 1,
      targets: 0,
    },
  ],
  pools: [
    {
      id: "pool-1",
      node: "node-1",
      status: "Online",
      capacity: 100 * GIB,
      used: 95 * GIB,
      committed: 120 * GIB,
      cordoned: false,
      replicas: 2,
    },
  ],
  volumes: {
    total: 2,
    byStatus: { Online: 1, Degraded: 1 },
    published: 1,
    sizeBytes: 11 * GIB,
    attention: [
      {
        uuid: VOLUME,
        status: "Degraded",
        spec: "Created",
        replicas: 2,
        replicasWanted: 3,
        node: "node-1",
      },
    ],
  },
  snapshots: 1,
  rebuilds: { total: 1, running: [{ volume: VOLUME, node: "node-1", rebuild: runningRebuild }] },
  warnings: [
    {
      severity: "warning",
      subject: "pool/pool-1",
      message: "95 % of its capacity is allocated",
      remedy: "trilith create pool <name> <disk> --node node-1",
    },
    {
      severity: "critical",
      subject: "node/node-3",
      message: "it has been offline for 12 minutes",
      remedy: "systemctl start trilith",
    },
  ],
};

/** What a command line printed and did. */
export interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
  readonly api: StandIn;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly terminal?: Terminal;
  readonly input?: string;
  readonly confirm?: (question: string) => Promise<boolean>;
  readonly onInterrupt?: CliContext["onInterrupt"];
  readonly sleep?: (ms: number) => Promise<void>;
  readonly now?: () => number;
}

/** Runs a command line as the executable would, keeping what it prints. */
export async function runLine(
  line: string | readonly string[],
  options: RunOptions = {},
): Promise<{ status: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const context: CliContext = {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: options.env ?? {},
    // Tests do not wait for wall clocks: a pause is one turn of the loop.
    sleep: options.sleep ?? (() => Bun.sleep(0)),
    readInput: async () => options.input ?? "",
    ...(options.terminal && { terminal: options.terminal }),
    ...(options.confirm && { confirm: options.confirm }),
    ...(options.onInterrupt && { onInterrupt: options.onInterrupt }),
    ...(options.now && { now: options.now }),
  };
  const args = typeof line === "string" ? line.split(" ") : line;
  const status = await runCli("trilith", args, context);
  return { status, out: out.join("\n"), err: err.join("\n") };
}

/**
 * To be called at the top of a test file: returns what runs a line against an API with the given
 * answers. The stand-in's complaints fail the test that caused them.
 */
export function againstApi(): (
  line: string | readonly string[],
  answers: Answers,
  options?: RunOptions,
) => Promise<Ran> {
  const open: StandIn[] = [];
  afterEach(async () => {
    for (const api of open.splice(0)) await api.stop();
  });
  return async (line, answers, options = {}) => {
    const api = apiStandIn(answers);
    open.push(api);
    const ran = await runLine(line, { ...options, env: { TRILITH_REST: api.url, ...options.env } });
    if (api.problems.length > 0) throw new Error(api.problems.join("\n"));
    return { ...ran, api };
  };
}
