/**
 * The operator of pools: has the cluster's pools be as the objects DiskPool and MayastorPool in
 * Kubernetes say, and has the objects show what the pools are (mayastor.md 7.1). Runs where the
 * leader is. Reaches the cluster through the HTTP API alone. What is to be done is decided in
 * `decide.ts`; here it is carried out.
 */
import type { RestClient } from "../../client/client.ts";
import type { Node, Pool } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { KubeClient } from "../client/client.ts";
import { isNotFound } from "../client/errors.ts";
import { keyOf, type Resource } from "../client/objects.ts";
import { pauseMs } from "../client/pause.ts";
import { type Reflector, startReflector } from "../client/reflector.ts";
import {
  diskPools,
  EXPAND_ANNOTATION,
  mayastorPools,
  POOL_FINALIZER,
  POOL_GROUP,
} from "../names.ts";
import { decide, problemOf, type Step, type Surroundings } from "./decide.ts";
import { writeEvent } from "./events.ts";
import { RESYNC_MS, SETTLE_MS, WORKERS } from "./limits.ts";
import {
  isShown,
  type PoolObject,
  type PoolProblem,
  recordedView,
  statusOf,
  viewOf,
} from "./pool-view.ts";
import { changesToTell, destroyed } from "./tell.ts";

export interface OperatorOptions {
  readonly kube: KubeClient;
  readonly rest: RestClient;
  readonly log: Log;
  readonly resyncMs?: number;
}

export interface Operator {
  /** Resources that are followed, for tests and diagnosis. */
  readonly reflectors: readonly Reflector<PoolObject>[];
  stop(): Promise<void>;
}

/** An object that could not be had as it says: when to try again. */
interface Failure {
  readonly fingerprint: string;
  readonly count: number;
  readonly untilMs: number;
  readonly problem: PoolProblem;
}

/** What a step depends on that people change: a change of it is tried at once. */
function fingerprintOf({ metadata }: PoolObject): string {
  const { uid, generation, annotations, deletionTimestamp } = metadata;
  return JSON.stringify([uid, generation, annotations, deletionTimestamp]);
}

/** The objects by the name of the pool that they declare; the oldest first. */
function byPool(objects: readonly PoolObject[]): Map<string, PoolObject[]> {
  const found = new Map<string, PoolObject[]>();
  const age = ({ metadata: { creationTimestamp, uid } }: PoolObject) =>
    `${creationTimestamp ?? ""} ${uid ?? ""}`;
  const sorted = [...objects].sort((a, b) => (age(a) < age(b) ? -1 : age(a) > age(b) ? 1 : 0));
  for (const object of sorted) {
    const { name } = object.metadata;
    found.set(name, [...(found.get(name) ?? []), object]);
  }
  return found;
}

