/** What the operator of pools decides, shows and tells. */
import { describe, expect, test } from "bun:test";
import type { Node, Pool } from "../../../src/client/types.ts";
import { TrilithError } from "../../../src/errors.ts";
import {
  decide,
  parseDeleteOptions,
  problemOf,
  type Surroundings,
} from "../../../src/kube/operator/decide.ts";
import {
  crStateOf,
  isShown,
  type PoolObject,
  quantity,
  statusOf,
  viewOf,
} from "../../../src/kube/operator/pool-view.ts";
import { changesToTell } from "../../../src/kube/operator/tell.ts";

const FINALIZER = "openebs.io/diskpool-protection";
const NOW = "2026-01-01T00:00:00Z";

function object(more: Partial<PoolObject> & { meta?: object } = {}): PoolObject {
  const { meta, ...rest } = more;
  return {
    apiVersion: "openebs.io/v1beta3",
    kind: "DiskPool",
    metadata: { name: "p", namespace: "a", uid: "u", finalizers: [FINALIZER], ...meta },
    spec: { node: "n1", disks: ["/dev/sdb"] },
    ...rest,
  };
}

const node = (id: string, status: "Online" | "Offline" = "Online"): Node => ({
  id,
  state: { id, status, grpcEndpoint: "" },
});

function pool(spec: Partial<NonNullable<Pool["spec"]>> = {}, status = "Online"): Pool {
  return {
    id: "p",
    spec: {
      id: "p",
      node: "n1",
      disks: ["/dev/sdb"],
      labels: { "openebs.io/created-by": "operator-diskpool" },
      status: "Created",
      ...spec,
    },
    state: {
      ...{ id: "p", node: "n1", disks: ["/dev/sdb"], status: status as "Online" },
      ...{ capacity: 1 << 30, used: 1 << 20 },
    },
  };
}

const around = (more: Partial<Surroundings> = {}): Surroundings => ({
  pool: null,
  nodes: [node("n1")],
  rival: null,
  ...more,
});
const created = { status: { cr_state: "Created", pool_status: "Online" } } as const;

describe("a pool that is wanted", () => {
  test("is held by its object before it is made", () => {
    expect(decide(object({ meta: { finalizers: [] } }), around())).toEqual({ do: "add-finalizer" });
  });

  test("is made as the object says, with the labels that classes choose by", () => {
    const spec = { node: "n1", disks: ["/dev/sdb"], topology: { labelled: { tier: "fast" } } };
    expect(decide(object({ spec }), around())).toEqual({
      do: "create",
      node: "n1",
      id: "p",
      body: {
        disks: ["/dev/sdb"],
        labels: { tier: "fast", "openebs.io/created-by": "operator-diskpool" },
      },
    });
  });

  test.each([
    [around({ nodes: [node("n2")] }), "NodeIsUnknown"],
    [around({ nodes: [node("n1", "Offline")] }), "NodeIsOffline"],
    [around({ rival: "DiskPool b/p" }), "ForeignPoolName"],
    [around({ pool: pool({ node: "n2" }) }), "ForeignPoolName"],
    [around({ pool: pool({ status: "Deleting" }) }), "PoolDeleted"],
  ])("waits, and says for what: %#", (seen, code) => {
    expect(decide(object(), seen)).toMatchObject({ do: "hold", problem: { code } });
  });

  test("that cannot be had as it is written is refused before anything is done", () => {
    const encrypted = { node: "n1", disks: ["/dev/sdb"], encryptionConfig: {} };
    expect(decide(object({ spec: encrypted, meta: { finalizers: [] } }), around())).toMatchObject({
      do: "hold",
      problem: { code: "EncryptionSecretError" },
    });
    const two = { node: "n1", disks: ["/dev/sdb", "/dev/sdc"] };
    expect(decide(object({ spec: two }), around())).toMatchObject({
      problem: { code: "InvalidDiskUri" },
    });
  });

  test("is left alone while it is as it should be, and gets the labels it lacks", () => {
    expect(decide(object(), around({ pool: pool() }))).toEqual({ do: "nothing" });
    expect(decide(object(), around({ pool: pool({ labels: {} }) }))).toEqual({
      do: "label",
      id: "p",
      key: "openebs.io/created-by",
      value: "operator-diskpool",
    });
  });

  test("is expanded when that is asked for and it answers", () => {
    const meta = { annotations: { "openebs.io/expand": "true" } };
    expect(decide(object({ meta }), around({ pool: pool() }))).toEqual({ do: "expand", id: "p" });
    const away = around({ pool: pool({}, "Unknown") });
    expect(decide(object({ meta }), away)).toEqual({ do: "nothing" });
  });

  test("is not made again once it was deleted by somebody else", () => {
    expect(decide(object(created), around())).toMatchObject({
      do: "hold",
      problem: { code: "PoolDeleted" },
    });
  });
});

