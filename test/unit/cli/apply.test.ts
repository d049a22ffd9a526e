import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { volumeClassOf } from "../../../src/cli/apply/storage-class.ts";
import { wantedBy } from "../../../src/cli/apply/wanted.ts";
import { parseManifests } from "../../../src/kube/manifest-file.ts";
import type { Answer, Answers, Asked } from "../../support/api-stand-in.ts";
import { tempFolders } from "../../support/temp-folder.ts";
import { againstApi, GIB, pools, snapshot, VOLUME, volume } from "./fixtures.ts";

const run = againstApi();
const folder = tempFolders();

const diskPool = (version: string, more = "") => `
apiVersion: "openebs.io/${version}"
kind: DiskPool
metadata:
  name: pool-1
  namespace: mayastor
spec:
  node: node-1
  disks: ["/dev/vdb"]
${more}`;

const storageClass = (parameters: string, provisioner = "io.openebs.csi-mayastor") => `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: mayastor-3
parameters:
${parameters}
provisioner: ${provisioner}
`;

const claim = (name: string, size = "1Gi", more = "") => `
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: ${name}
spec:
  accessModes:
  - ReadWriteOnce
  resources:
    requests:
      storage: ${size}
  storageClassName: mayastor-3
${more}`;

const documents = (...texts: string[]) => texts.join("---\n");
const wanted = (text: string, replicas?: number) =>
  wantedBy(parseManifests(text, "a.yaml"), replicas);
const errorsOf = (text: string) =>
  wanted(text).flatMap((one) => (one.kind === "remark" && one.error ? [one.error] : []));

const missing = (what: string): Answer => ({
  status: 404,
  body: { kind: "NotFound", message: `there is no ${what}`, details: "" },
});

describe("a manifest of a pool", () => {
  for (const version of ["v1alpha1", "v1beta1", "v1beta2", "v1beta3"]) {
    test(`of openebs.io/${version} is known`, () => {
      expect(wanted(diskPool(version))).toEqual([
        {
          kind: "pool",
          title: "diskpool.openebs.io/pool-1",
          node: "node-1",
          id: "pool-1",
          body: {
            disks: ["/dev/vdb"],
            labels: { "openebs.io/created-by": "operator-diskpool" },
          },
        },
      ]);
    });
  }

  test("of the first generation is known", () => {
    const text = diskPool("v1alpha1").replace("DiskPool", "MayastorPool");
    expect(wanted(text)[0]).toMatchObject({ title: "mayastorpool.openebs.io/pool-1" });
  });

  test("carries its topology's labels and the size of its clusters", () => {
    const more = "  topology:\n    labelled:\n      zone: a\n      rank: 1\n  clusterSize: 32MiB\n";
    expect(wanted(diskPool("v1beta3", more))[0]).toMatchObject({
      body: { labels: { zone: "a", rank: "1" }, cluster_size: 32 << 20 },
    });
  });

  const wrong: [what: string, text: string, says: RegExp][] = [
    ["another version", diskPool("v2"), /openebs.io\/v2 is not known/],
    ["encryption", diskPool("v1beta3", "  encryptionConfig: {source: {}}\n"), /not encrypted/],
    ["two disks", diskPool("v1beta2").replace('"/dev/vdb"', "/a, /b"), /exactly one disk/],
    ["no node", diskPool("v1beta2").replace("node: node-1", "other: x"), /has to name a node/],
    [
      "a place-holder",
      diskPool("v1beta2").replace("pool-1", "INSERT_POOL_NAME_HERE"),
      /put a name/,
    ],
  ];
  for (const [what, text, says] of wrong) {
    test(`with ${what} is refused`, () => {
      let errors: Error[];
      try {
        errors = errorsOf(text);
      } catch (error) {
        errors = [error as Error];
      }
      expect(errors).toHaveLength(1);
      expect(errors[0]!.message).toMatch(says);
    });
  }
});

