/** Random operations and troubles: the cluster always comes to rest as its store wants it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import * as decide from "../../../src/control/planner/decide/index.ts";
import { plan } from "../../../src/control/planner/reconcile/index.ts";
import { Random, testSeed } from "../../support/random.ts";
import { Model } from "./model.ts";

setDefaultTimeout(120_000);
const MIB = 1 << 20;
const SEEDS = Number(process.env.TRILITH_SEEDS ?? "20");
const ACTIONS = 3_000;
const ROUNDS_MAX = 300;
const PATH = "test/simulation/control/reconcile.sim.test.ts";

function operate(model: Model): void {
  const { random } = model;
  const view = model.store.view();
  const volumes = [...view.volumes.keys()];
  const nodes = [...view.nodes.keys()];
  const uuids = Array.from({ length: decide.decisionUuids }, () => model.uuid());
  const volume = volumes.length === 0 ? "" : random.pick(volumes);
  const node = random.pick(nodes);
  const roll = random.next() * 95;
  if (roll < 18 && volumes.length < 4) {
    const request = {
      uuid: model.uuid(),
      sizeBytes: random.between(8, 64) * MIB,
      replicaCount: random.between(1, 3),
      thin: random.chance(0.5),
      selfHeal: true,
      topology: null,
      labels: {},
      affinityGroup: null,
      maxSnapshots: null,
    };
    model.decide(`create ${request.uuid}`, (s) => decide.createVolume(s, request, uuids));
  } else if (volume === "") return;
  else if (roll < 40) {
    const republish = random.chance(0.3);
    const request = {
      uuid: volume,
      publishContext: {},
      nodeId: random.chance(0.5) ? node : null,
      reuseExisting: random.chance(0.3),
      republish,
      frontendNode: random.chance(0.5)
        ? { name: "host", nqn: "nqn.2014-08.org.example:host" }
        : null,
    };
    model.decide(`publish ${volume}`, (s) => decide.publishVolume(s, request, uuids));
  } else if (roll < 50) {
    const force = random.chance(0.5);
    model.decide(`unpublish ${volume}`, (s) => decide.unpublishVolume(s, volume, force));
  } else if (roll < 62) {
    const record = view.volumes.get(volume)!;
    const count = record.replicaCount + (random.chance(0.5) ? 1 : -1);
    model.decide(`scale ${volume} to ${count}`, (s) =>
      decide.setReplicaCount(s, volume, count, null, uuids),
    );
  } else if (roll < 68) {
    const replicas = [...(view.replicasOfVolume.get(volume) ?? [])];
    if (replicas.length === 0) return;
    const replica = random.pick(replicas);
    model.decide(`move ${replica}`, (s) => decide.moveReplica(s, replica, null, uuids));
  } else if (roll < 74) {
    const sizeBytes = view.volumes.get(volume)!.sizeBytes + random.between(1, 16) * MIB;
    model.decide(`resize ${volume}`, (s) => decide.resizeVolume(s, volume, sizeBytes));
  } else if (roll < 80) {
    const request = { nodeId: node, label: "d", evacuate: random.chance(0.4) };
    model.decide(`drain ${node}`, (s) => decide.drainNode(s, request));
  } else if (roll < 86) {
    model.decide(`uncordon ${node}`, (s) => decide.uncordonNode(s, node, "d"));
  } else if (roll < 91) {
    const uuid = model.uuid();
    model.decide(`snapshot ${uuid}`, (s) => decide.createSnapshot(s, volume, uuid, uuids));
  } else if (roll < 93) {
    const snapshots = [...view.snapshots.keys()];
    if (snapshots.length === 0) return;
    const uuid = random.pick(snapshots);
    model.decide(`delete snapshot ${uuid}`, (s) => decide.destroySnapshot(s, uuid, null));
  } else if (roll < 93.7) {
    model.decide(`destroy ${volume}`, (s) => decide.destroyVolume(s, volume));
  }
}

/** Someone does something; a run is many of these. */
async function act(model: Model): Promise<void> {
  const { random } = model;
  const roll = random.below(1000);
  const node = random.pick([...model.engines.keys()]);
  const engine = model.engines.get(node)!;
  if (roll < 450) {
    const { activeSubjects } = model;
    if (activeSubjects.length > 0) await model.advance(random.pick(activeSubjects));
  } else if (roll < 600) {
    const subjects = model.subjects();
    if (subjects.length > 0) model.begin(random.pick(subjects));
  } else if (roll < 780) model.observe(node);
  else if (roll < 880) await model.write();
  else if (roll < 920) await model.rebuild();
  else if (roll < 955) operate(model);
  else if (roll < 958) {
    model.log(`${node} restarts`);
    engine.restart();
  } else if (roll < 970) {
    if (engine.isUp && random.chance(0.75)) return;
    if (engine.isUp) engine.restart();
    engine.isUp = !engine.isUp;
    model.log(`${node} is ${engine.isUp ? "up" : "down"}`);
  } else if (roll < 972) {
    // Out of reach, and at work all the same: with its replicas, or without.
    if (model.unreachable.delete(node)) engine.isCut = false;
    else if (random.chance(0.7)) {
      model.unreachable.add(node);
      engine.isCut = random.chance(0.5);
    }
    model.log(
      `${node} ${model.unreachable.has(node) ? `out of reach, cut off: ${engine.isCut}` : "in reach"}`,
    );
  } else if (roll < 974) model.killExecutor();
  else if (roll < 980) await model.lateOne();
  else if (roll < 984) {
    if (model.isRecorderUp && random.chance(0.7)) return;
    model.isRecorderUp = !model.isRecorderUp;
    model.log(`recorder ${model.isRecorderUp ? "up" : "away"}`);
  } else model.nowMs += random.chance(0.03) ? 700_000 : random.between(50, 2_000);
}

