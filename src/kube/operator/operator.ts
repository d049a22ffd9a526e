/**
 * The operator of pools: has the cluster's pools be as the objects DiskPool and MayastorPool in
 * Kubernetes say, and has the objects show what the pools are (mayastor.md 7.1). Runs where the
 * leader is. Reaches the cluster through the HTTP API alone. What is to be done is decided in
 * `decide.ts`; here it is carried out.
 */
import type { RestClient } from "../../client/client.ts";
import type { Pool } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { KubeClient } from "../client/client.ts";
import { isConflict, isNotFound, KubeError } from "../client/errors.ts";
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
  crStateOf,
  isShown,
  type PoolObject,
  type PoolProblem,
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

/** Sleeps that end early when something is to be looked at. */
class Alarm {
  #wake: () => void = () => {};
  #isRung = false;

  ring(): void {
    this.#isRung = true;
    this.#wake();
  }

  /** Waits until it rings, or has rung since the last time, but no longer than `ms`. */
  async wait(ms: number): Promise<void> {
    if (!this.#isRung) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, ms);
      this.#wake = resolve;
      await promise;
      clearTimeout(timer);
      this.#wake = () => {};
    }
    this.#isRung = false;
  }
}

interface Followed {
  readonly resource: Resource;
  readonly kind: string;
  readonly reflector: Reflector<PoolObject>;
}

/** The operator, from when it is made until it is stopped. */
export class PoolOperator {
  readonly #kube: KubeClient;
  readonly #rest: RestClient;
  readonly #log: Log;
  readonly #resyncMs: number;
  readonly #failures = new Map<string, Failure>();
  readonly #alarm = new Alarm();
  readonly #followed: readonly Followed[];
  readonly #ended: Promise<void>;
  #isEnding = false;

  constructor({ kube, rest, log, resyncMs = RESYNC_MS }: OperatorOptions) {
    this.#kube = kube;
    this.#rest = rest;
    this.#log = log;
    this.#resyncMs = resyncMs;
    const changed = () => this.#alarm.ring();
    const follow = (resource: Resource, kind: string): Followed => ({
      resource,
      kind,
      reflector: startReflector<PoolObject>({ client: kube, resource, log, changed }),
    });
    this.#followed = [follow(diskPools, "DiskPool"), follow(mayastorPools, "MayastorPool")];
    this.#ended = this.#run();
  }

  /** Something happened in the cluster: everything is compared soon. */
  nudge(): void {
    this.#alarm.ring();
  }

  async stop(): Promise<void> {
    this.#isEnding = true;
    this.#alarm.ring();
    await Promise.all([this.#ended, ...this.#followed.map(({ reflector }) => reflector.stop())]);
  }

  async #run(): Promise<void> {
    let failed = 0;
    while (!this.#isEnding) {
      try {
        const anything = await this.#pass();
        failed = 0;
        if (anything) this.#alarm.ring();
      } catch (error) {
        failed++;
        const level = failed === 1 ? "warn" : "debug";
        this.#log(level, "pools cannot be compared with their objects", { error });
      }
      if (this.#isEnding) return;
      await this.#alarm.wait(failed > 0 ? pauseMs(failed, Math.random()) : this.#resyncMs);
      // What comes together is looked at together.
      if (!this.#isEnding) await Bun.sleep(SETTLE_MS);
    }
  }

  /** All objects, with the kind that lists leave out. */
  #objects(): PoolObject[] {
    return this.#followed.flatMap(({ kind, resource, reflector }) =>
      [...reflector.objects.values()].map((object) => ({
        ...object,
        kind,
        apiVersion: `${POOL_GROUP}/${resource.version}`,
      })),
    );
  }

  #resourceOf({ kind }: PoolObject): Resource {
    return this.#followed.find((one) => one.kind === kind)!.resource;
  }