describe("a storage class", () => {
  const classOf = (parameters: string, provisioner?: string) =>
    volumeClassOf(parseManifests(storageClass(parameters, provisioner), "sc.yaml")[0]!);

  test("says what its claims' volumes are", () => {
    expect(
      classOf(
        '  protocol: nvmf\n  repl: "3"\n  thin: "true"\n  maxSnapshots: "5"\n  ioTimeout: "30"',
      ),
    ).toMatchObject({ replicas: 3, thin: true, maxSnapshots: 5, topology: null, notes: [] });
    expect(classOf('  protocol: nvmf\n  local: "yes"')).toMatchObject({
      replicas: 1,
      thin: false,
      notes: ["parameter local has no effect"],
    });
  });

  test("of Diamanti is known", () => {
    const parameters = '  fsType: xfs\n  mirrorCount: "2"\n  perfTier: high';
    expect(classOf(parameters, "dcx.csi.diamanti.com")).toMatchObject({
      replicas: 2,
      notes: ["parameter perfTier has no effect"],
    });
  });

  const nodeLabels = (part: object) => ({
    node_topology: { labelled: { exclusion: {}, inclusion: {}, ...part } },
  });
  const poolLabels = (part: object) => ({
    pool_topology: { labelled: { exclusion: {}, inclusion: {}, ...part } },
  });
  const topologies: [parameters: string, topology: object][] = [
    [
      "  poolAffinityTopologyLabel: |\n    zone: a\n    tier: fast",
      poolLabels({ inclusion: { zone: "a", tier: "fast" } }),
    ],
    ["  poolHasTopologyKey: |\n    zone", poolLabels({ inclusion: { zone: "" } })],
    ["  nodeAffinityTopologyLabel: |\n    zone: a", nodeLabels({ inclusion: { zone: "a" } })],
    ["  nodeHasTopologyKey: |\n    rack", nodeLabels({ inclusion: { rack: "" } })],
    ["  nodeSpreadTopologyKey: |\n    rack", nodeLabels({ exclusion: { rack: "" } })],
    ["  poolAffinityTopologyKey: |\n    zone", poolLabels({ affinity_key: ["zone"] })],
  ];
  for (const [parameters, topology] of topologies) {
    test(`chooses places: ${parameters.trim().split(":")[0]}`, () => {
      expect(classOf(parameters).topology).toEqual(topology as never);
    });
  }

  const wrong: [parameters: string, says: RegExp, provisioner?: string][] = [
    ['  repl: "0"', /has to be 1 or more/],
    ["  repl: many", /has to be a whole number/],
    ["  protocol: iscsi", /served by nvmf/],
    ['  thin: "maybe"', /"true" or "false"/],
    ['  encrypted: "true"', /not encrypted/],
    [
      "  poolHasTopologyKey: a\n  nodeHasTopologyKey: b",
      /Multiple topology parameters are not allowed/,
    ],
    ['  repl: "1"', /another driver's/, "kubernetes.io/aws-ebs"],
  ];
  for (const [parameters, says, provisioner] of wrong) {
    test(`is refused: ${parameters.trim()} ${provisioner ?? ""}`, () => {
      expect(() => classOf(parameters, provisioner)).toThrow(says);
    });
  }
});

describe("a claim", () => {
  const three = storageClass('  repl: "3"\n  stsAffinityGroup: "true"');

  test("is a volume as its class says, wherever the class stands", () => {
    const [remark, made] = wanted(documents(claim("data-db-0"), three));
    expect(remark).toMatchObject({
      kind: "remark",
      title: "storageclass.storage.k8s.io/mayastor-3",
    });
    expect(made).toMatchObject({
      kind: "volume",
      title: "persistentvolumeclaim/data-db-0",
      snapshot: null,
      body: {
        policy: { self_heal: true },
        replicas: 3,
        size: GIB,
        thin: false,
        affinity_group: { id: "default/data-db" },
        labels: { "trilith.io/claim-name": "data-db-0", "trilith.io/claim-namespace": "default" },
      },
    });
  });

  test("has the same id at every apply, another one in another namespace, its UID if it has one", () => {
    const idOf = (text: string) =>
      wanted(documents(three, text)).flatMap((one) => (one.kind === "volume" ? [one.id] : []))[0];
    const first = idOf(claim("a"));
    expect(first).toMatch(/^[0-9a-f-]{36}$/);
    expect(idOf(claim("a", "2Gi"))).toBe(first);
    expect(idOf(claim("b"))).not.toBe(first);
    expect(idOf(claim("a").replace("  name: a", "  name: a\n  namespace: other"))).not.toBe(first);
    expect(idOf(claim("a").replace("  name: a", `  name: a\n  uid: ${VOLUME}`))).toBe(VOLUME);
    expect(idOf(claim("a", "1Gi", `  volumeName: pvc-${VOLUME}\n`))).toBe(VOLUME);
  });

  test("without its class needs the number of copies", () => {
    const [error] = errorsOf(claim("a"));
    expect(error!.code).toBe("NotFound");
    expect(error!.remedy).toContain("--replicas 3");
    expect(wanted(claim("a"), 2)[0]).toMatchObject({ kind: "volume", body: { replicas: 2 } });
  });

  test("may leave the class out when one is the default", () => {
    const isDefault = three.replace(
      "  name: mayastor-3",
      '  name: d\n  annotations: {storageclass.kubernetes.io/is-default-class: "true"}',
    );
    const unnamed = claim("a").replace("  storageClassName: mayastor-3\n", "");
    const made = wanted(documents(unnamed, isDefault)).at(-1);
    expect(made).toMatchObject({ kind: "volume", body: { replicas: 3 } });
  });

  test("may be of a snapshot, which is taken before, of a claim that is made before that", () => {
    const taken = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: s}
spec: {source: {persistentVolumeClaimName: a}}
`;
    const restored = claim("b", "1Gi", "  dataSource: {kind: VolumeSnapshot, name: s}\n");
    const [, first, second, third] = wanted(documents(restored, taken, three, claim("a")));
    expect(first).toMatchObject({ kind: "volume", title: "persistentvolumeclaim/a" });
    expect(second).toMatchObject({ kind: "snapshot", volume: (first as { id: string }).id });
    expect(third).toMatchObject({
      title: "persistentvolumeclaim/b",
      snapshot: (second as { id: string }).id,
      body: { thin: true },
    });
  });

  const wrong: [what: string, text: string, says: RegExp][] = [
    ["no size", claim("a").replace("storage: 1Gi", "other: 1"), /is missing/],
    ["a size that is none", claim("a", "much"), /"much" is no size/],
    ["many writers", claim("a").replace("ReadWriteOnce", "ReadWriteMany"), /is not possible/],
    [
      "a source that is no snapshot",
      claim("a", "1Gi", "  dataSource: {kind: X, name: y}\n"),
      /of a X/,
    ],
  ];
  for (const [what, text, says] of wrong) {
    test(`with ${what} is refused`, () => {
      expect(errorsOf(documents(three, text)).map(({ message }) => message)).toEqual([
        expect.stringMatching(says),
      ]);
    });
  }
});

describe("apply", () => {
  const file = (text: string, name = "a.yaml") => {
    const path = join(folder(), name);
    writeFileSync(path, text);
    return path;
  };
  const created = (asked: Asked): Answer => ({
    body: { ...volume, spec: { ...volume.spec, uuid: asked.path.slice("/volumes/".length) } },
  });

  test("makes what is missing, in one run", async () => {
    const text = documents(
      diskPool("v1beta2"),
      storageClass('  repl: "3"'),
      claim("ms-volume-claim"),
    );
    const ran = await run(["apply", "-f", file(text)], {
      "GET /pools/pool-1": missing("pool"),
      "PUT /nodes/node-1/pools/pool-1": { body: pools[0] },
      "*": (asked) => (asked.method === "GET" ? missing("volume") : created(asked)),
    });
    expect([ran.status, ran.err]).toEqual([0, ""]);
    expect(ran.out.split("\n").map((line) => line.replace(/[0-9a-f-]{36}/, "<uuid>"))).toEqual([
      "storageclass.storage.k8s.io/mayastor-3 skipped: used by claims of these files, not kept",
      "diskpool.openebs.io/pool-1 created",
      "persistentvolumeclaim/ms-volume-claim created: volume <uuid>",
    ]);
    expect(ran.api.asked.at(-1)!.body).toMatchObject({ replicas: 3, size: GIB });
  });

  test("changes nothing where all is as it should be", async () => {
    const text = documents(diskPool("v1beta2"), storageClass('  repl: "3"'), claim("a", "10Gi"));
    const thick = { ...volume, spec: { ...volume.spec, thin: false } };
    const ran = await run(["apply", "-o", "json", "-f", file(text)], {
      "GET /pools/pool-1": { body: pools[0] },
      "PUT /nodes/node-1/pools/pool-1": { body: pools[0] },
      "*": { body: thick },
    });
    const results = JSON.parse(ran.out) as { result: string }[];
    expect(results.map(({ result }) => result)).toEqual(["skipped", "unchanged", "unchanged"]);
    // A pool is confirmed by the API; a volume is only looked at.
    expect(ran.api.asked.map(({ method }) => method)).toEqual(["GET", "PUT", "GET"]);
  });

  test("grows, scales one by one and relabels what differs", async () => {
    const text = documents(
      diskPool("v1beta2", "  topology: {labelled: {zone: b}}\n"),
      storageClass('  repl: "5"\n  maxSnapshots: "4"'),
      claim("a", "20Gi"),
    );
    const ran = await run(["apply", "-f", file(text)], {
      "GET /pools/pool-1": { body: pools[0] },
      "PUT /nodes/node-1/pools/pool-1": { body: pools[0] },
      "PUT /pools/pool-1/label/zone=b": { body: pools[0] },
      "*": { body: volume },
    });
    expect(ran.status).toBe(0);
    expect(ran.out).toContain("diskpool.openebs.io/pool-1 configured");
    expect(ran.out).toMatch(/configured: volume \S+: size 20GiB, 5 replicas, at most 4 snapshots/);
    const changes = ran.api.asked.filter(({ method }) => method === "PUT");
    expect(changes.map(({ path }) => path.replace(/[0-9a-f-]{36}/, "v"))).toEqual([
      "/nodes/node-1/pools/pool-1",
      "/pools/pool-1/label/zone=b",
      "/volumes/v/size",
      "/volumes/v/replica_count/4",
      "/volumes/v/replica_count/5",
      "/volumes/v/property",
    ]);
  });

  test("only says what it would do with --dry-run", async () => {
    const text = documents(diskPool("v1beta2"), storageClass('  repl: "2"'), claim("a", "20Gi"));
    const ran = await run(["apply", "--dry-run", "-f", file(text)], {
      "GET /pools/pool-1": missing("pool"),
      "*": { body: volume },
    });
    expect(ran.out).toContain("diskpool.openebs.io/pool-1 created (dry run)");
    expect(ran.out).toContain("size 20GiB, 2 replicas (dry run)");
    expect(ran.api.asked.every(({ method }) => method === "GET")).toBe(true);
  });

  test("goes on after what fails, and ends with its status", async () => {
    const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: fio}\n";
    const text = documents(
      pod,
      diskPool("v1beta2"),
      storageClass('  repl: "3"'),
      claim("a", "1Gi"),
    );
    const ran = await run(["apply", "-f", file(text)], {
      "GET /pools/pool-1": missing("pool"),
      "PUT /nodes/node-1/pools/pool-1": { body: pools[0] },
      // It has 10 GiB, and cannot become smaller.
      "*": { body: volume },
    });
    expect(ran.out).toContain("diskpool.openebs.io/pool-1 created");
    expect(ran.err).toContain("a Pod is nothing of trilith's");
    expect(ran.err).toContain("kubectl apply -f");
    expect(ran.err).toContain("cannot be made smaller");
    expect(ran.status).toBe(12);
  });

  test("takes folders, lists, JSON, several files and standard input", async () => {
    const where = folder();
    const list = { apiVersion: "v1", kind: "List", items: [Bun.YAML.parse(diskPool("v1beta2"))] };
    writeFileSync(join(where, "1.json"), JSON.stringify(list));
    writeFileSync(join(where, "notes.txt"), "not for us");
    const answers: Answers = { "*": { body: pools[0] } };
    const other = file(diskPool("v1beta2"), "b.yml");
    const ran = await run(["apply", "-f", where, "-f", other, "-f", "-"], answers, {
      input: diskPool("v1alpha1"),
    });
    expect(ran.out.split("\n")).toHaveLength(3);
  });

  test("takes a snapshot once", async () => {
    const text = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: s}
spec: {source: {persistentVolumeClaimName: a}}
`;
    const path = file(text);
    const first = await run(["apply", "-f", path], {
      "GET /volumes/snapshots": { body: { entries: [] } },
      "*": { body: snapshot },
    });
    expect(first.out).toMatch(/volumesnapshot.snapshot.storage.k8s.io\/s created: snapshot /);
    const again = await run(["apply", "-f", path], {
      "GET /volumes/snapshots": { body: { entries: [snapshot] } },
    });
    expect(again.out).toContain("unchanged");
  });

  const unreadable: [what: string, text: string, says: RegExp][] = [
    ["no YAML", "a: [", /is neither YAML nor JSON/],
    ["nothing", "# only a comment\n", /there is no manifest/],
    ["a text", "hello", /has to be a mapping/],
    [
      "no kind",
      "apiVersion: v1\nmetadata: {name: a}\n",
      /needs apiVersion, kind and metadata.name/,
    ],
  ];
  for (const [what, text, says] of unreadable) {
    test(`refuses a file with ${what}, before anything is done`, async () => {
      const ran = await run(["apply", "-f", file(text)], {});
      expect(ran.status).toBe(2);
      expect(ran.err).toMatch(says);
    });
  }

  test("of a file that is not there says so", async () => {
    const ran = await run(["apply", "-f", join(folder(), "none.yaml")], {});
    expect(ran.status).toBe(4);
    expect(ran.err).toContain("none.yaml");
  });
});
