import { describe, expect, test } from "bun:test";
import type { Answers } from "../../support/api-stand-in.ts";
import {
  againstApi,
  CLONE,
  GIB,
  node,
  nodes,
  pool,
  pools,
  REPLICAS,
  SNAPSHOT,
  snapshot,
  VOLUME,
  volume,
} from "./fixtures.ts";

const run = againstApi();
const UUID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

interface Change {
  readonly line: string;
  readonly request: string;
  readonly answer: unknown;
  readonly says: string;
  /** Of the request. */
  readonly search?: string;
  readonly body?: unknown;
  readonly status?: number;
  /** What is asked for after it, with its answer. */
  readonly thenAsked?: readonly [request: string, answer: unknown];
}

const target = `PUT /volumes/${VOLUME}/target`;
const connect =
  `nvme connect -t tcp -a 10.0.0.1 -s 8420 -n nqn.2019-05.io.openebs:${VOLUME} ` +
  "--hostnqn=nqn.2019-05.io.openebs:node-name:host-1 --ctrl-loss-tmo=1980 --reconnect-delay=2";
const paths = `GET /volumes/${VOLUME}/paths`;
const pathAt = (n: number, role: "target" | "standby", state: string) => ({
  ...{ node: `node-${n}`, role, state },
  uri: `nvmf+tcp://10.0.0.${n}:8420/nqn.2019-05.io.openebs:${VOLUME}?uuid=${VOLUME}`,
});
const volumePaths = [
  pathAt(1, "target", "serving"),
  { ...pathAt(2, "standby", "listening"), hosts: 0 },
  pathAt(3, "standby", "pending"),
];
/** One command for each path. */
const published = [
  `Volume ${VOLUME} published on node-1`,
  ...[1, 2, 3].map((n) => connect.replace("10.0.0.1", `10.0.0.${n}`)),
].join("\n");
const impact = {
  volumesLost: [CLONE],
  volumesDegraded: [VOLUME],
  snapshotsLost: [],
  replicasLost: [REPLICAS[0], REPLICAS[1]],
};

