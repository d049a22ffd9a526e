/**
 * How long claims of Kubernetes take that are made all at once: a real API server, Kubernetes' own
 * controllers and sidecars, three nodes of ours on this machine. Prints the time to each claim being
 * bound, and to all; then to all being gone again.
 *
 *   bun test/bench/claims.ts [count]        (after images/setup.mjs --test and images/build.ts)
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KubeObject } from "../../src/kube/client/objects.ts";
import { startReflector } from "../../src/kube/client/reflector.ts";
import { persistentVolumeClaims, persistentVolumes } from "../../src/kube/names.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { projectRoot } from "../support/executable.ts";
import { applyYaml } from "../support/kube-objects.ts";
import {
  addKubeNode,
  applyManifest,
  startDriver,
  startVolumeControllers,
} from "../support/kube-sidecars.ts";
import { endKubeServers, KubeServer, programsFolder } from "../support/kubernetes.ts";

const DRIVER = "io.openebs.csi-mayastor";
const DISK_BYTES = 2 ** 34;
const PATIENCE_MS = 600_000;

type Claim = KubeObject & { readonly status?: { readonly phase?: string } };

function percentile(sorted: readonly number[], share: number): string {
  const at = Math.min(sorted.length - 1, Math.floor(sorted.length * share));
  return `${(sorted[at]! / 1000).toFixed(2)} s`;
}

async function measure(server: KubeServer, cluster: Cluster, count: number): Promise<void> {
  const { client } = server;
  const boundMs = new Map<string, number>();
  const begun = performance.now();
  const reflector = startReflector<Claim>({
    client,
    resource: persistentVolumeClaims,
    log: () => {},
    changed: (key, claim) => {
      if (claim?.status?.phase !== "Bound" || boundMs.has(key)) return;
      boundMs.set(key, performance.now() - begun);
    },
  });
  const claim = (index: number) => ({
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: `claim-${index}`, namespace: "default" },
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: "64Mi" } },
      storageClassName: "bench",
    },
  });
  const all = Array.from({ length: count }, (_, index) => claim(index));
  await Promise.all(all.map((one) => client.create(persistentVolumeClaims, "default", one)));
  const madeMs = performance.now() - begun;
  const whole = () => boundMs.size;
  await waitUntil("all claims bound", whole, (bound) => bound === count, PATIENCE_MS);
  const sorted = [...boundMs.values()].sort((a, b) => a - b);
  console.log(`${count} claims, 3 replicas each, made in ${(madeMs / 1000).toFixed(2)} s; bound:`);
  console.log(
    `  first ${percentile(sorted, 0)}, p50 ${percentile(sorted, 0.5)}, p99 ${percentile(sorted, 0.99)}, all ${percentile(sorted, 1)}`,
  );
  await reflector.stop();
  const deleting = performance.now();
  await Promise.all(all.map(({ metadata }) => client.remove(persistentVolumeClaims, metadata)));
  await waitUntil(
    "all gone",
    async () =>
      (await client.list(persistentVolumes)).items.length + (await cluster.rest.volumes()).length,
    (left) => left === 0,
    PATIENCE_MS,
  );
  console.log(`  all gone ${((performance.now() - deleting) / 1000).toFixed(2)} s after their end`);
}

async function main(count: number): Promise<void> {
  if (programsFolder === null) throw new Error("run `node images/setup.mjs --test` with Go first");
  process.env.TRILITH_EXECUTABLE ??= join(projectRoot, "dist/trilith");
  const server = await KubeServer.start();
  try {
    const manifest = await applyManifest(server, "--storage-class", "bench:repl=3,thin=true");
    const cluster = await Cluster.start(3, tmpdir());
    for (const node of cluster.nodes) {
      await addKubeNode(server, node.name, [DRIVER]);
      await cluster.rest.createPool(node.name, `pool-of-${node.name}`, {
        disks: [node.disk("disk", DISK_BYTES)],
        labels: { "openebs.io/created-by": "operator-diskpool" },
      });
    }
    // By default Kubernetes' own binder does five claims a second, whatever the storage does.
    startVolumeControllers(server, "--kube-api-qps=400", "--kube-api-burst=800");
    await startDriver(server, cluster.nodes[0]!.restUrl, DRIVER, manifest);
    // One beforehand: the sidecars have to win their leases first.
    await applyYaml(
      server.client,
      "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: first}, spec: {accessModes: " +
        "[ReadWriteOnce], resources: {requests: {storage: 64Mi}}, storageClassName: bench}}",
    );
    const at = { namespace: "default", name: "first" };
    await waitUntil(
      "the first claim",
      () => server.client.get<Claim>(persistentVolumeClaims, at),
      ({ status }) => status?.phase === "Bound",
    );
    await server.client.remove(persistentVolumeClaims, at);
    await measure(server, cluster, count);
  } finally {
    await endClusters();
    await endKubeServers();
  }
}

await main(Number(process.argv[2] ?? "100"));
