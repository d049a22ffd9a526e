import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { redact } from "../../../src/cli/dump/redact.ts";
import type { Answers } from "../../support/api-stand-in.ts";
import { tempFolders } from "../../support/temp-folder.ts";
import {
  againstApi,
  cluster,
  nodes,
  pools,
  SNAPSHOT,
  snapshot,
  status,
  VOLUME,
  volumes,
} from "./fixtures.ts";

const run = againstApi();
const folder = tempFolders();
const now = () => Date.parse("2026-11-21T10:15:00Z");
const specs = { nexuses: [], pools: [], replicas: [], volumes: [] };

const answers: Answers = {
  "GET /nodes": { body: nodes },
  "GET /pools": { body: pools },
  "GET /volumes": { body: volumes },
  "GET /volumes/snapshots": { body: { entries: [snapshot] } },
  "GET /specs": { body: specs },
  "GET /replicas": { body: [] },
  "GET /nexuses": { body: [] },
  "GET /status": { body: status },
  "GET /warnings": { body: status.warnings },
  "GET /plan": { body: { works: [], warnings: [] } },
  "GET /cluster": { body: cluster },
  "GET /app-nodes": { body: { entries: [] } },
  "GET /settings": {
    body: {
      poolCommitmentPercent: 250,
      volumeCommitmentPercent: 40,
      volumeCommitmentInitialPercent: 40,
      snapshotCommitmentPercent: 40,
      faultedChildWaitMs: 600_000,
      maxRebuilds: null,
      maxVolumeCreates: 10,
      nodeDeadlineMs: 1500,
      restrictHosts: true,
      switchOver: true,
      scrubIntervalMs: 30 * 24 * 3_600_000,
      scrubBytesPerSec: 64 << 20,
      maxScrubs: 4,
      maxScrubsPerNode: 1,
      scrubWindow: null,
    },
  },
  "GET /events": { body: { events: [], next: 0, oldest: 1 } },
};

/** Paths and contents of the bundle in a folder. */
async function bundleIn(where: string): Promise<Map<string, string>> {
  const [name, ...others] = readdirSync(where);
  expect(others).toEqual([]);
  expect(name).toMatch(/^trilith-bundle-.+-2026-11-21T10-15-00Z\.tar\.gz$/);
  const files = await new Bun.Archive(readFileSync(join(where, name!))).files();
  const contents = new Map<string, string>();
  for (const [path, file] of files) contents.set(path, await file.text());
  return contents;
}

