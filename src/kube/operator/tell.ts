/** What happened to a pool, as Kubernetes' events tell it (mayastor.md 7.1): what differs from before. Pure. */
import type { PoolObject, PoolView } from "./pool-view.ts";
import { recordedView } from "./pool-view.ts";

export interface Told {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
}

const normal = (reason: string, message: string): Told => ({ type: "Normal", reason, message });
const warning = (reason: string, message: string): Told => ({ type: "Warning", reason, message });

/** Events for an object that showed what it shows now, and whose pool is as `view` says. */
export function changesToTell(object: PoolObject, view: PoolView): Told[] {
  const before = recordedView(object);
  const told: Told[] = [];
  if (before.crState === "Creating" && view.crState === "Created") {
    told.push(normal("Created", "Created or imported pool"));
  }
  if (view.poolStatus !== before.poolStatus && view.crState !== "Creating") {
    if (view.poolStatus === "Online") {
      told.push(normal("Online", "Pool online and ready to roll!"));
    } else if (view.crState !== "Terminating" || view.poolStatus !== "Unknown") {
      told.push(
        warning(view.poolStatus, `The pool is ${view.poolStatus}, it was ${before.poolStatus}`),
      );
    }
  }
  const { problem } = view;
  if (problem !== null && problem.message !== before.problem?.message) {
    const what = view.crState === "Creating" ? "Unable to create or import pool: " : "";
    told.push(warning(problem.code || "Failure", what + problem.message));
  }
  return told;
}

/** The event of a pool that was deleted with its object. */
export const destroyed = normal("Destroyed", "The pool has been destroyed");
