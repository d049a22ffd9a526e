/**
 * A control plane for tests of the API: the planner's own decisions on a cluster of plain values, at
 * once. Every call that could change something is recorded with what it was given.
 */
import type { Control, RequestContext } from "../../../src/control/control.ts";
import type { NewEvent, StoredEvent } from "../../../src/control/model.ts";
import * as decide from "../../../src/control/planner/decide/index.ts";
import type { Decision, Plan } from "../../../src/control/planner/plan.ts";
import { settingChanges, settingsOf } from "../../../src/control/service/settings.ts";
import { TrilithError } from "../../../src/errors.ts";
import type { PlannedCluster } from "../planned-cluster.ts";

export interface Call {
  readonly name: string;
  readonly given: readonly unknown[];
  readonly context: RequestContext;
}

/** What makes the control plane behave otherwise. */
export interface Behaviour {
  /** Thrown by every operation, after it was recorded. */
  failure: unknown;
  plan: Plan;
  blockDevices: readonly unknown[];
  /** Raft id of the leader. */
  leader: string | null;
}

export interface RecordingControl extends Control {
  readonly calls: Call[];
  readonly behaviour: Behaviour;
  addEvent(event: NewEvent): void;
  /** Drops events below this id, as the store does in time. */
  forgetEventsBefore(id: number): void;
  listeners(): number;
}

/** Arguments and result of an operation that changes something: its last argument is a context. */
type Changing = {
  [K in keyof Control]: Control[K] extends (...given: infer A) => Promise<infer R>
    ? A extends [...infer G, RequestContext]
      ? (...given: G) => Decision | R
      : never
    : never;
};
type ChangingName = {
  [K in keyof Control]: [Changing[K]] extends [never] ? never : K;
}[keyof Control];

function raftOf(behaviour: Behaviour) {
  return {
    raftId: "1",
    role: behaviour.leader === "1" ? "leader" : "follower",
    term: 3,
    leader: behaviour.leader,
    commitIndex: 40,
    appliedIndex: 40,
    firstIndex: 1,
    members: [],
  } as const;
}

