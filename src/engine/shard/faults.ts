/** Faults that are injected into the devices of one reactor. */
import { TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { FaultPoint, InjectedFault } from "../fault/fault-point.ts";
import type { Fault as FaultBody, FaultRule, FaultTarget } from "../rpc/faults.ts";
import type { Bdevs } from "./bdevs.ts";
import { FAULTS_MAX } from "./limits.ts";
import type { ShardMethods } from "./methods.ts";
import type { Nexuses } from "./nexuses.ts";
import type { Replicas } from "./replicas.ts";
import type { ShardContext } from "./shard.ts";

interface Things {
  readonly bdevs: Bdevs;
  readonly replicas: Replicas;
  readonly nexuses: Nexuses;
}

interface Injected {
  readonly fault: InjectedFault;
  point: FaultPoint;
}

export class Faults {
  readonly methods: Pick<ShardMethods, "createFault" | "listFaults" | "destroyFault">;
  readonly #context: ShardContext;
  readonly #things: Things;
  readonly #faults = new Map<string, Injected>();
  readonly #points = new Map<Bdev, FaultPoint>();

  constructor(context: ShardContext, things: Things) {
    this.#context = context;
    this.#things = things;
    this.methods = {
      createFault: async (rule) => this.#create(rule),
      listFaults: async () =>
        [...this.#faults.values()].map((injected) => this.#describe(injected)),
      destroyFault: async ({ id }) => {
        const injected = this.#faults.get(id);
        if (injected === undefined) throw new TrilithError("NotFound", `there is no fault "${id}"`);
        this.#remove(id, injected);
        return undefined;
      },
    };
  }

  has(id: string): boolean {
    return this.#faults.has(id);
  }

  #deviceOf(target: FaultTarget): Bdev {
    const { bdevs, replicas, nexuses } = this.#things;
    switch (target.kind) {
      case "bdev":
        return bdevs.get(target.name);
      case "pool":
        return replicas.pools.get(target.name).bdev;
      case "replica":
        return replicas.get(target.uuid);
      case "nexus":
        return nexuses.get(target.uuid);
      case "child": {
        const child = nexuses.get(target.nexusUuid).core.find(target.uri);
        if (child?.device != null) return child.device.bdev;
        throw new TrilithError(
          child === undefined ? "NotFound" : "FailedPrecondition",
          `nexus ${target.nexusUuid} has no open child ${target.uri}`,
        );
      }
    }
  }

  #create(rule: FaultRule): FaultBody {
    const present = this.#faults.get(rule.id);
    if (present !== undefined) {
      if (Bun.deepEquals(present.fault.rule, rule)) return this.#describe(present);
      throw new TrilithError(
        "Conflict",
        `fault "${rule.id}" exists with other parameters`,
        "destroy it first, or choose another id",
      );
    }
    if (this.#faults.size >= FAULTS_MAX) {
      throw new TrilithError("ResourceExhausted", `${FAULTS_MAX} faults are injected already`);
    }
    const fault = new InjectedFault(rule);
    const injected: Injected = { fault, point: this.#inject(this.#deviceOf(rule.target), fault) };
    this.#faults.set(rule.id, injected);
    this.#context.log("warn", "fault injected", { fault: rule.id, action: rule.action.kind });
    return this.#describe(injected);
  }

  #inject(bdev: Bdev, fault: InjectedFault): FaultPoint {
    let point = this.#points.get(bdev);
    if (point === undefined) {
      point = new FaultPoint(bdev);
      this.#points.set(bdev, point);
    }
    point.add(fault);
    return point;
  }

  #withdraw({ fault, point }: Injected): void {
    point.remove(fault);
    if (point.isIdle) this.#points.delete(point.bdev);
  }

  #remove(id: string, injected: Injected): void {
    this.#faults.delete(id);
    this.#withdraw(injected);
  }

  /** A nexus has opened a child: faults of that child apply to the device that it is now. */
  childOpened(uri: string, bdev: Bdev): void {
    for (const injected of this.#faults.values()) {
      const { target } = injected.fault.rule;
      if (target.kind !== "child" || target.uri !== uri || injected.point.bdev === bdev) continue;
      this.#withdraw(injected);
      injected.point = this.#inject(bdev, injected.fault);
    }
  }

  /** A pool was opened: faults of its disk apply to the device that it is now. */
  poolOpened(name: string, bdev: Bdev): void {
    for (const injected of this.#faults.values()) {
      const { target } = injected.fault.rule;
      if (target.kind !== "pool" || target.name !== name || injected.point.bdev === bdev) continue;
      this.#withdraw(injected);
      injected.point = this.#inject(bdev, injected.fault);
    }
  }

  /** Ends all faults, so that nothing they keep is in the way of closing. */
  releaseAll(): void {
    for (const [id, injected] of [...this.#faults]) this.#remove(id, injected);
  }

  #describe({ fault }: Injected): FaultBody {
    const { rule, matched, injected, held } = fault;
    return { ...rule, matched, injected, held: held.size, reactor: this.#context.reactor.index };
  }
}
