/**
 * What the API is served from: `Control` over store, planner, executor and observer. Owns the folder
 * `service/`; imports the planner's decisions and statuses, and of everything else the types only.
 */
import type { Log } from "../ops/log.ts";
import type { ClusterState } from "./cluster-state.ts";
import type { Control } from "./control.ts";
import { PathReports } from "./path-reports.ts";
import type { Plan } from "./planner/plan.ts";
import { nodeOperations } from "./service/node-operations.ts";
import { Operations } from "./service/operation.ts";
import { nexusOperations, poolOperations, replicaOperations } from "./service/pool-operations.ts";
import type { Execution, Membership, Observation } from "./service/ports.ts";
import {
  besideVolumes,
  volumeChanges,
  volumeLife,
  volumeScrubs,
  volumeTargets,
} from "./service/volume-operations.ts";
import { runWatches, type WatchesOptions } from "./service/watches.ts";
import type { Store } from "./store/store.ts";

export interface ServiceOptions {
  readonly store: Store;
  readonly observation: Observation;
  readonly execution: Execution;
  readonly membership: Membership;
  /** What hosts say of their paths. Default: its own. */
  readonly pathReports?: PathReports;
  /** What the planner would do now. */
  readonly plan: (state: ClusterState) => Plan;
  readonly log: Log;
  /** Milliseconds since 1970. Default: the wall clock. */
  readonly now?: () => number;
  /** Default: random ones. */
  readonly newUuid?: () => string;
  /** How watches are called. Default: over HTTP. */
  readonly callWatch?: WatchesOptions["call"];
}

export interface Service extends Control {
  /** Calls no watches any more; operations that wait end, and go on at the next leader. */
  close(): void;
}

/** The service of one member. Operations are for the leader; elsewhere they reject with `Unavailable`. */
export function createService(options: ServiceOptions): Service {
  const { store, observation, execution, membership, log } = options;
  const operations = new Operations({
    store,
    observation,
    execution,
    membership,
    pathReports: options.pathReports ?? new PathReports(),
    now: options.now ?? Date.now,
    newUuid: options.newUuid ?? (() => crypto.randomUUID()),
  });
  const call = options.callWatch === undefined ? {} : { call: options.callWatch };
  const stopWatches = runWatches({ store, log, ...call });
  return {
    state: () => operations.latestState(),
    localState: () => operations.state(),
    plan: async () => {
      operations.requireLeader(); // Reading the latest state would wait for a leader to come.
      return options.plan(await operations.latestState());
    },
    reportPaths: async (report, { requestId }) => {
      operations.requireLeader();
      const { pathReports, now } = operations.parts;
      for (const uuid of pathReports.report(report, now())) {
        execution.wake(`volume/${uuid}`, requestId);
      }
    },
    events: (sinceId, limit) => store.events(sinceId, limit),
    onEvent: (listener) => store.onEvent(listener),
    ...nodeOperations(operations),
    ...poolOperations(operations),
    ...replicaOperations(operations),
    ...nexusOperations(operations),
    ...volumeLife(operations),
    ...volumeTargets(operations),
    ...volumeChanges(operations),
    ...besideVolumes(operations),
    ...volumeScrubs(operations),
    close() {
      operations.end();
      stopWatches();
    },
  };
}
