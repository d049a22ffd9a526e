/** The verbs of the command line, as a process of its own, against three real nodes. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Node, Pool, Volume } from "../../src/client/types.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { contractProblems } from "../support/contract.ts";
import { trilithCommand } from "../support/engine-process.ts";

const TEST_MS = 120_000;
const MIB = 1 << 20;
const VOLUME = "5e1f7a0c-3f64-4b0e-9a57-0a3c2b9f1d11";
const SNAPSHOT = "5e1f7a0c-3f64-4b0e-9a57-0a3c2b9f1d22";
const CLONE = "5e1f7a0c-3f64-4b0e-9a57-0a3c2b9f1d33";

let cluster: Cluster;

/** Starts a line as a process, with the API of node `at`. */
function start(line: string, at = 0) {
  const env = { ...process.env, TRILITH_REST: cluster.nodes[at]!.restUrl, NO_COLOR: "1" };
  const command = [...trilithCommand(), ...line.split(" ")];
  return Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe", env });
}

async function run(line: string, at = 0) {
  const child = start(line, at);
  const [status, out, err] = await Promise.all([
    child.exited,
    child.stdout.text(),
    child.stderr.text(),
  ]);
  return { status, out: out.trimEnd(), err: err.trimEnd() };
}

/** Runs a line that has to succeed; returns what it printed. */
async function done(line: string, at = 0): Promise<string> {
  const ran = await run(line, at);
  expect(`${line}: ${ran.status} ${ran.err}`).toBe(`${line}: 0 `);
  return ran.out;
}

async function objects<T>(line: string): Promise<T> {
  return JSON.parse(await done(`${line} -o json`)) as T;
}

/** Reads a child's output until it holds a text. */
async function readUntil(stream: ReadableStream<Uint8Array>, text: string): Promise<string> {
  const decoder = new TextDecoder();
  let read = "";
  for await (const chunk of stream) {
    read += decoder.decode(chunk, { stream: true });
    if (read.includes(text)) return read;
  }
  throw new Error(`the output ended before "${text}": ${read}`);
}

const placeOf = (volume: Volume) =>
  Object.entries(volume.state.replica_topology).map(([id, { pool }]) => ({ id, pool }));

beforeAll(async () => {
  cluster = await Cluster.start(3);
}, TEST_MS);
afterAll(endClusters);

