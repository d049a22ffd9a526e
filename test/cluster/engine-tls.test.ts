/** An engine's RPC over mutual TLS: who is let in, and another certificate while it runs. */
import { afterEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathsIn } from "../../src/control/membership/data-dir.ts";
import { openEngine } from "../../src/control/membership/engine-link.ts";
import { secureClient } from "../../src/net/secure-client.ts";
import { EngineProcess, endEngines } from "../support/engine-process.ts";
import { credentialsFor, freePort, furtherNode, newCluster } from "../support/membership.ts";
import { tempFolders } from "../support/temp-folder.ts";

const folder = tempFolders();
afterEach(endEngines);

/**
 * The code that a call fails with. (`expect().rejects` waits in a way of its own, in which streams of
 * HTTP/2 stand still.)
 */
function codeOf(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => "it did not fail",
    (error: { code?: string }) => error.code ?? String(error),
  );
}

test("control processes of the cluster are served, strangers are not; certificates are read again", async () => {
  const base = folder();
  const cluster = await newCluster(base);
  const stranger = await newCluster(join(base, "other"), "s1");
  const n2 = await furtherNode(cluster, base, "n2", "2");
  const { nodePem, caCert } = pathsIn(n2.path);
  const endpoint = `127.0.0.1:${await freePort()}`;
  const engine = new EngineProcess({
    options: ["--rpc-tls", endpoint, "--rpc-cert", nodePem, "--rpc-ca", caCert],
  });
  await engine.start();
  const { clusterId } = cluster.identity;
  const open = (nodeId: string, credentials = cluster.credentials()) =>
    openEngine({ endpoint, clusterId, nodeId, credentials: () => credentials, timeoutMs: 5_000 });

  const link = open("n2");
  const info = await link.client.getInfo();
  expect(info.rpc.map(({ port }) => String(port))).toContain(endpoint.split(":")[1]!);
  expect((await link.client.listEvents({ since: 0 })).events.length).toBeGreaterThan(0);
  expect(await codeOf(link.client.getPool({ name: "none" }))).toBe("NotFound");
  // A long poll is given up in time, and others go on beside it.
  const { next } = await link.client.listEvents({ since: 0 });
  const poll = link.client.listEvents({ since: next, waitMs: 60_000 }, { timeoutMs: 200 });
  const beside = await link.client.listPools();
  expect(beside).toEqual([]);
  expect(await codeOf(poll)).toBe("Timeout");

  // Another node than meant, another cluster's certificate, none at all.
  const wrong = open("n3");
  expect(await codeOf(wrong.client.getInfo())).toBe("PermissionDenied");
  wrong.close();
  const { caPem } = cluster.credentials();
  const foreign = open("n2", { ...stranger.credentials(), caPem });
  expect(await codeOf(foreign.client.getInfo())).toBe("Unauthenticated");
  foreign.close();
  const [address, port] = endpoint.split(":");
  const nobody = secureClient({
    address: address!,
    port: Number(port),
    credentials: () => ({ caPem }),
    check: () => {},
  });
  const refused = await nobody.fetch(new Request("https://x/v1/info"));
  expect(refused.status).toBe(401);
  nobody.close();

  // Another certificate: new connections see it, the old one goes on.
  const { keyPem, certPem } = await credentialsFor(cluster, "n9", "9");
  writeFileSync(nodePem, `${keyPem}\n${certPem}`);
  process.kill(info.pid, "SIGHUP");
  const renamed = open("n9");
  const endMs = performance.now() + 10_000;
  let found: { pid: number } | undefined;
  while (found === undefined) {
    found = await renamed.client.getInfo().catch((error: unknown) => {
      if (performance.now() > endMs) throw error;
      return undefined;
    });
  }
  expect(found.pid).toBe(info.pid);
  expect((await link.client.getInfo()).pid).toBe(info.pid);
  renamed.close();
  link.close();
}, 30_000);
