/**
 * What each operation does: what it hands to the control plane, and what it answers. Every answer is
 * held to the contract and to our document by `askApi`.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { createApi } from "../../../src/api/app.ts";
import { operations } from "../../../src/api/operations/index.ts";
import { type Ask, askApi } from "../../support/api/api-client.ts";
import { furnishedCluster, ids } from "../../support/api/furnished-cluster.ts";
import { type RecordingControl, recordingControl } from "../../support/api/recording-control.ts";
import { GiB, type PlannedCluster } from "../../support/planned-cluster.ts";

let cluster: PlannedCluster;
let control: RecordingControl;
let ask: Ask;

beforeEach(() => {
  cluster = furnishedCluster();
  control = recordingControl(cluster);
  ask = askApi(createApi(control, { log: () => {} }));
});

/** Name and arguments of the only call. */
function call(): unknown[] {
  expect(control.calls.map(({ name }) => name)).toHaveLength(1);
  const [{ name, given }] = control.calls as [(typeof control.calls)[number]];
  return [name, ...given];
}

const newVolume = { policy: { self_heal: true }, replicas: 2, size: GiB, thin: false };
const fresh = "00000000-0000-4000-9000-00000000aaaa";

describe("volumes", () => {
  test("are listed, whole and in pages", async () => {
    const { body } = await ask("GET", "/volumes?max_entries=0");
    expect(body.entries).toHaveLength(4);
    expect(body.next_token).toBeUndefined();
    const first = (await ask("GET", "/volumes?max_entries=3")).body;
    expect(first.entries).toHaveLength(3);
    expect(first.next_token as unknown).toBe(3);
    const rest = (await ask("GET", "/volumes?max_entries=3&starting_token=3")).body;
    expect(rest.entries).toHaveLength(1);
    expect(rest.next_token).toBeUndefined();
    const beyond = (await ask("GET", "/volumes?max_entries=3&starting_token=30")).body;
    expect(beyond.entries).toHaveLength(0);
  });

  test("an unknown volume_id gives an empty list, not 404", async () => {
    const list = await ask("GET", `/volumes?max_entries=0&volume_id=${ids.absent}`);
    expect([list.status, list.body]).toEqual([200, { entries: [] } as never]);
    const one = await ask("GET", `/volumes?max_entries=0&volume_id=${ids.thin}`);
    expect(one.body.entries).toHaveLength(1);
    expect((await ask("GET", `/volumes/${ids.absent}`)).status).toBe(404);
  });

  test("show what was asked for and how they are", async () => {
    const { body } = await ask("GET", `/volumes/${ids.published}`);
    expect(body as unknown).toMatchObject({
      spec: {
        uuid: ids.published,
        num_replicas: 3,
        status: "Created",
        policy: { self_heal: true },
        affinity_group: { id: "group/one" },
        topology: {
          node_topology: { explicit: { allowed_nodes: ["node-1", "node-2", "node-3"] } },
        },
        target: { node: "node-1", protocol: "nvmf", frontend_nodes: [{ name: "app-1" }] },
      },
      state: { status: "Degraded", size: GiB, target: { node: "node-1", rebuilds: 1 } },
    });
    const topology = Object.values(body.state!.replica_topology!) as unknown[];
    expect(topology).toHaveLength(3);
    expect(topology).toContainEqual(
      expect.objectContaining({
        "child-status": "Degraded",
        "child-status-reason": "OutOfSpace",
        "rebuild-progress": 33,
      }),
    );
  });

  test("of a snapshot name it", async () => {
    const { body } = await ask("GET", `/volumes/${ids.clone}`);
    expect(body.spec!.content_source as unknown).toEqual({
      snapshot: { snapshot: ids.snapshot, volume: ids.thin },
    });
  });

  test("are created by PUT, and confirmed when repeated", async () => {
    const made = await ask("PUT", `/volumes/${fresh}`, newVolume);
    expect(made.status).toBe(200);
    expect(call()).toEqual([
      "createVolume",
      {
        uuid: fresh,
        sizeBytes: GiB,
        replicaCount: 2,
        thin: false,
        selfHeal: true,
        topology: null,
        labels: {},
        affinityGroup: null,
        maxSnapshots: null,
      },
    ]);
    expect((await ask("PUT", `/volumes/${fresh}`, newVolume)).status).toBe(200);
    const other = await ask("PUT", `/volumes/${fresh}`, { ...newVolume, size: 2 * GiB });
    expect([other.status, other.body.kind as unknown]).toEqual([409, "Conflict"]);
  });

  test("hand on topology, labels and limits", async () => {
    const labelled = { exclusion: { a: "" }, inclusion: { b: "c" }, affinity_key: ["d"] };
    control.behaviour.failure = new Error("enough");
    await ask("PUT", `/volumes/${fresh}`, {
      ...newVolume,
      topology: { node_topology: { labelled }, pool_topology: { labelled } },
      labels: { x: "y" },
      affinity_group: { id: "g" },
      max_snapshots: 3,
    });
    const wanted = { exclusion: { a: "" }, inclusion: { b: "c" }, affinityKey: ["d"] };
    expect(call()[1]).toMatchObject({
      topology: { node: { labelled: wanted }, pool: wanted },
      labels: { x: "y" },
      affinityGroup: "g",
      maxSnapshots: 3,
    });
  });

  test("are created by POST with an id that follows from the idempotency key", async () => {
    const body = { replicas: 1, size: GiB };
    const made = await ask("POST", "/volumes", body);
    expect(made.status).toBe(201);
    const keyed = await ask("POST", "/volumes", body, { "idempotency-key": "k1" });
    const again = await ask("POST", "/volumes", body, { "idempotency-key": "k1" });
    const other = await ask("POST", "/volumes", body, { "idempotency-key": "k2" });
    expect(again.body.spec!.uuid).toEqual(keyed.body.spec!.uuid!);
    expect(other.body.spec!.uuid).not.toEqual(keyed.body.spec!.uuid!);
    expect(made.body.spec!.uuid).not.toEqual(keyed.body.spec!.uuid!);
    expect(control.calls.map(({ context }) => context.idempotencyKey)).toEqual([
      undefined,
      "k1",
      "k1",
      "k2",
    ]);
  });

  test("are published, and unpublished", async () => {
    const body = {
      publish_context: { ioTimeout: "30" },
      protocol: "nvmf",
      node: "node-2",
      frontend_node: "app-2",
    };
    expect((await ask("PUT", `/volumes/${ids.plain}/target`, body)).status).toBe(200);
    expect(call()).toEqual([
      "publishVolume",
      {
        uuid: ids.plain,
        publishContext: { ioTimeout: "30" },
        nodeId: "node-2",
        reuseExisting: false,
        republish: false,
        frontendNode: { name: "app-2", nqn: "nqn.2019-05.io.openebs:node-name:app-2" },
      },
    ]);
    expect((await ask("DELETE", `/volumes/${ids.plain}/target?force=true`)).status).toBe(200);
    expect(control.calls[1]).toMatchObject({
      name: "unpublishVolume",
      given: [ids.plain, true, null],
    });
    const not = await ask("DELETE", `/volumes/${ids.plain}/target`);
    expect([not.status, not.body.kind as unknown]).toEqual([412, "NotPublished"]);
    const iscsi = { publish_context: {}, protocol: "iscsi" };
    const refused = await ask("PUT", `/volumes/${ids.plain}/target`, iscsi);
    expect([refused.status, refused.body.kind as unknown]).toEqual([400, "InvalidArgument"]);
  });

  test("are resized, scaled and limited", async () => {
    expect((await ask("PUT", `/volumes/${ids.plain}/size`, { size: 2 * GiB })).status).toBe(200);
    expect((await ask("PUT", `/volumes/${ids.plain}/size`, { size: GiB })).status).toBe(406);
    expect((await ask("PUT", `/volumes/${ids.plain}/replica_count/3`)).status).toBe(200);
    const many = await ask("PUT", `/volumes/${ids.plain}/replica_count/5`);
    expect([many.status, many.body.kind as unknown]).toEqual([412, "FailedPrecondition"]);
    expect((await ask("PUT", `/volumes/${ids.plain}/replica_count/0`)).status).toBe(400);
    expect((await ask("PUT", `/volumes/${ids.plain}/replica_count/256`)).status).toBe(400);
    const limited = await ask("PUT", `/volumes/${ids.thin}/property`, { max_snapshots: 7 });
    expect(limited.body.spec!.max_snapshots as unknown).toBe(7);
  });

  test("lose the replica that was chosen", async () => {
    const [victim] = cluster.stored.replicasOfVolume.get(ids.plain)!;
    await ask("PUT", `/volumes/${ids.plain}/replica_count/1?victim=${victim}`);
    expect(call()).toEqual(["setReplicaCount", ids.plain, 1, victim]);
  });

  test("stop being served by the path that the contract misspells, and by the one it means", async () => {
    await ask("DELETE", `/volumes${ids.published}/share`);
    await ask("DELETE", `/volumes/${ids.published}/share`);
    expect(control.calls.map(({ name, given }) => [name, ...given])).toEqual([
      ["unshareVolume", ids.published],
      ["unshareVolume", ids.published],
    ]);
  });

  test("show rebuilds that run and that ended", async () => {
    const { body } = await ask("GET", `/volumes/${ids.published}/rebuilds`);
    expect(body.running as unknown).toEqual([
      expect.objectContaining({
        progressPercent: 33.3,
        rebuildJobState: "Rebuilding",
        etaMs: 1234,
      }),
    ]);
    expect(body.history).toHaveLength(1);
    const history = await ask("GET", `/volumes/${ids.published}/rebuild-history`);
    expect(history.body.records).toHaveLength(1);
    const not = await ask("GET", `/volumes/${ids.plain}/rebuild-history`);
    expect([not.status, not.body.kind as unknown]).toEqual([412, "NotPublished"]);
    expect((await ask("GET", `/volumes/${ids.plain}/rebuilds`)).status).toBe(200);
  });

  test("have a replica moved, only one of theirs", async () => {
    const [replica] = cluster.stored.replicasOfVolume.get(ids.plain)!;
    const wrong = await ask("POST", `/volumes/${ids.thin}/replicas/${replica}/move`);
    expect(wrong.status).toBe(404);
    expect(control.calls).toEqual([]);
    const moved = await ask("POST", `/volumes/${ids.plain}/replicas/${replica}/move`);
    expect(moved.status).toBe(202);
    expect(call()).toEqual(["moveReplica", replica, null]);
  });

  test("are destroyed", async () => {
    expect((await ask("DELETE", `/volumes/${ids.plain}`)).status).toBe(204);
    expect((await ask("GET", `/volumes/${ids.plain}`)).status).toBe(404);
  });
});