const changes: Change[] = [
  {
    line: `scale volume ${VOLUME} 3`,
    request: `PUT /volumes/${VOLUME}/replica_count/3`,
    answer: volume,
    says: `Volume ${VOLUME} scaled successfully 🚀`,
  },
  {
    line: `scale volume ${VOLUME} 2 --victim ${REPLICAS[1]}`,
    request: `PUT /volumes/${VOLUME}/replica_count/2`,
    search: `?victim=${REPLICAS[1]}`,
    answer: volume,
    says: `Volume ${VOLUME} scaled successfully 🚀`,
  },
  {
    line: `set volume ${VOLUME} max-snapshots 5`,
    request: `PUT /volumes/${VOLUME}/property`,
    body: { max_snapshots: 5 },
    answer: volume,
    says: `Volume ${VOLUME} property max_snapshots set successfully`,
  },
  {
    line: `resize volume ${VOLUME} 10GiB`,
    request: `PUT /volumes/${VOLUME}/size`,
    body: { size: 10 * GIB },
    answer: volume,
    says: `Volume ${VOLUME} resized to 10GiB`,
  },
  {
    line: "cordon node node-3 slow",
    request: "PUT /nodes/node-3/cordon/slow",
    answer: nodes[2],
    says: "Node node-3 cordoned successfully",
  },
  {
    line: "uncordon node node-1 slow",
    request: "DELETE /nodes/node-1/cordon/slow",
    answer: nodes[0],
    says: "Node node-1 successfully uncordoned",
  },
  {
    line: "uncordon node node-2 slow",
    request: "DELETE /nodes/node-2/cordon/slow",
    answer: nodes[1],
    says: 'Cordon label successfully removed. Remaining cordon labels ["disk swap", "upgrade"]',
  },
  {
    line: "cordon pool pool-2 --replicas --restores",
    request: "PUT /pools/pool-2/cordon",
    answer: pools[1],
    says: "Pool pool-2 cordoned successfully",
  },
  {
    line: "uncordon pool pool-1",
    request: "DELETE /pools/pool-1/cordon",
    answer: pools[0],
    says: "Pool pool-1 successfully uncordoned",
  },
  {
    line: "label node node-1 zone=a",
    request: "PUT /nodes/node-1/label/zone=a",
    search: "?overwrite=false",
    answer: nodes[0],
    says: 'Node node-1 labelled successfully. Current labels: {"rack": "1", "zone": "a"}',
  },
  {
    line: "label pool pool-1 example.com/tier=fast --overwrite",
    request: "PUT /pools/pool-1/label/example.com%2Ftier=fast",
    search: "?overwrite=true",
    answer: pools[0],
    says: 'Pool pool-1 labelled successfully. Current labels: {"tier": "fast"}',
  },
  {
    line: "label node node-2 zone-",
    request: "DELETE /nodes/node-2/label/zone",
    answer: nodes[1],
    says: "Node node-2 labelled successfully. Current labels: {}",
  },
  {
    line: "label pool pool-2 tier-",
    request: "DELETE /pools/pool-2/label/tier",
    answer: pools[1],
    says: "Pool pool-2 labelled successfully. Current labels: {}",
  },
  {
    line: "create pool pool-1 /dev/sdb --node node-1 -l tier=fast,ssd --cluster-size 1MiB --force",
    request: "PUT /nodes/node-1/pools/pool-1",
    body: {
      disks: ["/dev/sdb"],
      labels: { tier: "fast", ssd: "" },
      cluster_size: 2 ** 20,
      force: true,
    },
    answer: pools[0],
    says: "Pool pool-1 created on node-1: 100GiB",
  },
  {
    line: "expand pool pool-1",
    request: "PUT /pools/pool-1/expand",
    answer: pools[0],
    says: "Pool pool-1 expanded to 100GiB",
  },
  {
    line:
      `create volume pvc-${VOLUME} --size 10GiB --replicas 3 --thin -l app=db --max-snapshots 9 ` +
      "--affinity-group db --nodes node-1,node-2,node-3 --preferred-nodes node-2 --no-self-heal " +
      "--pool-labels tier=fast",
    request: `PUT /volumes/${VOLUME}`,
    body: {
      policy: { self_heal: false },
      replicas: 3,
      size: 10 * GIB,
      thin: true,
      topology: {
        node_topology: {
          explicit: {
            allowed_nodes: ["node-1", "node-2", "node-3"],
            preferred_nodes: ["node-2"],
          },
        },
        pool_topology: { labelled: { exclusion: {}, inclusion: { tier: "fast" } } },
      },
      labels: { app: "db" },
      affinity_group: { id: "db" },
      max_snapshots: 9,
    },
    answer: volume,
    says: `Volume ${VOLUME} created: 10GiB, 3 replicas on pool-1, pool-2, pool-3`,
  },
  {
    line: `create volume ${VOLUME} -s 1073741824 --node-labels zone=a --spread-by rack`,
    request: `PUT /volumes/${VOLUME}`,
    body: {
      policy: { self_heal: true },
      replicas: 1,
      size: GIB,
      thin: false,
      topology: {
        node_topology: { labelled: { exclusion: { rack: "" }, inclusion: { zone: "a" } } },
      },
    },
    answer: volume,
    says: `Volume ${VOLUME} created: 10GiB, 3 replicas on pool-1, pool-2, pool-3`,
  },
  {
    line: `create volume-snapshot ${VOLUME} ${SNAPSHOT}`,
    request: `PUT /volumes/${VOLUME}/snapshots/${SNAPSHOT}`,
    answer: snapshot,
    says: `Snapshot ${SNAPSHOT} of volume ${VOLUME} created`,
  },
  {
    line: `publish volume ${VOLUME}`,
    request: target,
    body: { publish_context: {}, protocol: "nvmf" },
    answer: volume,
    thenAsked: [paths, volumePaths],
    says: published,
  },
  {
    line: `publish volume ${VOLUME} --node node-1 --host host-1 --context a=b=c --republish --reuse-existing`,
    request: target,
    body: {
      publish_context: { a: "b=c" },
      protocol: "nvmf",
      node: "node-1",
      frontend_node: "host-1",
      republish: true,
      reuse_existing: true,
    },
    answer: volume,
    thenAsked: [paths, volumePaths],
    says: published,
  },
  {
    line: `unpublish volume ${VOLUME}`,
    request: `DELETE /volumes/${VOLUME}/target`,
    answer: volume,
    says: `Volume ${VOLUME} unpublished`,
  },
  {
    line: `unpublish volume ${VOLUME} --force`,
    request: `DELETE /volumes/${VOLUME}/target`,
    search: "?force=true",
    answer: volume,
    says: `Volume ${VOLUME} unpublished`,
  },
  {
    line: `delete volume ${VOLUME} --yes`,
    request: `DELETE /volumes/${VOLUME}`,
    status: 204,
    answer: undefined,
    says: `Volume ${VOLUME} deleted`,
  },
  {
    line: `delete snapshot ${SNAPSHOT}`,
    request: `DELETE /volumes/snapshots/${SNAPSHOT}`,
    status: 204,
    answer: undefined,
    says: `Snapshot ${SNAPSHOT} deleted`,
  },
  {
    line: "delete pool pool-1",
    request: "DELETE /pools/pool-1",
    status: 204,
    answer: undefined,
    says: "Pool pool-1 deleted",
  },
  {
    line: "delete pool pool-1 --purge --yes --accept-volume-loss --cleanup-dsp",
    request: "DELETE /pools/pool-1",
    body: { purge: true, accept: true, accept_volume_loss: true, accept_snapshot_loss: false },
    status: 204,
    answer: undefined,
    says: "Pool pool-1 deleted",
  },
  {
    line: "delete node node-3 --purge --yes --accept-data-loss",
    request: "DELETE /nodes/node-3",
    body: { purge: true, accept: true, accept_volume_loss: true, accept_snapshot_loss: true },
    status: 204,
    answer: undefined,
    says: "Node node-3 deleted",
  },
  {
    line: "delete node node-3 --show-impact",
    request: "GET /nodes/node-3/removal-impact",
    answer: impact,
    says:
      `volumes lost: ${CLONE}\nvolumes degraded: ${VOLUME}\nsnapshots lost: none\n` +
      `replicas lost: ${REPLICAS[0]}, ${REPLICAS[1]}`,
  },
  {
    line: `move replica ${REPLICAS[0]} --volume ${VOLUME} --to-pool pool-2`,
    request: `POST /volumes/${VOLUME}/replicas/${REPLICAS[0]}/move`,
    body: { pool: "pool-2" },
    status: 202,
    answer: volume,
    says: `Replica ${REPLICAS[0]} is being moved; see how far: trilith status`,
  },
];

