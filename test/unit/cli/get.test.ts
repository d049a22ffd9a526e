import { describe, expect, test } from "bun:test";
import { verbs } from "../../../src/cli/verbs.ts";
import type { Answers } from "../../support/api-stand-in.ts";
import {
  againstApi,
  CLONE,
  GIB,
  nodes,
  pools,
  rebuildHistory,
  runningRebuild,
  SNAPSHOT,
  snapshot,
  VOLUME,
  volume,
  volumes,
} from "./fixtures.ts";

const run = againstApi();

const disk = {
  available: true,
  connection_type: "nvme",
  devlinks: ["/dev/disk/by-id/nvme-a", "/dev/disk/by-path/pci-0"],
  devmajor: 259,
  devminor: 0,
  devname: "/dev/nvme0n1",
  devpath: "/devices/pci0000:00/nvme0n1",
  devtype: "disk",
  model: "Fast SSD",
  size: (100 * GIB) / 512,
};
const usedDisk = {
  ...disk,
  available: false,
  devname: "/dev/sda1",
  devmajor: 8,
  devminor: 1,
  devtype: "partition",
  model: "",
  filesystem: { fstype: "ext4", label: "", mountpoint: "/", uuid: "fs-uuid" },
  partition: {
    name: "root",
    number: 1,
    parent: "/dev/sda",
    scheme: "gpt",
    typeid: "0fc63daf",
    uuid: "part-uuid",
  },
};
const event = {
  id: 7,
  at: "2026-11-21T10:00:00.000Z",
  category: "Volume",
  action: "Create",
  target: VOLUME,
  node: "node-1",
  component: "api",
  message: "created with 3 replicas",
};

const answers: Answers = {
  "GET /volumes": { body: volumes },
  [`GET /volumes/${VOLUME}`]: { body: volume },
  [`GET /volumes/${VOLUME}/rebuild-history`]: { body: rebuildHistory },
  "GET /volumes/snapshots": { body: { entries: [snapshot] } },
  "GET /pools": { body: pools },
  "GET /pools/pool-1": { body: pools[0] },
  "GET /pools/pool-2": { body: pools[1] },
  "GET /nodes/node-1/pools": { body: [pools[0]] },
  "GET /nodes": { body: nodes },
  "GET /nodes/node-1": { body: nodes[0] },
  "GET /nodes/node-2": { body: nodes[1] },
  "GET /nodes/node-1/block_devices": ({ search }) => ({
    body: search === "?all=true" ? [disk, usedDisk] : [disk],
  }),
  "GET /events": { body: { events: [event], next: 7, oldest: 1 } },
};

/** Headings that scripts rely on (mayastor.md 2), separated as on the screen. */
const headings: [line: string, headings: string[]][] = [
  [
    "get volumes",
    ["ID", "REPLICAS", "TARGET-NODE", "ACCESSIBILITY", "STATUS", "SIZE", "THIN-PROVISIONED"].concat(
      ["ALLOCATED", "SNAPSHOTS", "SOURCE"],
    ),
  ],
  [
    "get pools --show-labels",
    ["ID", "DISKS", "MANAGED", "NODE", "STATUS", "CAPACITY", "ALLOCATED", "AVAILABLE"].concat([
      "COMMITTED",
      "LABELS",
    ]),
  ],
  ["get nodes --show-labels", ["ID", "GRPC ENDPOINT", "STATUS", "VERSION", "LABELS"]],
  ["get cordon nodes", ["ID", "GRPC ENDPOINT", "STATUS", "VERSION", "CORDON LABELS"]],
  ["get drain nodes", ["ID", "GRPC ENDPOINT", "STATUS", "VERSION", "DRAIN STATE", "DRAIN LABELS"]],
  [
    "get volume-replica-topologies",
    ["VOLUME-ID", "ID", "NODE", "POOL", "STATUS", "CAPACITY", "ALLOCATED", "SNAPSHOTS"].concat([
      "CHILD-STATUS",
      "REASON",
      "REBUILD",
    ]),
  ],
  [
    "get volume-snapshots",
    [
      "ID",
      "TIMESTAMP",
      "SOURCE-SIZE",
      "ALLOCATED-SIZE",
      "TOTAL-ALLOCATED-SIZE",
      "SOURCE-VOL",
    ].concat(["RESTORES", "SNAPSHOT_REPLICAS"]),
  ],
  [
    "get volume-snapshot-topology",
    ["SNAPSHOT-ID", "ID", "POOL", "SNAPSHOT_STATUS", "SIZE", "ALLOCATED_SIZE", "SOURCE"],
  ],
  [
    `get rebuild-history ${VOLUME}`,
    ["DST", "SRC", "STATE", "TOTAL", "RECOVERED", "TRANSFERRED", "IS-PARTIAL"].concat([
      "START-TIME",
      "END-TIME",
    ]),
  ],
  [
    "get block-devices node-1",
    ["DEVNAME", "DEVTYPE", "SIZE", "AVAILABLE", "MODEL", "DEVPATH", "MAJOR", "MINOR", "DEVLINKS"],
  ],
  [
    "get block-devices node-1 --all",
    ["DEVNAME", "DEVTYPE", "SIZE", "AVAILABLE", "MODEL", "DEVPATH", "FSTYPE", "FSUUID"].concat([
      "MOUNTPOINT",
      "PARTTYPE",
      "MAJOR",
      "MINOR",
      "DEVLINKS",
    ]),
  ],
];