describe("nodes and pools", () => {
  test("show cordons, drains and statuses", async () => {
    await ask("PUT", "/nodes/node-1/cordon/upgrade");
    expect((await ask("GET", "/nodes/node-1")).body.spec!.cordondrainstate as unknown).toEqual({
      cordonedstate: { cordonlabels: ["upgrade"] },
    });
    await ask("PUT", "/nodes/node-1/drain/disk?evacuate=true");
    expect(control.calls.at(-1)?.given).toEqual([
      { nodeId: "node-1", label: "disk", evacuate: true },
    ]);
    expect((await ask("GET", "/nodes/node-1")).body.spec!.cordondrainstate as unknown).toEqual({
      drainingstate: { cordonlabels: ["upgrade"], drainlabels: ["disk"] },
    });
    expect((await ask("PUT", "/nodes/node-1/cordon/upgrade")).status).toBe(412);
    await ask("DELETE", "/nodes/node-1/cordon/disk");
    expect((await ask("DELETE", "/nodes/node-1/cordon/none")).status).toBe(412);
    expect((await ask("GET", "/nodes/node-4")).body.state!.status as unknown).toBe("Offline");
    expect((await ask("GET", "/nodes?node_id=node-2")).body).toHaveLength(1);
    expect((await ask("GET", "/nodes?node_id=nobody")).body).toHaveLength(0);
  });

  test("are labelled, with keys that have a slash, encoded or not", async () => {
    expect((await ask("PUT", "/nodes/node-2/label/openebs.io%2Fzone=b")).status).toBe(200);
    expect(control.calls[0]?.given).toEqual(["node-2", "openebs.io/zone", "b", false]);
    expect((await ask("PUT", "/nodes/node-2/label/openebs.io%2Fzone=c")).status).toBe(412);
    const over = await ask("PUT", "/nodes/node-2/label/openebs.io%2Fzone=c?overwrite=true");
    expect(over.body.spec!.labels as unknown).toEqual({ "openebs.io/zone": "c" });
    expect((await ask("DELETE", "/nodes/node-2/label/openebs.io%2Fzone")).status).toBe(200);
    expect((await ask("DELETE", "/nodes/node-2/label/openebs.io%2Fzone")).status).toBe(412);
    expect((await ask("PUT", "/nodes/node-2/label/a=")).status).toBe(400);
    const bad = await ask("PUT", "/nodes/node-2/label/-a=b");
    expect([bad.status, bad.body.kind as unknown]).toEqual([400, "InvalidArgument"]);
    expect((await ask("PUT", `/nodes/node-2/label/a=${"b".repeat(64)}`)).status).toBe(400);
    const pool = await ask("PUT", "/pools/pool-1/label/tier=fast");
    expect(pool.body.spec!.labels as unknown).toEqual({ tier: "fast" });
    expect((await ask("DELETE", "/pools/pool-1/label/tier")).status).toBe(200);
  });

  test("pools are made, shown, cordoned and destroyed", async () => {
    const body = { disks: ["/dev/sdb"], labels: { a: "b" } };
    expect((await ask("PUT", "/nodes/node-1/pools/new", body)).status).toBe(200);
    expect(call()).toEqual([
      "createPool",
      {
        nodeId: "node-1",
        poolId: "new",
        disks: ["/dev/sdb"],
        labels: { a: "b" },
        clusterSizeBytes: null,
        force: false,
      },
    ]);
    const posted = await ask("POST", "/nodes/node-2/pools", { disks: ["/dev/sdc"] });
    expect([posted.status, String(posted.body.id)]).toEqual([
      201,
      expect.stringMatching(/^pool-[0-9a-f]{8}$/),
    ]);
    const cordoned = await ask("PUT", "/pools/pool-1/cordon");
    expect(cordoned.body.spec!.cordoned as unknown).toBe(true);
    expect((await ask("PUT", "/pools/pool-1/cordon", { import: true })).status).toBe(501);
    const open = await ask("DELETE", "/pools/pool-1/cordon");
    expect(open.body.spec!.cordoned).toBeUndefined();
    expect((await ask("PUT", "/pools/pool-1/expand")).status).toBe(200);
    expect((await ask("DELETE", "/nodes/node-2/pools/new")).status).toBe(404);
    expect((await ask("DELETE", "/nodes/node-1/pools/new")).status).toBe(204);
    expect((await ask("DELETE", "/pools/pool-1")).status).toBe(409);
    const ofVolume = await ask("GET", `/pools?volume_id=${ids.published}`);
    expect(ofVolume.body).toHaveLength(3);
    expect((await ask("GET", `/pools?volume_id=${ids.absent}`)).body).toHaveLength(0);
    expect((await ask("GET", "/nodes/node-2/pools/pool-1")).status).toBe(404);
  });

  test("are removed by force only when that is accepted", async () => {
    const impact = await ask("GET", "/nodes/node-4/removal-impact");
    expect(Object.keys(impact.body)).toEqual([
      "volumesLost",
      "volumesDegraded",
      "snapshotsLost",
      "replicasLost",
      "volumesMoved",
      "volumesUnpublished",
    ]);
    const refused = await ask("DELETE", "/nodes/node-4", { purge: true });
    expect([refused.status, refused.body.kind as unknown]).toEqual([412, "FailedPrecondition"]);
    expect(String(refused.body.remedy)).toContain("removal-impact");
    expect(control.calls).toEqual([]);
    await ask("DELETE", "/nodes/node-4", { purge: true, accept: true, accept_volume_loss: true });
    expect(call()).toEqual([
      "removeNode",
      "node-4",
      { purge: true, acceptVolumeLoss: true, acceptSnapshotLoss: false },
    ]);
    expect((await ask("GET", "/pools/pool-1/removal-impact")).status).toBe(200);
    expect((await ask("GET", "/pools/none/removal-impact")).status).toBe(404);
  });

  test("disks are counted in blocks of 512 bytes", async () => {
    control.behaviour.blockDevices = [
      {
        devname: "/dev/sda",
        devtype: "disk",
        devmajor: 8,
        devminor: 0,
        model: "m",
        devpath: "/devices/a",
        devlinks: ["/dev/disk/by-id/a"],
        sizeBytes: GiB,
        isRotational: false,
        connectionType: "ata",
        available: false,
        unavailableReason: "it is mounted at /",
        filesystem: { fstype: "ext4", label: "", uuid: "u", mountpoint: "/" },
        partition: null,
      },
    ];
    const { body } = await ask("GET", "/nodes/node-1/block_devices?all=true");
    expect(body as unknown).toEqual([
      expect.objectContaining({ size: GiB / 512, is_rotational: false, available: false }),
    ]);
    expect((await ask("GET", "/nodes/node-4/block_devices")).status).toBe(503);
    expect((await ask("GET", "/nodes/none/block_devices")).status).toBe(404);
  });

  test("raw JSON-RPC is refused with a remedy", async () => {
    const { status, body } = await ask("PUT", "/nodes/node-1/jsongrpc/bdev_get_bdevs", {});
    expect([status, body.kind as unknown]).toEqual([501, "Unimplemented"]);
    expect(String(body.remedy)).not.toBe("");
  });
});

