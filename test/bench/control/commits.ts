/**
 * Changes that three members commit, beside etcd on the same disk: a small record is written over HTTP
 * at the leader, and is on the disks of a majority when it is answered. Ours passes the whole API.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { ClusterNode } from "../../support/cluster.ts";
import type { Bench, Group } from "../bench.ts";
import { type Aim, pairedRow, type RowFrame } from "../rows.ts";
import { EtcdCluster } from "./etcd.ts";
import { type HttpRates, httpLoad } from "./http-load.ts";
import { CLIENTS, MEMBERS, VALUE_BYTES } from "./limits.ts";
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

async function measure(
  bench: Bench,
  leader: ClusterNode,
  etcd: EtcdCluster,
  clients: number,
): Promise<{ ours: HttpRates[]; theirs: HttpRates[] }> {
  const { warmupSeconds, seconds, repetitions } = bench.options.pace;
  let base = clients * 1_000_000_000;
  const sides = {
    ours: (n: number) => putRecord(leader, base + n),
    theirs: (n: number) => etcd.put(`bench-${base + n}`, VALUE),
  };
  const rates: { ours: HttpRates[]; theirs: HttpRates[] } = { ours: [], theirs: [] };
  for (let round = 0; round <= repetitions; round++) {
    const order = round % 2 === 0 ? (["ours", "theirs"] as const) : (["theirs", "ours"] as const);
    for (const side of order) {
      base += 10_000_000;
      const measured = await httpLoad(clients, round === 0 ? warmupSeconds : seconds, sides[side]);
      // The first round warms up.
      if (round > 0) rates[side].push(measured);
    }
  }
  return rates;
}

async function run(bench: Bench): Promise<void> {
  const folder = mkdtempSync(join(bench.options.folder, "trilith-bench-etcd-"));
  try {
    await withCluster(bench, async (cluster) => {
      const etcd = await EtcdCluster.start(folder, bench.folder);
      try {
        const leader = await cluster.leader();
        for (const clients of [1, CLIENTS]) {
          const rows = shown.filter((row) => row.clients === clients && bench.wants(row.name));
          if (rows.length === 0) continue;
          const { ours, theirs } = await measure(bench, leader, etcd, clients);
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