  /** Looks at every object once; true when something was done whose outcome is to be looked at. */
  async #pass(): Promise<boolean> {
    const objects = this.#objects();
    if (objects.length === 0) return false;
    const [pools, nodes] = await Promise.all([this.#rest.pools(), this.#rest.nodes()]);
    const poolOfId = new Map(pools.map((pool) => [pool.id, pool]));
    const queue = [...byPool(objects).values()];
    let anything = false;
    const worker = async (): Promise<void> => {
      for (let same = queue.pop(); same !== undefined; same = queue.pop()) {
        const [first] = same;
        const pool = poolOfId.get(first!.metadata.name) ?? null;
        for (const object of same) {
          if (this.#isEnding) return;
          const rival = object === first ? null : `${first!.kind} ${keyOf(first!)}`;
          if (await this.#handled(object, { pool, nodes, rival })) anything = true;
        }
      }
    };
    await Promise.all(Array.from({ length: WORKERS }, worker));
    return anything;
  }

  /** As `#handle`; what fails there does not keep other objects waiting. */
  async #handled(object: PoolObject, seen: Surroundings): Promise<boolean> {
    try {
      return await this.#handle(object, seen);
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      // Gone meanwhile, or changed: the watch tells soon.
      if (!isNotFound(error) && !isConflict(error)) {
        const fields = { object: keyOf(object), error };
        this.#log("warn", "the object of a pool cannot be updated", fields);
      }
      return false;
    }
  }

  /** One object; true when something was done, and its outcome is to be looked at soon. */
  async #handle(object: PoolObject, seen: Surroundings): Promise<boolean> {
    const step = decide(object, seen);
    if (step.do === "hold" || step.do === "nothing") {
      this.#failures.delete(failureKey(object));
      await this.#show(object, seen.pool, step.do === "hold" ? step.problem : null);
      return false;
    }
    const before = this.#failures.get(failureKey(object));
    if (before?.fingerprint === fingerprintOf(object) && performance.now() < before.untilMs) {
      await this.#show(object, seen.pool, before.problem);
      return false;
    }
    try {
      await this.#carryOut(object, step);
    } catch (error) {
      if (!(error instanceof TrilithError) || error instanceof KubeError) throw error;
      await this.#show(object, seen.pool, this.#failed(object, error));
      return false;
    }
    // Before the outcome is looked at there is nothing new to show.
    this.#failures.delete(failureKey(object));
    return true;
  }

  async #carryOut(object: PoolObject, step: Step): Promise<void> {
    switch (step.do) {
      case "nothing":
      case "hold":
        return;
      case "add-finalizer":
        await this.#setFinalizers(object, (now) => [...new Set([...now, POOL_FINALIZER])]);
        return;
      case "remove-finalizer":
        // An object that is gone already is told of once, by whoever let it go.
        await this.#setFinalizers(object, (now) => now.filter((one) => one !== POOL_FINALIZER));
        if (step.destroyed) await writeEvent(this.#kube, object, destroyed);
        return;
      case "create":
        await this.#rest.createPool(step.node, step.id, step.body);
        return;
      case "label":
        await this.#rest.labelPool(step.id, step.key, step.value, true);
        return;
      case "expand":
        await this.#rest.expandPool(step.id);
        await this.#kube.patch(this.#resourceOf(object), object.metadata, {
          metadata: { annotations: { [EXPAND_ANNOTATION]: null } },
        });
        return;
      case "delete":
        await this.#rest.deletePool(step.id, step.force);
        return;
    }
  }

  async #setFinalizers(
    object: PoolObject,
    change: (now: readonly string[]) => readonly string[],
  ): Promise<void> {
    await this.#kube.update<PoolObject>(this.#resourceOf(object), object.metadata, (now) => {
      // An object of the same name that was made since is another one.
      if (now.metadata.uid !== object.metadata.uid) return null;
      const before = now.metadata.finalizers ?? [];
      const after = change(before);
      return after.length === before.length ? null : { metadata: { finalizers: after } };
    });
  }

  #failed(object: PoolObject, error: TrilithError): PoolProblem {
    const key = failureKey(object);
    const fingerprint = fingerprintOf(object);
    const before = this.#failures.get(key);
    const count = before?.fingerprint === fingerprint ? before.count + 1 : 1;
    const untilMs = performance.now() + pauseMs(count + 1, Math.random());
    const problem = problemOf(error);
    this.#failures.set(key, { fingerprint, count, untilMs, problem });
    const level = count === 1 ? "warn" : "debug";
    this.#log(level, "a pool is not as its object says", { object: keyOf(object), error });
    return problem;
  }

  /** Has an object show what its pool is, and tells what changed. */
  async #show(object: PoolObject, pool: Pool | null, problem: PoolProblem | null): Promise<void> {
    const shown = problem?.code === "ForeignPoolName" ? null : pool;
    const view = viewOf(shown, crStateOf(object, shown), problem ?? stateProblem(shown));
    const status = statusOf(object, shown, view, new Date().toISOString());
    if (isShown(status, object)) return;
    const { uid } = object.metadata;
    const body = { metadata: { uid }, status };
    await this.#kube.patch(this.#resourceOf(object), object.metadata, body, "status");
    for (const told of changesToTell(object, view)) await writeEvent(this.#kube, object, told);
  }
}

function failureKey(object: PoolObject): string {
  return object.metadata.uid ?? keyOf(object);
}

/** What the engine says of a pool that is not online. */
function stateProblem(pool: Pool | null): PoolProblem | null {
  const reason = pool?.state?.reason ?? "";
  if (reason === "" || pool?.state?.status === "Online") return null;
  return { code: "Unknown", message: reason };
}