describe("replicas and nexuses", () => {
  test("replicas are found by pool and by node", async () => {
    const paths = [
      `/replicas/${ids.handReplica}`,
      `/nodes/node-1/pools/pool-1/replicas/${ids.handReplica}`,
    ];
    for (const path of paths) {
      expect((await ask("GET", path)).body as unknown).toMatchObject({
        uuid: ids.handReplica,
        pool: "pool-1",
        poolUuid: ids.pool(1),
        kind: "Regular",
        state: "Online",
      });
    }
    expect(
      (await ask("GET", `/nodes/node-2/pools/pool-1/replicas/${ids.handReplica}`)).status,
    ).toBe(404);
    expect((await ask("GET", "/nodes/node-1/pools/pool-1/replicas")).body.length).not.toBe(
      0 as never,
    );
    expect((await ask("GET", "/nodes/node-1/replicas")).status).toBe(200);
    expect((await ask("GET", "/replicas")).status).toBe(200);
  });

  test("replicas are made and shared by hand", async () => {
    const body = { size: GiB, thin: true };
    expect((await ask("PUT", `/pools/pool-2/replicas/${fresh}`, body)).status).toBe(200);
    const hosts = "allowed-hosts=nqn.2019-05.io.a&allowed-hosts=nqn.2019-05.io.b";
    const shared = await ask("PUT", `/pools/pool-2/replicas/${fresh}/share/nvmf?${hosts}`);
    expect(String(shared.body)).toStartWith("nvmf+tcp://");
    expect(control.calls.at(-1)?.given).toEqual([
      fresh,
      "pool-2",
      ["nqn.2019-05.io.a", "nqn.2019-05.io.b"],
    ]);
    const bad = await ask("PUT", `/pools/pool-2/replicas/${fresh}/share/nvmf?allowed-hosts=me`);
    expect(bad.status).toBe(400);
    expect((await ask("DELETE", `/pools/pool-2/replicas/${fresh}/share`)).status).toBe(204);
    const place = `/nodes/node-2/pools/pool-2/replicas/${fresh}`;
    expect((await ask("DELETE", place)).status).toBe(204);
  });

  test("children are named by their URI, encoded or as it is", async () => {
    const base = `/nexuses/${ids.handNexus}/children`;
    const uri = "malloc:///spare?size_mb=1100";
    expect((await ask("GET", `${base}/${encodeURIComponent(uri)}`)).body.uri as unknown).toBe(uri);
    expect((await ask("GET", `${base}/${uri}`)).body.uri as unknown).toBe(uri);
    expect((await ask("GET", `${base}/malloc:%2F%2F%2Fspare?size_mb=1100`)).status).toBe(200);
    expect((await ask("GET", `${base}/malloc:///other`)).status).toBe(404);
    expect((await ask("GET", base)).body).toHaveLength(2);
    await ask("DELETE", `/nodes/node-1/nexuses/${ids.handNexus}/children//dev/sdz`);
    expect(control.calls.at(-1)?.given).toEqual([ids.handNexus, "node-1", "aio:///dev/sdz"]);
    await ask("PUT", `${base}/aio:%2F%2F%2Fdev%2Fsdy`);
    expect(control.calls.at(-1)?.given).toEqual([ids.handNexus, null, "aio:///dev/sdy"]);
  });

  test("nexuses are opened, shared and closed by hand", async () => {
    const { nexusUuid } = cluster.stored.volumes.get(ids.published)!.target!;
    expect((await ask("GET", `/nexuses/${nexusUuid}`)).body as unknown).toMatchObject({
      state: "Degraded",
      node: "node-1",
      rebuilds: 1,
    });
    expect((await ask("GET", "/nexuses")).body).toHaveLength(2);
    expect((await ask("GET", "/nodes/node-2/nexuses")).body).toHaveLength(0);
    expect((await ask("GET", `/nodes/node-2/nexuses/${nexusUuid}`)).status).toBe(404);
    const place = `/nodes/node-1/nexuses/${ids.handNexus}`;
    expect((await ask("PUT", `${place}/share/nvmf`)).status).toBe(200);
    expect((await ask("PUT", `${place}/share/iscsi`)).status).toBe(400);
    expect((await ask("PUT", `${place}/share/other`)).status).toBe(400);
    expect((await ask("DELETE", `${place}/share`)).status).toBe(204);
    expect((await ask("DELETE", place)).status).toBe(204);
    const body = { size: GiB, children: ["malloc:///a?size_mb=1100"] };
    expect((await ask("PUT", `/nodes/node-1/nexuses/${fresh}`, body)).status).toBe(200);
    expect((await ask("DELETE", `/nexuses/${fresh}`)).status).toBe(204);
  });
});