describe("a change", () => {
  for (const change of changes) {
    const { line, request, answer, says, search = "", body, status = 200, thenAsked } = change;
    const after = thenAsked === undefined ? {} : { [thenAsked[0]]: { body: thenAsked[1] } };
    test(`asks for it and says that it was made: ${line}`, async () => {
      const ran = await run(line, { [request]: { status, body: answer }, ...after });
      expect(ran.err).toBe("");
      expect(ran.status).toBe(0);
      expect(ran.out).toBe(says);
      const [asked, ...more] = ran.api.asked;
      expect(more.map((one) => `${one.method} ${one.path}`)).toEqual(Object.keys(after));
      expect(`${asked!.method} ${asked!.path}${asked!.search}`).toBe(`${request}${search}`);
      expect(asked!.body).toEqual(body);
    });

    if (answer === undefined) continue;
    test(`prints the object with -o json: ${line}`, async () => {
      const ran = await run(`${line} -o json`, { [request]: { status, body: answer } });
      expect(JSON.parse(ran.out)).toEqual(answer);
    });
  }

  test("can be repeated without being made twice: it carries a key, a read does not", async () => {
    const answers: Answers = {
      [`PUT /volumes/${VOLUME}/replica_count/2`]: { body: volume },
      "GET /nodes": { body: nodes },
    };
    const scaled = await run(`scale volume ${VOLUME} 2`, answers);
    expect(scaled.api.asked[0]!.headers.get("idempotency-key")).toMatch(UUID);
    const listed = await run("get nodes", answers);
    expect(listed.api.asked[0]!.headers.get("idempotency-key")).toBeNull();
    expect(listed.api.asked[0]!.headers.get("x-request-id")).toMatch(UUID);
  });

  test("makes up ids that are not given", async () => {
    const made = await run("create volume --size 1GiB", { "*": { body: volume } });
    expect(made.api.asked[0]!.path).toMatch(new RegExp(`^/volumes/${UUID.source}$`));
    const taken = await run(`create snapshot ${VOLUME}`, { "*": { body: snapshot } });
    expect(taken.api.asked[0]!.path).toMatch(new RegExp(`/snapshots/${UUID.source}$`));
  });

  test("of a snapshot takes its size, its copies, and is thin", async () => {
    const ran = await run(`create volume ${CLONE} --from-snapshot ${SNAPSHOT}`, {
      "GET /volumes/snapshots": { body: { entries: [snapshot] } },
      [`PUT /snapshots/${SNAPSHOT}/volumes/${CLONE}`]: { body: volume },
    });
    expect(ran.status).toBe(0);
    expect(ran.api.asked[1]!.body).toEqual({
      policy: { self_heal: true },
      replicas: 2,
      size: 10 * GIB,
      thin: true,
    });
    const missing = await run(`create volume --from-snapshot ${SNAPSHOT}`, {
      "GET /volumes/snapshots": { body: { entries: [] } },
    });
    expect(missing.status).toBe(4);
  });
});