/** Builds it over `cluster`, which stays the test's to change. */
export function recordingControl(cluster: PlannedCluster): RecordingControl {
  const calls: Call[] = [];
  const events: StoredEvent[] = [];
  const listeners = new Set<(event: StoredEvent) => void>();
  let oldestId = 1;
  const behaviour: Behaviour = {
    failure: undefined,
    plan: { works: [], warnings: [], wakeAtMs: null },
    blockDevices: [],
    leader: "1",
  };
  const addEvent = (event: NewEvent): void => {
    const stored = { ...event, id: oldestId + events.length, atMs: cluster.nowMs };
    events.push(stored);
    for (const listener of listeners) listener(stored);
  };
  const carriedOut = (decision: Decision): void => {
    cluster.apply(decision);
    cluster.carryOut();
    for (const event of decision.events) addEvent(event);
  };
  const state = () => cluster.state();
  const uuids = () => cluster.uuids();
  const nexusUri = (uuid: string) => `nvmf+tcp://10.0.0.1:8420/nqn.2019-05.io.openebs:${uuid}`;
  const changing: Pick<Changing, ChangingName> = {
    cordonNode: (id, label) => decide.cordonNode(state(), id, label),
    uncordonNode: (id, label) => decide.uncordonNode(state(), id, label),
    drainNode: (request) => decide.drainNode(state(), request),
    labelNode: (id, key, value, over) => decide.labelNode(state(), id, key, value, over),
    unlabelNode: (id, key) => decide.unlabelNode(state(), id, key),
    removeNode: (id, force) => decide.removeNode(state(), id, force),
    createPool: (request) => decide.createPool(state(), request, uuids()),
    destroyPool: (id, node, force) => decide.destroyPool(state(), id, node, force),
    labelPool: (id, key, value, over) => decide.labelPool(state(), id, key, value, over),
    unlabelPool: (id, key) => decide.unlabelPool(state(), id, key),
    cordonPool: (id, cordoned) => decide.cordonPool(state(), id, cordoned),
    expandPool: (id) => void decide.checkExpandPool(state(), id),
    createReplica: (request) => decide.createReplica(state(), request),
    destroyReplica: (uuid, pool) => decide.destroyReplica(state(), uuid, pool),
    shareReplica(uuid, pool, hosts) {
      carriedOut(decide.shareReplica(state(), uuid, pool, hosts));
      return nexusUri(uuid);
    },
    unshareReplica: (uuid, pool) => decide.unshareReplica(state(), uuid, pool),
    createNexus: (request) => decide.createNexus(state(), request),
    destroyNexus: (uuid, node) => decide.destroyNexus(state(), uuid, node),
    shareNexus(uuid, node) {
      carriedOut(decide.shareNexus(state(), uuid, node));
      return nexusUri(uuid);
    },
    unshareNexus: (uuid, node) => decide.unshareNexus(state(), uuid, node),
    addNexusChild: (uuid, node, uri) => decide.addNexusChild(state(), uuid, node, uri),
    removeNexusChild: (uuid, node, uri) => decide.removeNexusChild(state(), uuid, node, uri),
    createVolume: (request) => decide.createVolume(state(), request, uuids()),
    restoreVolume: (from, request) => decide.restoreVolume(state(), from, request, uuids()),
    destroyVolume: (uuid) => decide.destroyVolume(state(), uuid),
    publishVolume: (request) => decide.publishVolume(state(), request, uuids()),
    unpublishVolume: (uuid, force, fromHost) =>
      decide.unpublishVolume(state(), uuid, force, fromHost),
    shareVolume(uuid, host) {
      const frontend = host === null ? null : { name: host, nqn: host };
      carriedOut(decide.shareVolume(state(), uuid, frontend));
      return nexusUri(uuid);
    },
    unshareVolume: (uuid) => decide.unshareVolume(state(), uuid),
    setReplicaCount: (uuid, count, victim) =>
      decide.setReplicaCount(state(), uuid, count, victim, uuids()),
    setMaxSnapshots: (uuid, max) => decide.setMaxSnapshots(state(), uuid, max),
    setFaultedChildWait: (uuid, ms) => decide.setFaultedChildWait(state(), uuid, ms),
    resizeVolume: (uuid, sizeBytes) => decide.resizeVolume(state(), uuid, sizeBytes),
    destroyShutdownTargets: (uuid) => decide.destroyShutdownTargets(state(), uuid),
    moveReplica: (uuid, toPool) => decide.moveReplica(state(), uuid, toPool, uuids()),
    startScrub: (uuid, request) => decide.startScrub(state(), uuid, request, uuids()),
    stopScrub: (uuid) => decide.stopScrub(state(), uuid),
    acknowledgeScrub: (uuid) => decide.acknowledgeScrub(state(), uuid),
    createSnapshot: (volume, uuid) => decide.createSnapshot(state(), volume, uuid, uuids()),
    destroySnapshot: (uuid, volume) => decide.destroySnapshot(state(), uuid, volume),
    registerAppNode: (id, endpoint, labels) =>
      decide.registerAppNode(state(), id, endpoint, labels),
    deregisterAppNode: (id) => decide.deregisterAppNode(state(), id),
    addWatch: (volume, callback) => decide.addWatch(state(), volume, callback),
    removeWatch: (volume, callback) => decide.removeWatch(state(), volume, callback),
    changeSettings(changes) {
      const written = settingChanges(cluster.stored.settings, changes);
      if (written.length > 0) cluster.put(...written);
      cluster.settings = settingsOf(cluster.stored.settings);
      return cluster.settings;
    },
    reportPaths: () => undefined,
    createToken: (kind, validMs) => ({
      id: "abcdef",
      token: `trilith-${kind}-abcdef-secret`,
      expiresAtMs: cluster.nowMs + validMs,
    }),
    transferLeadership: () => undefined,
    rebuildFromDisks: (_disks, apply) => ({
      applied: apply,
      pools: [],
      volumes: [],
      replicas: 0,
      snapshots: 0,
      nexuses: 0,
      problems: [],
    }),
  };
  const operation =
    (name: string, run: (...given: never[]) => unknown) =>
    async (...given: unknown[]): Promise<unknown> => {
      const context = given.pop() as RequestContext;
      calls.push({ name, given, context });
      if (behaviour.failure !== undefined) throw behaviour.failure;
      const result = run(...(given as never[]));
      const isDecision = typeof result === "object" && result !== null && "changes" in result;
      if (!isDecision) return result;
      carriedOut(result as Decision);
      return undefined;
    };
  const operations = Object.fromEntries(
    Object.entries(changing).map(([name, run]) => [
      name,
      operation(name, run as (...given: never[]) => unknown),
    ]),
  ) as unknown as Pick<Control, ChangingName>;
  return {
    ...operations,
    calls,
    behaviour,
    addEvent,
    forgetEventsBefore(id) {
      events.splice(0, id - oldestId);
      oldestId = id;
    },
    listeners: () => listeners.size,
    state: async () => state(),
    localState: state,
    plan: async () => behaviour.plan,
    events: (since, limit) => ({
      events: events.filter(({ id }) => id > since).slice(0, limit),
      oldestId,
    }),
    onEvent(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    nodeRemovalImpact: async (id) => decide.nodeRemovalImpact(state(), id),
    poolRemovalImpact: async (id) => decide.poolRemovalImpact(state(), id),
    async blockDevices(nodeId) {
      if (cluster.engines.get(nodeId)?.status === "Online") return behaviour.blockDevices;
      throw new TrilithError("Unavailable", `node ${nodeId} does not answer`);
    },
    members: () =>
      [...cluster.stored.nodes.values()].map(({ id, raftId }) => ({
        raftId,
        nodeId: id,
        isVoter: true,
        isLeader: raftId === behaviour.leader,
        matchIndex: 40,
      })),
    raft: () => raftOf(behaviour),
  };
}