describe("snapshots, watches and hosts", () => {
  test("snapshots are listed, filtered and shown", async () => {
    const all = await ask("GET", "/volumes/snapshots?max_entries=0");
    expect(all.body.entries).toHaveLength(1);
    const none = `/volumes/snapshots?max_entries=0&volume_id=${ids.plain}`;
    expect((await ask("GET", none)).body.entries).toHaveLength(0);
    const one = await ask("GET", `/volumes/${ids.thin}/snapshots/${ids.snapshot}`);
    expect(one.body as unknown).toMatchObject({
      definition: {
        metadata: { status: "Created", num_restores: 1, num_snapshot_replicas: 1 },
        spec: { uuid: ids.snapshot, source_volume: ids.thin },
      },
    });
    expect((await ask("GET", `/volumes/snapshots/${ids.snapshot}`)).status).toBe(200);
    expect((await ask("GET", `/volumes/${ids.plain}/snapshots/${ids.snapshot}`)).status).toBe(404);
    expect((await ask("GET", `/volumes/${ids.absent}/snapshots?max_entries=0`)).status).toBe(404);
    expect((await ask("GET", `/volumes/${ids.plain}/snapshots?max_entries=0`)).status).toBe(200);
  });

  test("snapshots are taken, restored and destroyed", async () => {
    expect((await ask("PUT", `/volumes/${ids.thin}/snapshots/${fresh}`)).status).toBe(200);
    const posted = await ask("POST", `/volumes/${ids.thin}/snapshots`);
    expect(posted.status).toBe(201);
    const volume = "00000000-0000-4000-9000-00000000bbbb";
    const body = { ...newVolume, replicas: 1, thin: true };
    const restored = await ask("PUT", `/snapshots/${fresh}/volumes/${volume}`, body);
    expect(restored.status).toBe(200);
    const thick = { ...body, thin: false };
    const refused = await ask("PUT", `/snapshots/${fresh}/volumes/${ids.absent}`, thick);
    expect([refused.status, refused.body.kind as unknown]).toEqual([400, "InvalidArgument"]);
    const { uuid } = posted.body.definition!.spec!;
    expect((await ask("DELETE", `/volumes/${ids.thin}/snapshots/${uuid}`)).status).toBe(204);
    expect((await ask("DELETE", `/volumes/snapshots/${ids.absent}`)).status).toBe(404);
  });

  test("watches and hosts come and go", async () => {
    const list = await ask("GET", `/watches/volumes/${ids.plain}`);
    expect(list.body as unknown).toEqual([
      { callback: "http://127.0.0.1:9999/told", resource: ids.plain },
    ]);
    const callback = encodeURIComponent("http://127.0.0.1:1/x?y=z");
    const watch = `/watches/volumes/${ids.thin}?callback=${callback}`;
    expect((await ask("PUT", watch)).status).toBe(204);
    expect(control.calls.at(-1)?.given).toEqual([ids.thin, "http://127.0.0.1:1/x?y=z"]);
    expect((await ask("DELETE", watch)).status).toBe(204);
    expect((await ask("PUT", `/watches/volumes/${ids.thin}`)).status).toBe(400);
    expect((await ask("PUT", `/watches/volumes/${ids.thin}?callback=file:///x`)).status).toBe(400);
    expect((await ask("GET", "/app-nodes?max_entries=0")).body.entries).toHaveLength(1);
    expect((await ask("GET", "/app-nodes/app-1")).body.id as unknown).toBe("app-1");
    expect((await ask("PUT", "/app-nodes/app-2", { endpoint: "10.0.0.8:1" })).status).toBe(204);
    expect((await ask("DELETE", "/app-nodes/app-2")).status).toBe(204);
    expect((await ask("GET", "/app-nodes/app-2")).status).toBe(404);
  });
});

