/**
 * A process with the control plane of the large cluster, for `large.ts` to measure from outside:
 *
 *   bun large-process.ts fill <folder>    makes the store in the folder, and ends
 *   bun large-process.ts serve <folder>   opens it, times passes of the planner, serves the API, and
 *                                         prints one line of JSON; ends when standard input does
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { createApi } from "../../../src/api/app.ts";
import type { Change } from "../../../src/control/planner/plan.ts";
import { plan } from "../../../src/control/planner/reconcile/index.ts";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import { createService } from "../../../src/control/service.ts";
import { StoreMachine } from "../../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../../src/control/store/replicated-store.ts";
import { TrilithError } from "../../../src/errors.ts";
import { median } from "../rows.ts";
import { type LargeCluster, largeCluster, observedEngines } from "./large-cluster.ts";
import { FILL_BATCH, LARGE_ROUNDS } from "./limits.ts";

/** What `serve` prints. */
export interface LargeReport {
  readonly planMs: number;
  /** Works of the plan: of a cluster at rest none. */
  readonly works: number;
  readonly volumes: number;
  readonly url: string;
}

const log = () => {};

/** Opens the store as a cluster of one, which leads when this resolves. */
async function open(folder: string): Promise<ReplicatedStore> {
  const db = new Database(join(folder, "store.sqlite"), { create: true, strict: true });
  const machine = new StoreMachine();
  const raft = openRaftNode({
    raftId: "1",
    db,
    folder,
    stateMachine: machine,
    transport: { send: () => {}, sendSnapshot: () => Promise.reject(new Error("alone")) },
    bootstrap: { context: "node-1" },
  });
  const store = openStore({ machine, raft, log });
  if (!store.isLeader()) {
    await new Promise<void>((resolve) => {
      store.onLeadership((term) => {
        if (term !== null) resolve();
      });
    });
  }
  return store;
}

function changesOf(cluster: LargeCluster): Change[] {
  return [
    ...cluster.nodes.map((put): Change => ({ table: "nodes", put })),
    ...cluster.pools.map((put): Change => ({ table: "pools", put })),
    ...cluster.volumes.map((put): Change => ({ table: "volumes", put })),
    ...cluster.replicas.map((put): Change => ({ table: "replicas", put })),
    ...cluster.nexuses.map((put): Change => ({ table: "nexuses", put })),
  ];
}

async function fill(folder: string): Promise<void> {
  const store = await open(folder);
  const changes = changesOf(largeCluster());
  for (let at = 0; at < changes.length; at += FILL_BATCH) {
    const batch = changes.slice(at, at + FILL_BATCH);
    await store.transact(() => ({ changes: batch, events: [], value: null }));
  }
}

/** Control of the cluster, whose engines are what `observedEngines` says. */
function control(store: ReplicatedStore) {
  const observed = observedEngines(largeCluster(), Date.now());
  const nowhere = () => {
    throw new TrilithError("Unavailable", "there are no engines here");
  };
  return createService({
    store,
    observation: {
      observation: () => observed,
      onChange: () => () => {},
      engine: nowhere,
      refresh: async () => false,
    },
    execution: { wake: () => {}, lastFailure: () => null },
    membership: {
      createToken: () => Promise.reject(nowhere()),
      transferLeadership: () => Promise.reject(nowhere()),
      removeMember: () => Promise.reject(nowhere()),
    },
    plan,
    log,
  });
}

async function serve(folder: string): Promise<void> {
  const store = await open(folder);
  const service = control(store);
  const api = createApi(service, { log });
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => api.fetch(request),
  });
  const tookMs: number[] = [];
  let works = 0;
  for (let round = 0; round < LARGE_ROUNDS; round++) {
    const state = service.localState();
    const startMs = performance.now();
    const made = plan(state);
    tookMs.push(performance.now() - startMs);
    works = made.works.length;
    if (works > 0 && round === 0) console.error(JSON.stringify(made.works.slice(0, 3), null, 1));
  }
  const report: LargeReport = {
    planMs: median(tookMs),
    works,
    volumes: store.view().volumes.size,
    url: `http://127.0.0.1:${server.port}`,
  };
  console.log(JSON.stringify(report));
}

const [mode, folder] = process.argv.slice(2);
if (mode === "fill") {
  await fill(folder!);
  process.exit(0);
}
await serve(folder!);
process.stdin.once("end", () => process.exit(0));
process.stdin.resume();