/** Every listing: its line, what `-o` prints, and how many lines its table has. */
const listings: [line: string, objects: unknown][] = [
  ["get volumes", volumes.entries],
  ["get volumes --source snapshot", [volumes.entries[1]]],
  ["get volumes --source none", [volume]],
  [`get volume ${VOLUME}`, volume],
  ["get volume-replica-topologies", volumes.entries.map(({ state }) => state.replica_topology)],
  [`get volume-replica-topology ${VOLUME}`, volume.state.replica_topology],
  [`get rebuild-history ${VOLUME}`, rebuildHistory],
  [`get volume-snapshots --volume ${VOLUME}`, [snapshot]],
  [`get volume-snapshot-topology --snapshot ${SNAPSHOT}`, [snapshot]],
  ["get pools", pools],
  ["get pools --show-labels", pools],
  ["get pools --node node-1", [pools[0]]],
  [`get pools --volume ${VOLUME} --node node-2`, [pools[1]]],
  ["get pools -l tier=fast", [pools[0]]],
  ["get pool pool-1 --show-labels", pools[0]],
  ["get nodes", nodes],
  ["get nodes --show-labels", nodes],
  ["get node node-1", nodes[0]],
  ["get block-devices node-1", [disk]],
  ["get block-devices node-1 --all", [disk, usedDisk]],
  ["get cordon nodes", [nodes[1], nodes[2]]],
  ["get cordon node node-2", nodes[1]],
  ["get cordon pools", [pools[1]]],
  ["get cordon pool pool-2", pools[1]],
  ["get drain nodes", [nodes[1]]],
  ["get drain node node-1", nodes[0]],
  ["get events", [event]],
];

