/**
 * The HTTP API of real nodes: each answer, by the leader or handed on by another node, is held to the
 * contract and to our own document.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { expectDocumented, type Json, templateOf } from "../support/api/api-client.ts";
import { Cluster, type ClusterNode, endClusters, waitUntil } from "../support/cluster.ts";

const GiB = 2 ** 30;
const uuid = "5f0c0d6a-7b1e-4c55-9f3c-0a54d2f1e001";
const snapshot = "5f0c0d6a-7b1e-4c55-9f3c-0a54d2f1e002";
const restored = "5f0c0d6a-7b1e-4c55-9f3c-0a54d2f1e003";

let cluster: Cluster;
let follower: ClusterNode;

beforeAll(async () => {
  cluster = await Cluster.start(3);
  const leader = await cluster.leader();
  follower = cluster.nodes.find((node) => node !== leader)!;
}, 120_000);
afterAll(endClusters, 60_000);

async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<{ readonly status: number; readonly body: Json; readonly headers: Headers }> {
  const response = await fetch(`${follower.restUrl}/v0${path}`, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const answered = text === "" ? undefined : JSON.parse(text);
  const template = templateOf(method, path.split("?")[0]!)!;
  expectDocumented(method, template, response.status, answered);
  return { status: response.status, body: answered, headers: response.headers };
}

async function done(method: string, path: string, body?: unknown): Promise<Json> {
  const answer = await ask(method, path, body);
  expect(`${method} ${path} ${answer.status} ${JSON.stringify(answer.body)}`).toMatch(
    new RegExp(`^${method} \\S+ 20[0124] `),
  );
  return answer.body;
}

test("pools, volumes and snapshots live and die through a node that does not lead", async () => {
  for (const [index, node] of cluster.nodes.entries()) {
    const pool = `pool-${index + 1}`;
    await done("PUT", `/nodes/${node.name}/pools/${pool}`, {
      disks: [node.disk(pool, 2 * GiB)],
      labels: { tier: "fast" },
    });
    await waitUntil(
      `${pool} online`,
      () => done("GET", `/pools/${pool}`),
      ({ state }) => String(state!.status) === "Online",
    );
  }
  const body = { policy: { self_heal: true }, replicas: 2, size: GiB / 4, thin: true };
  await done("PUT", `/volumes/${uuid}`, body);
  expect((await ask("PUT", `/volumes/${uuid}`, body)).status).toBe(200);
  expect((await ask("PUT", `/volumes/${uuid}`, { ...body, replicas: 3 })).status).toBe(409);
  const key = { "idempotency-key": "one-volume" };
  const small = { replicas: 1, size: GiB / 16 };
  const first = await ask("POST", "/volumes", small, key);
  const again = await ask("POST", "/volumes", small, key);
  expect([again.status, JSON.stringify(again.body)]).toEqual([201, expect.any(String)]);
  expect(again.body.spec!.uuid).toEqual(first.body.spec!.uuid!);
  await done("DELETE", `/volumes/${first.body.spec!.uuid}`);

  const target = { publish_context: {}, protocol: "nvmf", frontend_node: "app-1" };
  const published = await done("PUT", `/volumes/${uuid}/target`, target);
  expect(String(published.state!.target!.deviceUri)).toStartWith("nvmf+tcp://");
  expect((await ask("PUT", `/volumes/${uuid}/target`, target)).status).toBe(412);
  await done("GET", `/volumes/${uuid}/rebuild-history`);
  await done("GET", `/volumes/${uuid}/rebuilds`);
  await done("DELETE", `/volumes/${uuid}/target`);

  await done("PUT", `/volumes/${uuid}/snapshots/${snapshot}`);
  await done("PUT", `/snapshots/${snapshot}/volumes/${restored}`, body);
  await done("PUT", `/volumes/${restored}/size`, { size: GiB / 2 });
  await done("DELETE", `/volumes/${restored}`);
  await done("DELETE", `/volumes/snapshots/${snapshot}`);
  for (const path of [
    "/nodes",
    "/pools",
    "/replicas",
    "/nexuses",
    "/volumes?max_entries=0",
    "/volumes/snapshots?max_entries=0",
    "/specs",
    "/status",
    "/warnings",
    "/plan",
    "/cluster",
    "/cluster/tokens",
    "/settings",
    "/events",
    "/app-nodes?max_entries=0",
    `/nodes/${follower.name}/block_devices?all=true`,
    `/nodes/${follower.name}/removal-impact`,
    "/pools/pool-1/removal-impact",
  ]) {
    await done("GET", path);
  }
  await done("DELETE", `/volumes/${uuid}`);
  await done("DELETE", "/pools/pool-3");
}, 120_000);

test("a request's id comes back from the leader, and a refusal with kind and remedy", async () => {
  const headers = { "x-request-id": "from-a-test" };
  const {
    status,
    body,
    headers: got,
  } = await ask(
    "PUT",
    "/volumes/5f0c0d6a-7b1e-4c55-9f3c-0a54d2f1e009",
    { policy: { self_heal: true }, replicas: 5, size: GiB, thin: false },
    headers,
  );
  expect([status, String(body.kind)]).toEqual([507, "ResourceExhausted"]);
  expect(String(body.remedy)).not.toBe("");
  expect(got.get("x-request-id")).toBe("from-a-test");
});

test("events stream from any node, from where they were left", async () => {
  const response = await fetch(`${follower.restUrl}/v0/events?since=0`, {
    headers: { accept: "text/event-stream" },
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = "";
  while (!text.includes("\nid: 3\n") && !text.includes("\n\nid: 3\n")) {
    text += decoder.decode((await reader.read()).value, { stream: true });
  }
  await reader.cancel();
  expect(text).toContain("id: 1\ndata: {");
}, 30_000);

test("without a majority reads are answered and say so, and changes are refused", async () => {
  const others = cluster.nodes.filter((node) => node !== follower);
  await Promise.all(others.map((node) => node.kill()));
  const stale = await waitUntil(
    "the loss of the leader",
    () => ask("GET", "/nodes"),
    ({ headers }) => headers.get("trilith-stale") === "true",
  );
  expect(stale.status).toBe(200);
  const refused = await ask("PUT", `/nodes/${follower.name}/cordon/x`);
  expect([refused.status, String(refused.body.kind)]).toEqual([503, "Unavailable"]);
  // Until its election it believes in the leader that it had.
  await waitUntil(
    "not being ready",
    async () => (await fetch(`${follower.restUrl}/readyz`)).status,
    (status) => status === 503,
  );
  expect((await fetch(`${follower.restUrl}/livez`)).status).toBe(200);
}, 90_000);