/** Begins to operate. */
export function startOperator(options: OperatorOptions): Operator {
  const { kube, rest, log } = options;
  const resyncMs = options.resyncMs ?? RESYNC_MS;
  const failures = new Map<string, Failure>();
  let isEnding = false;
  let wake: () => void = () => {};
  let isWoken = false;
  const nudge = () => {
    isWoken = true;
    wake();
  };

  const follow = (resource: Resource, kind: string) => ({
    resource,
    kind,
    reflector: startReflector<PoolObject>({ client: kube, resource, log, changed: nudge }),
  });
  const followed = [follow(diskPools, "DiskPool"), follow(mayastorPools, "MayastorPool")];

  /** All objects, with the kind that lists leave out. */
  const objectsNow = () =>
    followed.flatMap(({ kind, resource, reflector }) =>
      [...reflector.objects.values()].map((object) => ({
        ...object,
        kind,
        apiVersion: `${POOL_GROUP}/${resource.version}`,
      })),
    );
  const resourceOf = ({ kind }: PoolObject): Resource =>
    followed.find((one) => one.kind === kind)!.resource;

  async function sleep(ms: number): Promise<void> {
    if (isEnding || isWoken) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    wake = () => {};
  }

  async function setFinalizers(
    object: PoolObject,
    change: (now: readonly string[]) => readonly string[],
  ): Promise<void> {
    await kube.update<PoolObject>(resourceOf(object), object.metadata, (now) => {
      // An object of the same name that was made since is another one.
      if (now.metadata.uid !== object.metadata.uid) return null;
      const before = now.metadata.finalizers ?? [];
      const after = change(before);
      return after.length === before.length ? null : { metadata: { finalizers: after } };
    });
  }

  async function carryOut(object: PoolObject, step: Step): Promise<void> {
    switch (step.do) {
      case "nothing":
      case "hold":
        return;
      case "add-finalizer":
        await setFinalizers(object, (now) => [...new Set([...now, POOL_FINALIZER])]);
        return;
      case "remove-finalizer":
        // An object that is gone already is told of once, by whoever let it go.
        await setFinalizers(object, (now) => now.filter((one) => one !== POOL_FINALIZER));
        if (step.destroyed) await writeEvent(kube, object, destroyed);
        return;
      case "create":
        await rest.createPool(step.node, step.id, step.body);
        return;
      case "label":
        await rest.labelPool(step.id, step.key, step.value, true);
        return;
      case "expand":
        await rest.expandPool(step.id);
        await kube.patch(resourceOf(object), object.metadata, {
          metadata: { annotations: { [EXPAND_ANNOTATION]: null } },
        });
        return;
      case "delete":
        await rest.deletePool(step.id, step.force);
        return;
    }
  }

  /** Has an object show what its pool is, and tells what changed. */
  async function show(
    object: PoolObject,
    pool: Pool | null,
    problem: PoolProblem | null,
  ): Promise<void> {
    const isDeleted = object.metadata.deletionTimestamp !== undefined;
    const wasCreated = recordedView(object).crState === "Created";
    const isCreated = wasCreated || pool?.spec?.status === "Created";
    const crState = isDeleted ? "Terminating" : isCreated ? "Created" : "Creating";
    const shownPool = problem?.code === "ForeignPoolName" ? null : pool;
    const view = viewOf(
      shownPool,
      shownPool === null && !wasCreated && !isDeleted ? "Creating" : crState,
      problem ?? stateProblem(shownPool),
    );
    const status = statusOf(object, shownPool, view, new Date().toISOString());
    if (isShown(status, object)) return;
    const { uid } = object.metadata;
    await kube.patch(resourceOf(object), object.metadata, { metadata: { uid }, status }, "status");
    for (const told of changesToTell(object, view)) await writeEvent(kube, object, told);
  }

  function failed(object: PoolObject, error: TrilithError, nowMs: number): PoolProblem {
    const key = object.metadata.uid ?? keyOf(object);
    const fingerprint = fingerprintOf(object);
    const before = failures.get(key);
    const count = before?.fingerprint === fingerprint ? before.count + 1 : 1;
    const problem = problemOf(error);
    const untilMs = nowMs + pauseMs(count + 1, Math.random());
    failures.set(key, { fingerprint, count, untilMs, problem });
    log(count === 1 ? "warn" : "debug", "a pool is not as its object says", {
      object: keyOf(object),
      error,
    });
    return problem;
  }

  /** One object; true when something was done, and its outcome is to be looked at soon. */
  async function handle(object: PoolObject, seen: Surroundings): Promise<boolean> {
    const key = object.metadata.uid ?? keyOf(object);
    const step = decide(object, seen);
    let problem = step.do === "hold" ? step.problem : null;
    let done = false;
    if (step.do !== "hold" && step.do !== "nothing") {
      const failure = failures.get(key);
      const waits =
        failure?.fingerprint === fingerprintOf(object) && performance.now() < failure.untilMs;
      if (waits) problem = failure.problem;
      else {
        try {
          await carryOut(object, step);
          failures.delete(key);
          done = true;
        } catch (error) {
          if (!(error instanceof TrilithError) || isNotFound(error)) throw error;
          problem = failed(object, error, performance.now());
        }
      }
    } else failures.delete(key);
    // The object is gone once nothing holds it any more.
    if (step.do === "remove-finalizer" && done) return true;
    // Before the outcome is looked at there is nothing new to show, except of a failure.
    if (!done) await show(object, seen.pool, problem);
    return done;
  }

  async function pass(): Promise<boolean> {
    const objects = objectsNow();
    if (objects.length === 0) return false;
    const [pools, nodes] = await Promise.all([rest.pools(), rest.nodes()]);
    const poolOfId = new Map(pools.map((pool) => [pool.id, pool]));
    const queue = [...byPool(objects).values()].map((same) => [...same]);
    let anything = false;
    const worker = async (): Promise<void> => {
      for (let same = queue.pop(); same !== undefined; same = queue.pop()) {
        const pool = poolOfId.get(same[0]!.metadata.name) ?? null;
        for (const object of same) {
          const rival = object === same[0] ? null : `${same[0]!.kind} ${keyOf(same[0]!)}`;
          anything = (await handled(object, { pool, nodes, rival })) || anything;
        }
      }
    };
    await Promise.all(Array.from({ length: WORKERS }, worker));
    return anything;
  }

  /** As `handle`; what fails there does not keep other objects waiting. */
  async function handled(
    object: PoolObject,
    seen: { pool: Pool | null; nodes: readonly Node[]; rival: string | null },
  ): Promise<boolean> {
    try {
      return await handle(object, seen);
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      // Gone meanwhile, or changed: the watch tells soon.
      if (!isNotFound(error)) {
        log("warn", "the object of a pool cannot be updated", { object: keyOf(object), error });
      }
      return false;
    }
  }

  async function run(): Promise<void> {
    let failed = 0;
    while (!isEnding) {
      isWoken = false;
      try {
        const anything = await pass();
        failed = 0;
        await sleep(anything ? SETTLE_MS : resyncMs);
      } catch (error) {
        failed++;
        log(failed === 1 ? "warn" : "debug", "pools cannot be compared with their objects", {
          error,
        });
        isWoken = false;
        await sleep(pauseMs(failed, Math.random()));
      }
    }
  }

  const ended = run();
  return {
    reflectors: followed.map(({ reflector }) => reflector),
    async stop() {
      isEnding = true;
      nudge();
      await Promise.all([ended, ...followed.map(({ reflector }) => reflector.stop())]);
    },
  };
}

/** What the engine says of a pool that is not online. */
function stateProblem(pool: Pool | null): PoolProblem | null {
  const reason = pool?.state?.reason ?? "";
  if (reason === "" || pool?.state?.status === "Online") return null;
  return { code: "Unknown", message: reason };
}