test("a volume for one host is connected by that host's name", async () => {
  const uri = `nvmf+tcp://10.0.0.2:8420/nqn.2019-05.io.openebs:${VOLUME}?uuid=${VOLUME}`;
  const host = { name: "host-1", nqn: "nqn.2014-08.org.example:host-1" };
  const forHost = {
    spec: { ...volume.spec, target: { ...volume.spec.target!, frontend_nodes: [host] } },
    state: { ...volume.state, target: { ...volume.state.target!, deviceUri: uri } },
  };
  const ran = await run(`publish volume ${VOLUME} --host host-1`, {
    [target]: { body: forHost },
    [paths]: { status: 404 },
  });
  expect(ran.out).toContain(
    `-a 10.0.0.2 -s 8420 -n nqn.2019-05.io.openebs:${VOLUME} --hostnqn=${host.nqn} `,
  );
});

describe("a deletion", () => {
  const answers = { "*": { status: 204 } };

  test("asks whoever is there, and takes no for an answer", async () => {
    const questions: string[] = [];
    const confirm = async (question: string) => {
      questions.push(question);
      return false;
    };
    for (const line of [`delete volume ${VOLUME}`, "delete pool p", "delete node n"]) {
      const ran = await run(line, answers, { confirm });
      expect(ran.status).toBe(9);
      expect(ran.err).toBe("error: nothing was changed");
      expect(ran.api.asked).toEqual([]);
    }
    expect(questions).toHaveLength(3);
    const agreed = await run("delete pool p", answers, { confirm: async () => true });
    expect(agreed.out).toBe("Pool p deleted");
    const unasked = await run("delete pool p --yes", answers, { confirm });
    expect(unasked.out).toBe("Pool p deleted");
    expect(questions).toHaveLength(3);
  });

  test("by force shows first what it costs", async () => {
    const ran = await run(
      "delete pool p --purge --accept-data-loss",
      { "GET /pools/p/removal-impact": { body: impact }, "DELETE /pools/p": { status: 204 } },
      { confirm: async () => true },
    );
    expect(ran.err).toContain(`volumes lost: ${CLONE}`);
    expect(ran.status).toBe(0);
  });

  test("of what is not there is an error, unless that is fine", async () => {
    const missing = {
      "*": { status: 404, body: { kind: "NotFound", message: "there is no pool", details: "" } },
    };
    expect((await run("delete pool p", missing)).status).toBe(4);
    const ignored = await run("delete pool p --ignore-not-found", missing);
    expect([ignored.status, ignored.out]).toEqual([0, "Pool p is not there"]);
  });

  test("of an upgrade has nothing to do", async () => {
    const ran = await run("delete upgrade --force", {});
    expect(ran.out).toContain("nothing to delete");
  });
});

