/**
 * Changes that three members commit, beside etcd on the same disk: a small record is written over HTTP
 * at the leader, and is on the disks of a majority when it is answered. Ours passes the whole API.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Cluster, ClusterNode } from "../../support/cluster.ts";
import type { Bench, Group } from "../bench.ts";
import { type Aim, pairedRow, type RowFrame } from "../rows.ts";
import { EtcdCluster } from "./etcd.ts";
import { type HttpRates, httpLoad } from "./http-load.ts";
import { CLIENTS, COMMIT_WARMUP_SECONDS, MEMBERS, VALUE_BYTES } from "./limits.ts";
import { withCluster } from "./nodes.ts";

const VALUE = "v".repeat(VALUE_BYTES);
const what = (clients: number) =>
  `control: commits, ${MEMBERS} members, ${clients} client${clients === 1 ? "" : "s"}`;

interface Shown {
  readonly name: string;
  readonly unit: string;
  readonly clients: number;
  readonly of: (rates: HttpRates) => number;
  readonly aim: Aim;
}

const shown: readonly Shown[] = [1, CLIENTS].flatMap((clients): Shown[] => [
  {
    name: `${what(clients)}, rate`,
    unit: "commits/s",
    clients,
    of: (rates) => rates.perSecond,
    aim: { atLeast: 1 },
  },
  {
    name: `${what(clients)}, p50`,
    unit: "ms",
    clients,
    of: (rates) => rates.p50Ms,
    aim: { atMost: 1 },
  },
  {
    name: `${what(clients)}, p99`,
    unit: "ms",
    clients,
    of: (rates) => rates.p99Ms,
    aim: { atMost: 1 },
  },
]);

/** One record of ours: an application node. */
async function putRecord(leader: ClusterNode, n: number): Promise<void> {
  const response = await fetch(`${leader.restUrl}/v0/app-nodes/bench-${n}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ endpoint: "10.0.0.1:10199", labels: { value: VALUE.slice(0, 63) } }),
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  await response.arrayBuffer();
}

interface Measured {
  readonly ours: HttpRates[];
  readonly theirs: HttpRates[];
}

/** Keys that no other load uses. */
let nextKey = 0;

async function load(
  side: keyof Measured,
  cluster: Cluster,
  etcd: EtcdCluster,
  clients: number,
  seconds: number,
): Promise<HttpRates> {
  const leader = await cluster.leader();
  const put = (): Promise<void> => {
    const key = nextKey++;
    return side === "ours" ? putRecord(leader, key) : etcd.put(`bench-${key}`, VALUE);
  };
  return httpLoad(clients, seconds, put);
}

async function measure(
  bench: Bench,
  cluster: Cluster,
  etcd: EtcdCluster,
  clients: number,
): Promise<Measured> {
  const { seconds, repetitions } = bench.options.pace;
  const rates: Measured = { ours: [], theirs: [] };
  for (let round = 0; round < repetitions; round++) {
    const order = round % 2 === 0 ? (["ours", "theirs"] as const) : (["theirs", "ours"] as const);
    for (const side of order) rates[side].push(await load(side, cluster, etcd, clients, seconds));
  }
  return rates;
}

async function run(bench: Bench): Promise<void> {
  const folder = mkdtempSync(join(bench.options.folder, "trilith-bench-etcd-"));
  try {
    await withCluster(bench, async (cluster) => {
      const etcd = await EtcdCluster.start(folder, bench.folder);
      try {
        for (const side of ["ours", "theirs"] as const) {
          await load(side, cluster, etcd, CLIENTS, COMMIT_WARMUP_SECONDS);
        }
        for (const clients of [1, CLIENTS]) {
          const rows = shown.filter((row) => row.clients === clients && bench.wants(row.name));
          if (rows.length === 0) continue;
          const { ours, theirs } = await measure(bench, cluster, etcd, clients);
          for (const { name, unit, of, aim } of rows) {
            const frame: RowFrame = { case: name, unit, aim };
            bench.add(pairedRow(frame, "etcd", ours.map(of), theirs.map(of)));
          }
        }
      } finally {
        await etcd.stop();
      }
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const commits: Group = { rows: shown.map(({ name }) => name), run };