describe("the cluster", () => {
  test("is shown whole", async () => {
    control.behaviour.plan = {
      works: [
        {
          subject: "volume/x",
          steps: [
            {
              kind: "engine",
              nodeId: "node-1",
              call: { method: "getInfo", input: {} },
              doneWhen: [],
              reason: "to know",
            },
            {
              kind: "store",
              changes: [{ table: "volumes", remove: ids.plain }],
              events: [],
              reason: "it is gone",
            },
          ],
        },
      ],
      warnings: [{ severity: "warning", subject: "node/node-4", message: "away", remedy: "look" }],
      wakeAtMs: cluster.nowMs,
    };
    const status = (await ask("GET", "/status")).body as unknown;
    expect(status).toMatchObject({
      cluster: { leader: "node-1" },
      volumes: { total: 4, published: 1, byStatus: { Degraded: 1 } },
      rebuilds: { total: 1 },
      snapshots: 1,
      warnings: [{ subject: "node/node-4" }],
    });
    expect((await ask("GET", "/plan")).body.works as unknown).toEqual([
      {
        subject: "volume/x",
        steps: [
          { kind: "engine", reason: "to know", node: "node-1", method: "getInfo" },
          { kind: "store", reason: "it is gone", changes: [`remove volumes/${ids.plain}`] },
        ],
      },
    ]);
    expect((await ask("GET", "/warnings")).body).toHaveLength(1);
    expect((await ask("GET", "/specs")).body.volumes).toHaveLength(4);
    expect((await ask("GET", "/cluster")).body.members).toHaveLength(4);
  });

  test("takes what hosts say of their paths", async () => {
    const path = { address: "10.0.0.1", port: 8420, state: "lost" };
    const body = { host: "nqn.x", name: "app", volumes: [{ volume: ids.plain, paths: [path] }] };
    expect((await ask("POST", "/path-reports", body)).status).toBe(204);
    const taken = { address: "10.0.0.1", port: 8420, isLost: true };
    const volumes = [{ uuid: ids.plain, paths: [taken] }];
    expect(call()).toEqual(["reportPaths", { hostNqn: "nqn.x", hostName: "app", volumes }]);
    const wrong: object[] = [
      { host: "x" },
      { name: "" },
      { volumes: [{ volume: "x", paths: [] }] },
      { volumes: [{ volume: ids.plain, paths: [{ ...path, port: 0 }] }] },
      { volumes: [{ volume: ids.plain, paths: [{ ...path, state: "odd" }] }] },
    ];
    for (const part of wrong) {
      expect((await ask("POST", "/path-reports", { ...body, ...part })).status).toBe(400);
    }
  });

  test("gives out tokens, changes leader and settings", async () => {
    const made = await ask("POST", "/cluster/tokens", {
      kind: "api",
      validSeconds: 60,
      note: "ci",
    });
    expect(made.status).toBe(201);
    expect(call()).toEqual(["createToken", "api", 60_000, "ci"]);
    expect((await ask("POST", "/cluster/tokens")).status).toBe(201);
    expect((await ask("POST", "/cluster/tokens", { validSeconds: 1e9 })).status).toBe(400);
    expect((await ask("GET", "/cluster/tokens")).body).toHaveLength(0);
    expect((await ask("PUT", "/cluster/leader", { node: "node-2" })).status).toBe(200);
    expect((await ask("PUT", "/cluster/leader", { node: "node-4" })).status).toBe(412);
    expect((await ask("PUT", "/cluster/leader", { node: "nobody" })).status).toBe(404);
    const settings = await ask("PUT", "/settings", { maxRebuilds: 4 });
    expect(settings.body.maxRebuilds as unknown).toBe(4);
    expect((await ask("PUT", "/settings", { noSuch: 1 })).status).toBe(400);
    expect((await ask("GET", "/settings")).body.maxRebuilds as unknown).toBe(4);
    const unlimited = await ask("PUT", "/settings", { maxRebuilds: null });
    expect(unlimited.body.maxRebuilds as unknown).toBe(null);
  });
});

test("every read answers, every change reaches the control plane or says why not", async () => {
  const example: Record<string, string> = {
    volume_id: ids.plain,
    snapshot_id: ids.snapshot,
    nexus_id: ids.handNexus,
    replica_id: ids.handReplica,
    node_id: "node-1",
    node: "node-1",
    pool_id: "pool-1",
    app_node_id: "app-1",
    child_id: "x",
  };
  const seen: string[] = [];
  for (const { method, path, id, alsoMedia } of operations) {
    if (method !== "get" || alsoMedia !== undefined) continue;
    const id_ = path.startsWith("/replicas") ? ids.handReplica : "node-1";
    const filled = path.replace(/\{([a-z_]+)\}/g, (_all, name: string) =>
      encodeURIComponent(name === "id" ? id_ : example[name]!),
    );
    const { status } = await ask("GET", filled);
    if (status !== 200) seen.push(`${id} ${status}`);
  }
  expect(seen.sort()).toEqual([
    "get_nexus_child 404",
    "get_node_nexus_child 404",
    "get_rebuild_history 412",
    "get_volume_snapshot 404",
  ]);
});