describe("what cannot be asked for", () => {
  const wrong: [line: string, status: number, says: RegExp][] = [
    [`scale volume ${VOLUME} 0`, 2, /no whole number from 1 to 255/],
    [`scale volume ${VOLUME}`, 2, /missing required argument/],
    [`set volume ${VOLUME} max-snapshots many`, 2, /max-snapshots cannot be "many"/],
    [`set volume ${VOLUME} colour red`, 2, /Allowed choices are max-snapshots/],
    [`set volume ${VOLUME} encryption true`, 12, /cannot be changed/],
    ["create volume", 2, /the size is missing/],
    ["create volume my-volume --size 1GiB", 2, /it has to be a UUID/],
    ["create volume --size huge", 2, /is no size/],
    ["create volume --size 1GiB --nodes a --spread-by rack", 2, /do not go together/],
    ["create pool p /dev/sdb", 2, /required option '--node <id>'/],
    ["label node n1 zone", 2, /neither key=value nor key-/],
    ["label node n1 zone=", 2, /has no value/],
    ["label node n1 -zone=a", 2, /unknown option/],
    ["label node n1 a/b/c=d", 2, /more than one "\/"/],
    [`label node n1 ${"k".repeat(64)}=a`, 2, /longer than 63/],
    ["label node n1 zone=_a", 2, /begins and ends with a letter or digit/],
    ["get pools -l a!b", 2, /is no selector/],
    ["get volumes --source other", 2, /Allowed choices are none, snapshot/],
    ["get nodes -o xml", 2, /Allowed choices are none, json, yaml/],
    ["get nodes -t soon", 2, /is no duration/],
    ["get nodes -r ftp://x", 2, /is no address of an API/],
  ];
  for (const [line, status, says] of wrong) {
    test(`ends with status ${status}, and nothing is sent: ${line}`, async () => {
      const ran = await run(line, {});
      expect(ran.err).toMatch(says);
      expect(ran.status).toBe(status);
      expect(ran.api.asked).toEqual([]);
    });
  }
});

describe("upgrade", () => {
  const fit = {
    "GET /nodes": { body: [node("node-1")] },
    "GET /volumes": { body: { entries: [] } },
  };

  test("says whether the cluster is fit, and how it is made", async () => {
    const dry = await run("upgrade --dry-run", fit);
    expect([dry.status, dry.out]).toEqual([0, "The cluster is fit for an upgrade."]);
    const real = await run("upgrade", fit);
    expect(real.status).toBe(12);
    expect(real.err).toContain("trilith drain node <id> upgrade");
  });

  test("names each obstacle, and can be told to skip it", async () => {
    const single = { ...volume, spec: { ...volume.spec, num_replicas: 1 } };
    const unfit = {
      "GET /nodes": { body: nodes },
      "GET /volumes": { body: { entries: [single] } },
    };
    const ran = await run("upgrade -d", unfit);
    expect(ran.status).toBe(6);
    for (const what of ["single replica", "being rebuilt", "cordoned or drained", "not online"]) {
      expect(ran.err).toContain(what);
    }
    const skipped = await run("upgrade -d -S -R -C -o json", unfit);
    const { obstacles } = JSON.parse(skipped.out) as { obstacles: { message: string }[] };
    expect(obstacles.map(({ message }) => message)).toEqual(["node-3"]);
  });
});

describe("pools", () => {
  test("of one node and one volume are those of both", async () => {
    const listed = [pool("a", "node-1"), pool("b", "node-2")];
    const ran = await run(`get pools --node node-2 --volume ${VOLUME} -o json`, {
      "GET /pools": { body: listed },
    });
    expect(ran.api.asked[0]!.search).toBe(`?volume_id=${VOLUME}`);
    expect(JSON.parse(ran.out)).toEqual([listed[1]]);
  });
});