describe("an object that is deleted", () => {
  const deleted = (annotations = {}) =>
    object({ ...created, meta: { deletionTimestamp: NOW, annotations } });
  const force = { purge: true, accept: true, accept_volume_loss: true, accept_snapshot_loss: true };
  const none = {
    ...{ purge: false, accept: false },
    ...{ accept_volume_loss: false, accept_snapshot_loss: false },
  };

  test("takes its pool along, and is let go when that is gone", () => {
    expect(decide(deleted(), around({ pool: pool() }))).toEqual({
      do: "delete",
      id: "p",
      force: none,
    });
    expect(decide(deleted(), around())).toEqual({ do: "remove-finalizer", destroyed: true });
  });

  test("never takes what is another's: another node's pool, another object's", () => {
    for (const seen of [{ pool: pool({ node: "n2" }) }, { pool: pool(), rival: "DiskPool b/p" }]) {
      expect(decide(deleted(), around(seen))).toEqual({ do: "remove-finalizer", destroyed: false });
    }
  });

  test("gives data up only where it is told to, and the pool does not answer", () => {
    const told = deleted({ "openebs.io/delete-opts": "purge-accept-all" });
    expect(decide(told, around({ pool: pool() }))).toMatchObject({ force: none });
    expect(decide(told, around({ pool: pool({}, "Unknown") }))).toMatchObject({ force });
    expect(decide(deleted(), around({ pool: pool({}, "Unknown") }))).toMatchObject({ force: none });
  });

  test("what it may give up is read as Mayastor's operator does", () => {
    const text = "purge=true, accept=true,accept-data-loss=true";
    expect(parseDeleteOptions(text)).toEqual(force);
    expect(parseDeleteOptions("purge=true")).toEqual({ ...none, purge: true });
    expect(parseDeleteOptions(undefined)).toEqual(none);
    expect(parseDeleteOptions("purge=false,accept-data-loss=no")).toEqual(none);
  });
});

describe("what is shown", () => {
  test("a new pool's status is complete, and shown once", () => {
    const view = viewOf(pool(), "Created", null);
    const shown = statusOf(object(), pool(), view, NOW);
    expect(shown).toMatchObject({
      cr_state: "Created",
      pool_status: "Online",
      capacity: 1 << 30,
      available: (1 << 30) - (1 << 20),
      capacity_q: "1Gi",
      available_q: "1023Mi",
      error: null,
      conditions: [{ type: "PoolReady", status: "True", lastTransitionTime: NOW }],
    });
    expect(isShown(shown, object())).toBe(false);
    const after = object({ status: shown });
    expect(isShown(statusOf(after, pool(), view, "2027-01-01T00:00:00Z"), after)).toBe(true);
  });

  test("a MayastorPool has the words of its time", () => {
    const old = object({ kind: "MayastorPool" });
    const shown = statusOf(old, pool(), viewOf(pool(), "Created", null), NOW);
    expect(shown).toMatchObject({ state: "ONLINE", used: 1 << 20, node: "n1", reason: "" });
    expect(crStateOf({ ...old, status: shown }, null)).toBe("Created");
    expect(statusOf(old, null, viewOf(null, "Creating", null), NOW).state).toBe("PENDING");
  });

  test("quantities are those of Kubernetes", () => {
    expect([0, 1023, 1024, 1536, 5 * 2 ** 40].map(quantity)).toEqual([
      ...["0", "1023", "1Ki", "1.50Ki", "5Ti"],
    ]);
  });

  test("an error is shown with what can be done about it", () => {
    expect(problemOf(new TrilithError("InUse", "disk is taken", "take another"))).toEqual({
      code: "DiskClaimed",
      message: "disk is taken; take another",
    });
  });
});

describe("what is told", () => {
  const told = (from: PoolObject, view: ReturnType<typeof viewOf>) =>
    changesToTell(from, view).map(({ type, reason }) => `${type} ${reason}`);

  test("is what changed, once", () => {
    const made = viewOf(pool(), "Created", null);
    expect(told(object(), made)).toEqual(["Normal Created", "Normal Online"]);
    expect(told(object(created), made)).toEqual([]);
    expect(told(object(created), viewOf(pool({}, "Faulted"), "Created", null))).toEqual([
      "Warning Faulted",
    ]);
  });

  test("a problem is told again only when it is another one", () => {
    const problem = { code: "DiskNotFound", message: "no /dev/sdb" };
    const view = viewOf(null, "Creating", problem);
    expect(changesToTell(object(), view)).toEqual([
      {
        type: "Warning",
        reason: "DiskNotFound",
        message: "Unable to create or import pool: no /dev/sdb",
      },
    ]);
    expect(told(object({ status: { cr_state: "Creating", error: problem } }), view)).toEqual([]);
  });
});
