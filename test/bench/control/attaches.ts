/**
 * How long ControllerPublishVolume takes: the call that an attach of Kubernetes waits for. With one volume,
 * a hundred and a thousand in the cluster: it should be the same.
 */
import { VolumeCapability_AccessMode_Mode as Mode } from "../../../src/csi/generated/csi_pb.js";
import { startTestDriver, type TestDriver } from "../../support/csi-driver.ts";
import type { Bench, Group } from "../bench.ts";
import { plainRow } from "../rows.ts";
import { quantile } from "./http-load.ts";
import {
  ATTACH_BYTES,
  ATTACH_CREATES_AT_ONCE,
  ATTACH_VOLUMES,
  ATTACHES,
  ATTACHES_WARMUP,
  CREATE_POOL_BYTES,
} from "./limits.ts";
import { withCluster } from "./nodes.ts";

const HOST = "app-1";
const shares = [
  { name: "p50", share: 0.5 },
  { name: "p99", share: 0.99 },
];
const rowName = (volumes: number, share: string) =>
  `csi: ControllerPublish, ${volumes} volume${volumes === 1 ? "" : "s"}, ${share}`;
const rows = ATTACH_VOLUMES.flatMap((volumes) => shares.map(({ name }) => rowName(volumes, name)));

const volumeCapability = {
  accessType: { case: "mount", value: {} },
  accessMode: { mode: Mode.SINGLE_NODE_WRITER },
} as const;

/** Makes volumes until there are so many; returns the id of one of them. */
async function fill({ controller }: TestDriver, from: number, count: number): Promise<string> {
  let next = from;
  let id = "";
  const lane = async () => {
    for (let n = next++; n < count; n = next++) {
      const { volume } = await controller.createVolume({
        name: `attach-${n}`,
        capacityRange: { requiredBytes: BigInt(ATTACH_BYTES) },
        volumeCapabilities: [volumeCapability],
        parameters: { repl: "2", thin: "true" },
      });
      id = volume?.volumeId ?? id;
    }
  };
  await Promise.all(Array.from({ length: ATTACH_CREATES_AT_ONCE }, lane));
  return id;
}

/** Milliseconds of each attach of one volume, detached in between. */
async function attach({ controller }: TestDriver, volumeId: string): Promise<number[]> {
  const tookMs: number[] = [];
  for (let n = 0; n < ATTACHES_WARMUP + ATTACHES; n++) {
    const startMs = performance.now();
    await controller.controllerPublishVolume({ volumeId, nodeId: HOST, volumeCapability });
    if (n >= ATTACHES_WARMUP) tookMs.push(performance.now() - startMs);
    await controller.controllerUnpublishVolume({ volumeId, nodeId: HOST });
  }
  return tookMs;
}

async function run(bench: Bench): Promise<void> {
  await withCluster(bench, async (cluster) => {
    for (const [n, node] of cluster.nodes.entries()) {
      await cluster.createPool(node, `pool-${n + 1}`, CREATE_POOL_BYTES);
    }
    const csi = await startTestDriver(cluster, [HOST]);
    try {
      let there = 0;
      for (const volumes of ATTACH_VOLUMES) {
        const wanted = shares.filter(({ name }) => bench.wants(rowName(volumes, name)));
        if (wanted.length === 0) continue;
        const id = await fill(csi, there, volumes);
        there = volumes;
        const tookMs = await attach(csi, id);
        for (const { name, share } of wanted) {
          const frame = { case: rowName(volumes, name), unit: "ms" };
          bench.add(plainRow(frame, quantile(tookMs, share)));
        }
      }
    } finally {
      await csi.stop();
    }
  });
}

export const attaches: Group = { rows, run };
