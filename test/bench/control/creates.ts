/** How long it takes to create a volume of three replicas on three nodes of one machine. */
import { randomUUID } from "node:crypto";
import type { Bench, Group } from "../bench.ts";
import { plainRow } from "../rows.ts";
import { quantile } from "./http-load.ts";
import { CREATE_BYTES, CREATE_POOL_BYTES, CREATES, CREATES_WARMUP, MEMBERS } from "./limits.ts";
import { withCluster } from "./nodes.ts";

const names = {
  p50: `control: volume create, ${MEMBERS} replicas, p50`,
  p99: `control: volume create, ${MEMBERS} replicas, p99`,
} as const;

async function run(bench: Bench): Promise<void> {
  await withCluster(bench, async (cluster) => {
    for (const [n, node] of cluster.nodes.entries()) {
      await cluster.createPool(node, `pool-${n + 1}`, CREATE_POOL_BYTES);
    }
    const { rest } = await cluster.leader();
    const tookMs: number[] = [];
    for (let n = 0; n < CREATES_WARMUP + CREATES; n++) {
      const startMs = performance.now();
      const volume = await rest.createVolume(randomUUID(), {
        size: CREATE_BYTES,
        replicas: MEMBERS,
        thin: true,
        policy: { self_heal: true },
      });
      if (volume.state.status !== "Online") throw new Error("a created volume is not online");
      if (n >= CREATES_WARMUP) tookMs.push(performance.now() - startMs);
    }
    const rows = [
      { case: names.p50, share: 0.5 },
      { case: names.p99, share: 0.99 },
    ];
    for (const { case: name, share } of rows) {
      if (bench.wants(name))
        bench.add(plainRow({ case: name, unit: "ms" }, quantile(tookMs, share)));
    }
  });
}

export const creates: Group = { rows: Object.values(names), run };