describe("get", () => {
  for (const [line, objects] of listings) {
    test(`prints a table: ${line}`, async () => {
      const ran = await run(line, answers);
      expect(ran.err).toBe("");
      expect(ran.status).toBe(0);
      expect(`\n${ran.out}\n`).toMatchSnapshot();
    });

    test(`prints the objects unchanged: ${line} -o json|yaml`, async () => {
      const json = await run(`${line} -o json`, answers);
      expect(JSON.parse(json.out)).toEqual(objects);
      const yaml = await run(`-oyaml ${line}`, answers);
      expect(Bun.YAML.parse(yaml.out)).toEqual(objects as never);
    });
  }

  for (const [line, wanted] of headings) {
    test(`has the headings that scripts know: ${line}`, async () => {
      const [first, ...rows] = (await run(line, answers)).out.split("\n");
      expect(first!.split(/ {2,}/)).toEqual(wanted);
      // A cell begins below its heading, whatever stands in it.
      const starts = wanted.map((_heading, i) =>
        wanted.slice(0, i).reduce((at, one) => first!.indexOf(one, at) + one.length, 0),
      );
      for (const row of rows) {
        wanted.forEach((heading, i) => {
          const at = first!.indexOf(heading, starts[i]);
          expect(row[at - 1] ?? " ").toBe(" ");
          expect(row[at]).not.toBe(" ");
        });
      }
    });
  }

  test("a verb is documented and known to the help", async () => {
    for (const verb of ["get", "apply", "doctor", "drain", "dump", "wait"]) {
      expect(verbs.map(({ name }) => name)).toContain(verb);
    }
  });

  test("a volume that is not published has a history too", async () => {
    const ran = await run(`get rebuild-history ${VOLUME}`, {
      [`GET /volumes/${VOLUME}/rebuild-history`]: {
        status: 412,
        body: { kind: "NotPublished", message: "it is not published", details: "", remedy: "" },
      },
      [`GET /volumes/${VOLUME}/rebuilds`]: {
        body: { volume: VOLUME, running: [runningRebuild], history: rebuildHistory.records },
      },
    });
    expect(ran.status).toBe(0);
    expect(ran.out.split("\n")[1]).toStartWith("nvmf+tcp://10.0.0.2:8420/");
  });

  test("a pool that is not cordoned is told apart", async () => {
    const ran = await run("get cordon pool pool-1", answers);
    expect(ran.status).toBe(6);
    expect(ran.err).toBe(
      "error: pool pool-1 is not cordoned (Online)\n  cordon it: trilith cordon pool pool-1",
    );
  });

  test("volumes come in pages of 200, snapshots of 100", async () => {
    const page = (entries: unknown[]) => (asked: { search: string }) => {
      const query = new URLSearchParams(asked.search);
      const from = Number(query.get("starting_token") ?? 0);
      const size = Number(query.get("max_entries"));
      const next = from + size < entries.length ? { next_token: from + size } : {};
      return { body: { entries: entries.slice(from, from + size), ...next } };
    };
    const many = Array.from({ length: 450 }, (_, index) => {
      const uuid = VOLUME.replace(/^.{8}/, String(index).padStart(8, "0"));
      return { ...volume, spec: { ...volume.spec, uuid } };
    });
    const listed = await run("get volumes", { "GET /volumes": page(many) });
    expect(listed.out.split("\n")).toHaveLength(451);
    expect(listed.api.asked.map(({ search }) => search)).toEqual([
      "?max_entries=200",
      "?max_entries=200&starting_token=200",
      "?max_entries=200&starting_token=400",
    ]);
    const snapshots = await run("get volume-snapshots", {
      "GET /volumes/snapshots": page(Array.from({ length: 101 }, () => snapshot)),
    });
    expect(snapshots.api.asked.map(({ search }) => search)).toEqual([
      "?max_entries=100",
      "?max_entries=100&starting_token=100",
    ]);
  });

  test("an upgrade shows in the versions that nodes run", async () => {
    const versions = ["0.9.0", "0.10.0", "0.10.0"];
    const mixed = nodes.map((one, index) => ({
      ...one,
      state: { ...one.state!, version: versions[index]! },
    }));
    const during = await run("get upgrade-status", { "GET /nodes": { body: mixed } });
    expect(during.out).toBe(
      "Upgrade From: 0.9.0\nUpgrade To: 0.10.0\nUpgrade Status: Upgrading: 2 of 3 nodes done",
    );
    const after = await run("get upgrade-status", { "GET /nodes": { body: nodes } });
    expect(after.out).toEndWith("Upgrade Status: All nodes run 0.1.0");
  });

  test("what is missing has its error, whichever way it is asked for", async () => {
    const missing = {
      status: 404,
      body: { kind: "NotFound", message: `there is no volume "${CLONE}"`, details: "" },
    };
    for (const line of [`get volume ${CLONE}`, `get volume-replica-topology ${CLONE} -o json`]) {
      const ran = await run(line, { [`GET /volumes/${CLONE}`]: missing });
      expect(ran.status).toBe(4);
      expect(ran.out).toBe("");
      expect(ran.err).toStartWith(`error: there is no volume "${CLONE}"\n  see what there is`);
    }
  });
});
