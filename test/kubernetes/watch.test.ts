/** A copy of a resource while the real API server fails, forgets, and is out of reach. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { kubeClient } from "../../src/kube/client/client.ts";
import { parseKubeconfig } from "../../src/kube/client/kubeconfig.ts";
import type { KubeObject, Resource } from "../../src/kube/client/objects.ts";
import { startReflector } from "../../src/kube/client/reflector.ts";
import { waitUntil } from "../support/cluster.ts";
import { applyObject } from "../support/kube-objects.ts";
import { endKubeServers, KubeServer, programsFolder } from "../support/kubernetes.ts";

setDefaultTimeout(180_000);
const configMaps: Resource = { group: "", version: "v1", plural: "configmaps", namespaced: true };

let server: KubeServer;

const configMap = (name: string): KubeObject => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "default" },
});
const remove = (name: string) => server.client.remove(configMaps, { namespace: "default", name });

describe.skipIf(programsFolder === null)("a copy of a resource", () => {
  beforeAll(async () => {
    server = await KubeServer.start();
  });
  afterAll(endKubeServers);

  test("is right again after what it missed is no longer told", async () => {
    let isCutOff = false;
    const open = new Set<AbortController>();
    const client = kubeClient({
      access: parseKubeconfig(readFileSync(server.kubeconfig, "utf8"), server.kubeconfig),
      fetch(url, init) {
        if (isCutOff) return Promise.reject(new Error("cut off"));
        const cut = new AbortController();
        open.add(cut);
        return fetch(url, { ...init, signal: AbortSignal.any([init.signal!, cut.signal]) });
      },
    });
    const deleted: string[] = [];
    const gone: string[] = [];
    const reflector = startReflector<KubeObject>({
      client,
      resource: configMaps,
      log: () => {},
      changed: (key, object) => object === undefined && gone.push(key),
      deleted: ({ metadata }) => deleted.push(metadata.name),
    });
    const names = () =>
      [...reflector.objects.keys()]
        .filter((key) => key.startsWith("default/") && !key.endsWith("kube-root-ca.crt"))
        .sort();
    const shows = (...wanted: string[]) =>
      waitUntil(
        `the copy being ${wanted.join(", ")}`,
        names,
        (now) => now.join() === wanted.map((name) => `default/${name}`).join(),
      );
    await applyObject(server.client, configMap("a"));
    await applyObject(server.client, configMap("b"));
    await shows("a", "b");
    await remove("b");
    await shows("a");
    expect(deleted).toEqual(["b"]);

    isCutOff = true;
    for (const one of open) one.abort();
    await remove("a");
    await applyObject(server.client, configMap("c"));
    // A new API server knows no history: who goes on from before is told to list anew (410).
    await server.killApi();
    await server.startApi();
    const { lists } = reflector.counts;
    isCutOff = false;
    await shows("c");
    expect(reflector.counts.lists).toBeGreaterThan(lists);
    // What is found missing in a list is gone, but nobody has said that it was deleted.
    expect(gone).toEqual(["default/b", "default/a"]);
    expect(deleted).toEqual(["b"]);
    await applyObject(server.client, configMap("d"));
    await shows("c", "d");
    await reflector.stop();
  });
});