/** Troubles end; what is left to do is done, until nothing is. */
async function comeToRest(model: Model): Promise<void> {
  model.log("--- troubles end");
  model.trouble = 0;
  model.store.meanwhile = () => {};
  model.isRecorderUp = true;
  model.unreachable.clear();
  for (const engine of model.engines.values()) {
    engine.isUp = true;
    engine.isCut = false;
  }
  await model.lateAll();
  for (const node of model.engines.keys()) {
    model.decide(`uncordon ${node}`, (s) => decide.uncordonNode(s, node, "d"));
  }
  let quiet = 0;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    for (const subject of model.activeSubjects) await model.finish(subject);
    model.observeAll();
    const subjects = model.subjects();
    const rebuilding = model
      .nexuses()
      .filter(({ nexus }) => nexus.children.some((c) => c.phase === "rebuilding"));
    const { wakeAtMs } = plan(model.state(), model.memory.failures);
    if (wakeAtMs !== null) model.nowMs = Math.max(model.nowMs, wakeAtMs);
    const isQuiet = subjects.length === 0 && rebuilding.length === 0 && wakeAtMs === null;
    quiet = isQuiet ? quiet + 1 : 0;
    if (quiet === 3) return;
    for (const subject of subjects) {
      if (model.begin(subject)) await model.finish(subject);
    }
    for (const { engine, nexus } of model.nexuses()) await engine.settle(nexus);
    for (const { engine, nexus } of rebuilding) await engine.rebuildOne(nexus);
    for (let i = 0; i < 5; i++) await model.write();
    model.nowMs += round > 50 ? 60_000 : 1_000;
  }
  const { works, wakeAtMs } = plan(model.state());
  const nexuses = model.nexuses().map(({ nexus }) => nexus);
  model.fail(
    `no rest until ${wakeAtMs} (${model.nowMs}): ${JSON.stringify(works.slice(0, 3))} with ${JSON.stringify(nexuses)}`,
  );
}

