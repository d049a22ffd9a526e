/** What an operator is told of. */
import { expect, test } from "bun:test";
import type { Change } from "../../../../src/control/planner/plan.ts";
import { type Failures, plan } from "../../../../src/control/planner/reconcile/index.ts";
import type { NexusChild } from "../../../../src/engine/rpc/nexuses.ts";
import {
  NOW_MS,
  seenChild,
  seenNexus,
  seenNode,
  seenPool,
  seenReplica,
  servedUri,
  stateOf,
} from "../../../support/control/states.ts";
import {
  nexusRecord,
  nodeRecord,
  poolRecord,
  replicaRecord,
  volumeRecord,
} from "../../../support/store-records.ts";

const VOLUME = "00000000-0000-4000-8000-000000000001";
const NEXUS = "00000000-0000-4000-8000-000000000002";
const SIZE = 64 << 20;
const nqn = (node: string) => `nqn.2019-05.io.openebs:node-name:${node}`;

/** A volume with replicas on n1 and n2, published on n1; the second child and the node n2 as given. */
function stateWith(options: {
  readonly child?: Partial<NexusChild>;
  readonly away?: boolean;
  readonly pool?: Partial<ReturnType<typeof seenPool>>;
  readonly rebuilds?: number;
}) {
  const target = {
    nexusUuid: NEXUS,
    nodeId: "n1",
    protocol: "nvmf",
    frontendNodes: [],
    publishContext: {},
  } as const;
  const volume = volumeRecord(VOLUME, {
    sizeBytes: SIZE,
    replicaCount: 2,
    thin: true,
    target,
    epoch: 1,
    incarnation: 1,
  });
  const nodes = ["n1", "n2"];
  const pools = nodes.map((node) => poolRecord(`p-${node}`, node));
  const replicas = nodes.map((node, i) =>
    replicaRecord(`00000000-0000-4000-8000-00000000001${i}`, VOLUME, `p-${node}`, {
      nodeId: node,
      sizeBytes: SIZE,
      thin: true,
      allowedHosts: node === "n1" ? null : [nqn("n1")],
    }),
  );
  const uris = [`bdev:///${replicas[0]!.uuid}`, servedUri(replicas[1]!)];
  const nexus = nexusRecord(NEXUS, {
    volumeUuid: VOLUME,
    nodeId: "n1",
    sizeBytes: SIZE,
    epoch: 1,
    share: "nvmf",
    children: uris.map((uri, i) => ({ uri, replicaUuid: replicas[i]!.uuid })),
  });
  const seen = seenNexus(nexus, [seenChild(uris[0]!), seenChild(uris[1]!, options.child)]);
  const state = options.child === undefined ? seen.state : ("degraded" as const);
  return stateOf(
    [
      ...nodes.map((id): Change => ({ table: "nodes", put: nodeRecord(id, { hostNqn: nqn(id) }) })),
      ...pools.map((put): Change => ({ table: "pools", put })),
      { table: "volumes", put: volume },
      ...replicas.map((put): Change => ({ table: "replicas", put })),
      { table: "nexuses", put: nexus },
    ],
    nodes.map((node, i) =>
      seenNode(
        node,
        {
          pools: [{ ...seenPool(pools[i]!), ...(i === 1 ? options.pool : {}) }],
          replicas: [seenReplica(replicas[i]!)],
          nexuses: i === 0 ? [{ ...seen, state, rebuilds: options.rebuilds ?? 0 }] : [],
        },
        i === 1 && options.away === true
          ? { status: "Offline", offlineSinceMs: NOW_MS - 5_000 }
          : {},
      ),
    ),
    { switchOver: false },
  );
}

function warningsOf(options: Parameters<typeof stateWith>[0], failures?: Failures) {
  return plan(stateWith(options), failures).warnings;
}

const rebuild = { progressPercent: 34.7 } as NexusChild["rebuild"];

test("nothing is said of a cluster that is well", () => {
  expect(warningsOf({})).toEqual([]);
});

test("a node that is away is named with the volumes that miss it", () => {
  const warnings = warningsOf({ away: true, child: { state: "faulted", reason: "io-failure" } });
  const node = warnings.find(({ subject }) => subject === "node/n2");
  expect(node).toMatchObject({ severity: "critical" });
  expect(node?.message).toContain("cannot be reached since 20");
  expect(node?.remedy).toContain("trilith node remove n2");
  const volume = warnings.find(({ subject }) => subject === `volume/${VOLUME}`);
  expect(volume).toMatchObject({
    severity: "warning",
    message: "the volume is degraded: the replica in p-n2 on n2 is away with its node",
  });
});

test("a target whose node is away is critical", () => {
  const state = stateWith({});
  const observed = new Map(state.observed);
  observed.set("n1", { ...observed.get("n1")!, status: "Offline", offlineSinceMs: NOW_MS });
  const said = plan({ ...state, observed }).warnings.filter(
    ({ subject }) => subject === `volume/${VOLUME}`,
  );
  expect(said.some(({ severity }) => severity === "critical")).toBeTrue();
});

test("a rebuild is told of with how far it is, one that waits as well", () => {
  const running = warningsOf({ child: { state: "degraded", reason: "out-of-sync", rebuild } });
  expect(running).toMatchObject([
    {
      severity: "info",
      message: "the volume is degraded: the replica in p-n2 on n2 is being rebuilt (34 %)",
    },
  ]);
  const waits = warningsOf({ child: { state: "degraded", reason: "out-of-sync" }, rebuilds: 1 });
  expect(waits[0]?.message).toContain("waits for its rebuild");
});

test("a pool that has promised more than it has is told of when it is nearly full", () => {
  const capacityBytes = 100 << 20;
  const pool = (usedBytes: number, committedBytes: number) =>
    warningsOf({ pool: { capacityBytes, usedBytes, committedBytes } });
  expect(pool(91 << 20, 200 << 20)).toMatchObject([{ severity: "warning", subject: "pool/p-n2" }]);
  expect(pool(91 << 20, 100 << 20)).toEqual([]);
  expect(pool(80 << 20, 200 << 20)).toEqual([]);
});

test("a step that fails is told of, unless its subject is gone or spoken of", () => {
  const failure = { code: "InUse", message: "held by another", remedy: "fuser" } as const;
  const failures: Failures = new Map([
    [`nexus/${NEXUS}`, failure],
    ["nexus/00000000-0000-4000-8000-0000000000ff", failure],
  ]);
  expect(warningsOf({}, failures)).toEqual([
    {
      severity: "warning",
      subject: `nexus/${NEXUS}`,
      message: "what is to be done fails: held by another",
      remedy: "fuser",
    },
  ]);
});