describe("the command line", () => {
  test(
    "makes pools and a volume as a manifest says, and finds them made",
    async () => {
      const pools = cluster.nodes.map(
        (node, index) => `
apiVersion: openebs.io/v1beta2
kind: DiskPool
metadata: {name: pool-${index + 1}}
spec: {node: ${node.name}, disks: ["${node.disk("disk", 256 * MIB)}"]}
`,
      );
      const volume = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: two}
parameters: {repl: "2"}
provisioner: io.openebs.csi-mayastor
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, uid: ${VOLUME}}
spec: {storageClassName: two, resources: {requests: {storage: 32Mi}}}
`;
      const path = join(cluster.folder, "all.yaml");
      writeFileSync(path, [...pools, volume].join("---\n"));
      const first = await done(`apply -f ${path}`);
      expect(first.split("\n").map((line) => line.split(" ")[1]!.replace(":", ""))).toEqual([
        "skipped",
        "created",
        "created",
        "created",
        "created",
      ]);
      // Any node answers, and a second time nothing is changed.
      const again = await done(`apply -f ${path}`, 1);
      expect(again.match(/unchanged/g)).toHaveLength(4);
      expect(await objects<Pool[]>("get pools")).toHaveLength(3);
    },
    TEST_MS,
  );

  test(
    "prints objects as the contract has them, on every node",
    async () => {
      const paths: [line: string, path: string][] = [
        ["get nodes", "/nodes"],
        ["get node node-1", "/nodes/node-1"],
        ["get pools", "/pools"],
        ["get pool pool-2", "/pools/pool-2"],
        [`get volume ${VOLUME}`, `/volumes/${VOLUME}`],
        ["get block-devices node-3 --all", "/nodes/node-3/block_devices"],
      ];
      for (const [line, path] of paths) {
        expect([line, contractProblems("GET", path, 200, await objects(line))]).toEqual([line, []]);
        for (const at of [0, 1, 2]) {
          expect((await done(line, at)).split("\n").length).toBeGreaterThan(0);
        }
      }
    },
    TEST_MS,
  );

  test(
    "publishes, scales, waits for the copy, and shows where it lies",
    async () => {
      const published = await done(`publish volume ${VOLUME} --node node-1`);
      const { address } = cluster.nodes[0]!;
      expect(published).toContain(
        `nvme connect -t tcp -a ${address} -s 8420 -n nqn.2019-05.io.openebs:${VOLUME}`,
      );
      const scaled = await done(`scale volume ${VOLUME} 3`, 2);
      expect(scaled).toBe(`Volume ${VOLUME} scaled successfully 🚀`);
      expect(await done(`wait volume ${VOLUME} --for rebuilt`)).toBe(`Volume ${VOLUME} is rebuilt`);
      const topology = await done(`get volume-replica-topology ${VOLUME}`);
      expect(topology.split("\n")).toHaveLength(4);
      // What has ended is written down a little later.
      const history = () => done(`get rebuild-history ${VOLUME}`);
      expect(await waitUntil("a history", history, (text) => /\n.*Completed/.test(text))).toMatch(
        /^DST +SRC +STATE/,
      );
    },
    TEST_MS,
  );

  test(
    "drains a node of the volume that it serves",
    async () => {
      expect(await done("drain node node-1 service")).toBe("Node node-1 successfully drained");
      const volume = await objects<Volume>(`get volume ${VOLUME}`);
      expect(volume.state.target?.node).not.toBe("node-1");
      expect(await done("get drain nodes")).toMatch(
        /Online, Cordoned, Drained .* Drained +service/,
      );
      expect(await done("uncordon node node-1 service")).toBe(
        "Node node-1 successfully uncordoned",
      );
    },
    TEST_MS,
  );

  test(
    "leaves a drain going when it is interrupted",
    async () => {
      // Three replicas on three nodes: there is no place for the one that is to go.
      const child = start("drain node node-2 stuck --evacuate");
      const told = child.stderr.text();
      const isDraining = async () =>
        (await objects<Node>("get node node-2")).spec?.cordondrainstate?.drainingstate;
      await waitUntil("the drain", isDraining, (state) => state !== undefined && state !== null);
      child.kill("SIGINT");
      expect(await child.exited).toBe(130);
      expect(await told).toContain("the drain of node node-2 goes on");
      expect(await isDraining()).toBeTruthy();
      await done("uncordon node node-2 stuck");
      expect(await isDraining()).toBeFalsy();
    },
    TEST_MS,
  );

  test(
    "moves a replica to a pool with room",
    async () => {
      await done(`scale volume ${VOLUME} 2`);
      await done(`wait volume ${VOLUME} --for rebuilt`);
      const before = placeOf(await objects<Volume>(`get volume ${VOLUME}`));
      const free = ["pool-1", "pool-2", "pool-3"].find(
        (pool) => !before.some((replica) => replica.pool === pool),
      )!;
      const { target } = (await objects<Volume>(`get volume ${VOLUME}`)).state;
      const served = `pool-${target!.node.at(-1)}`;
      const moved = before.find(({ pool }) => pool !== served) ?? before[0]!;
      expect(await done(`move replica ${moved.id} --to-pool ${free} --wait`)).toBe(
        `Replica ${moved.id} moved`,
      );
      const after = placeOf(await objects<Volume>(`get volume ${VOLUME}`));
      expect(after.map(({ pool }) => pool!).sort()).toEqual(
        [free, ...before.filter(({ id }) => id !== moved.id).map(({ pool }) => pool!)].sort(),
      );
    },
    TEST_MS,
  );

  test(
    "takes a snapshot and makes a volume of it",
    async () => {
      await done(`wait volume ${VOLUME} --for rebuilt`);
      await done(`create volume-snapshot ${VOLUME} ${SNAPSHOT}`);
      const [row] = (await done("get volume-snapshots")).split("\n").slice(1);
      expect(row).toMatch(new RegExp(`^${SNAPSHOT}  .*  ${VOLUME}  0 +2$`));
      await done(`create volume ${CLONE} --from-snapshot ${SNAPSHOT}`);
      expect(await done("get volumes --source snapshot")).toContain(CLONE);
      expect((await run(`create volume-snapshot ${CLONE} not-a-uuid`)).status).toBe(2);
    },
    TEST_MS,
  );

  test(
    "follows events as they happen",
    async () => {
      const child = start("events --follow --tail 1", 1);
      const seen = readUntil(child.stdout, "cordoned with label watched");
      await done("cordon node node-3 watched");
      expect(await seen).toContain("Node StateChange node-3");
      child.kill("SIGINT");
      expect(await child.exited).toBe(0);
      await done("uncordon node node-3 watched");
    },
    TEST_MS,
  );

  test(
    "takes everything away again, and says what is in the way",
    async () => {
      const held = placeOf(await objects<Volume>(`get volume ${VOLUME}`))[0]!.pool!;
      const busy = await run(`delete pool ${held}`);
      expect(busy.status).toBe(5);
      expect(busy.err).toStartWith(`error: pool ${held} holds`);
      expect(await done(`delete pool ${held} --show-impact`)).toMatch(/^volumes lost: /);
      await done(`unpublish volume ${VOLUME}`);
      await done(`delete volume ${CLONE}`);
      await done(`delete volume-snapshot ${SNAPSHOT}`);
      await done(`delete volume ${VOLUME}`);
      expect(await objects<Volume[]>("get volumes")).toEqual([]);
      expect((await run(`get volume ${VOLUME}`)).status).toBe(4);
      for (const pool of ["pool-1", "pool-2", "pool-3"]) await done(`delete pool ${pool}`);
      const status = await done("status");
      expect(status).toMatch(/^Cluster {2}3 members \(3 voters\), leader node-/);
      expect(status).toContain("none: see the disks with");
    },
    TEST_MS,
  );
});