describe("dump", () => {
  test("system puts all that is known in one file", async () => {
    const where = folder();
    const ran = await run(["dump", "system", "-d", where, "--disable-log-collection"], answers, {
      now,
    });
    expect(ran.status).toBe(0);
    expect(ran.out).toMatch(/\.tar\.gz: \d+ files, [\d.]+ ?[KM]?i?B$/);
    const bundle = await bundleIn(where);
    const topology = [...bundle.keys()].filter((path) => path.startsWith("topology/")).sort();
    expect(topology).toEqual([
      ...nodes.map(({ id }) => `topology/node/${id}-topology.json`),
      ...pools.map(({ id }) => `topology/pool/${id}-topology.json`),
      `topology/snapshot/${SNAPSHOT}-topology.json`,
      ...volumes.entries.map(({ spec }) => `topology/volume/${spec.uuid}-topology.json`).sort(),
    ]);
    expect(JSON.parse(bundle.get(`topology/volume/${VOLUME}-topology.json`)!)).toEqual(
      volumes.entries[0],
    );
    for (const what of ["specs", "status", "warnings", "plan", "cluster", "events", "app-nodes"]) {
      expect(bundle.has(`cluster/${what}.json`)).toBe(true);
    }
    expect(bundle.get("about.txt")).toContain("trilith");
    expect(JSON.parse(bundle.get("machine/doctor.json")!)).toBeArray();
    expect([...bundle.keys()].some((path) => path.startsWith("logs/"))).toBe(false);
  });

  test("of one thing holds it and what it stands on", async () => {
    const where = folder();
    const ran = await run(
      ["dump", "pool", "pool-1", "-d", where, "--disable-log-collection", "-o", "json"],
      answers,
      { now },
    );
    const { files } = JSON.parse(ran.out) as { files: string[] };
    const kinds = new Set(files.flatMap((path) => /^topology\/(\w+)/.exec(path)?.[1] ?? []));
    expect([...kinds].sort()).toEqual(["node", "pool"]);
    expect((await bundleIn(where)).has("topology/pool/pool-2-topology.json")).toBe(false);
  });

  test("goes on without what cannot be had, and notes it", async () => {
    const where = folder();
    const broken = {
      status: 503,
      body: { kind: "Unavailable", message: "no leader", details: "" },
    };
    const ran = await run(
      ["dump", "system", "-d", where, "--disable-log-collection"],
      // The contract knows no failure of this one.
      { "*": broken, "GET /app-nodes": { body: { entries: [] } } },
      { now },
    );
    expect(ran.status).toBe(0);
    expect(ran.err).toContain("without volumes: no leader");
    const bundle = await bundleIn(where);
    expect(bundle.get("missing.txt")).toContain("volumes: no leader");
    expect(bundle.has("machine/facts.json")).toBe(true);
  });

  test("writes over nothing, and into no folder that is not there", async () => {
    const where = folder();
    const line = ["dump", "nodes", "-d", where, "--disable-log-collection"];
    expect((await run(line, answers, { now })).status).toBe(0);
    expect((await run(line, answers, { now })).status).toBe(5);
    const none = await run(["dump", "nodes", "-d", join(where, "none")], answers);
    expect(none.status).toBe(4);
  });

  test("etcd prints the store", async () => {
    const ran = await run("dump etcd --stdout", answers);
    expect(JSON.parse(ran.out)).toEqual(specs);
  });
});

describe("secrets", () => {
  const cases: [what: string, value: unknown, left: unknown][] = [
    [
      "in a field",
      { token: "s3", next_token: 7, name: "n" },
      { token: "(removed)", next_token: 7, name: "n" },
    ],
    ["in a nested field", [{ a: { dhchapKey: "s3" } }], [{ a: { dhchapKey: "(removed)" } }]],
    [
      "in a header",
      "GET / Authorization: Bearer s3.x-y_z end",
      "GET / Authorization: Bearer (removed) end",
    ],
    ["in a URI", "https://user:s3@host/x", "https://user:(removed)@host/x"],
    ["of NVMe", "key DHHC-1:00:czM=:", "key (removed)"],
    ["of TLS", "NVMeTLSkey-1:01:czM=:", "(removed)"],
    ["in a log", 'text token=s3 secret="s3"', 'text token=(removed) secret="(removed)"'],
    [
      "in PEM",
      "a\n-----BEGIN EC PRIVATE KEY-----\ns3\n-----END EC PRIVATE KEY-----\nb",
      "a\n(removed)\nb",
    ],
    [
      "that are none",
      { id: "x", size: 1, flag: true, none: null },
      { id: "x", size: 1, flag: true, none: null },
    ],
  ];
  for (const [what, value, left] of cases) {
    test(`${what} are taken out`, () => expect(redact(value)).toEqual(left));
  }

  test("in the cluster's answers do not get into a bundle", async () => {
    const where = folder();
    const secret = "very-secret-7f3a";
    const told = nodes.map((one) => ({
      ...one,
      state: { ...one.state!, node_nqn: `nqn token=${secret}` },
    }));
    await run(
      ["dump", "nodes", "-d", where, "--disable-log-collection"],
      { ...answers, "GET /nodes": { body: told } },
      { now },
    );
    for (const text of (await bundleIn(where)).values()) expect(text).not.toContain(secret);
  });
});