/** What the engines have is what the store wants. */
function checkRest(model: Model): void {
  const view = model.store.view();
  const state = model.state();
  for (const volume of view.volumes.values()) {
    if (volume.status !== "Created") model.fail(`volume ${volume.uuid} is ${volume.status}`);
    const replicas = [...(view.replicasOfVolume.get(volume.uuid) ?? [])].map(
      (uuid) => view.replicas.get(uuid)!,
    );
    const writes = model.acknowledged.get(volume.uuid) ?? new Set();
    const good = replicas.filter((r) => {
      const disk = model.engines.get(r.nodeId)!.disks.get(r.poolId)!;
      const replica = disk.replicas.get(r.uuid);
      return r.healthy && replica !== undefined && writes.isSubsetOf(replica.holds);
    });
    if (good.length === 0)
      model.fail(`volume ${volume.uuid} has no replica with all of its ${writes.size} writes`);
    for (const r of replicas) {
      if (r.healthy && !good.includes(r))
        model.fail(`replica ${r.uuid} is healthy on record and lacks writes`);
    }
    if (volume.target !== null) {
      const nexus = model.engines.get(volume.target.nodeId)!.nexuses.get(volume.target.nexusUuid);
      if (nexus === undefined) model.fail(`volume ${volume.uuid} is not served`);
      if (nexus.epoch !== volume.epoch || nexus.isPaused)
        model.fail(`its nexus is ${JSON.stringify(nexus)}`);
      const phases = nexus.children.map(({ phase }) => phase);
      if (phases.some((phase) => phase !== "in-sync") || phases.length !== volume.replicaCount) {
        model.fail(`nexus of ${volume.uuid} (${volume.replicaCount} replicas) has ${phases}`);
      }
    }
    if (replicas.length !== volume.replicaCount) {
      const warnings = plan(state).warnings.map(({ message }) => message);
      model.fail(
        `volume ${volume.uuid} has ${replicas.length} of ${volume.replicaCount}: ${warnings}`,
      );
    }
    if (good.length !== replicas.length)
      model.fail(`volume ${volume.uuid} has replicas that lack data`);
    const nexuses = view.nexusesOfVolume.get(volume.uuid)?.size ?? 0;
    if (nexuses !== (volume.target === null ? 0 : 1))
      model.fail(`volume ${volume.uuid} has ${nexuses} nexuses`);
  }
  for (const { nexus } of model.nexuses()) {
    if (view.nexuses.get(nexus.uuid) === undefined) model.fail(`nexus ${nexus.uuid} was left over`);
  }
  for (const snapshot of view.snapshots.values()) {
    const parts = snapshot.replicas.map((one) =>
      model.engines.get(one.nodeId)!.disks.get(one.poolId)!.snapshots.get(one.uuid),
    );
    if (snapshot.status !== "Created")
      model.fail(`snapshot ${snapshot.uuid} is ${snapshot.status}`);
    const texts = new Set(parts.map((part) => [...(part?.holds ?? ["missing"])].sort().join(",")));
    if (texts.size !== 1) model.fail(`snapshot ${snapshot.uuid} differs from replica to replica`);
  }
}

async function run(seed: number): Promise<Model> {
  const model = new Model(new Random(seed), { nodes: 4, trouble: 0 });
  for (const node of model.engines.keys()) {
    const uuids = Array.from({ length: decide.decisionUuids }, () => model.uuid());
    const request = {
      nodeId: node,
      poolId: `pool-${node}`,
      disks: [`/dev/${node}`],
      labels: {},
      clusterSizeBytes: null,
      force: false,
    };
    model.observeAll();
    model.decide("pool", (s) => decide.createPool(s, request, uuids));
  }
  await comeToRest(model);
  model.trouble = 0.02;
  model.store.meanwhile = () => {
    if (model.random.chance(0.03)) operate(model);
  };
  for (let i = 0; i < ACTIONS; i++) await act(model);
  await comeToRest(model);
  checkRest(model);
  return model;
}

const first = testSeed();
test(`${SEEDS} runs from seed ${first} come to rest as the store wants it`, async () => {
  for (let i = 0; i < SEEDS; i++) {
    const seed = (first + i) >>> 0;
    try {
      const model = await run(seed);
      expect(plan(model.state()).works).toEqual([]);
    } catch (error) {
      console.error(`replay: TRILITH_SEED=${seed} TRILITH_SEEDS=1 bun test ${PATH}`);
      throw error;
    }
  }
});
