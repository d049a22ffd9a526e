/**
 * Before an engine stops in order, the targets that it serves are moved to other nodes, as long as there
 * are any and others to take them: hosts go on over their other paths, without an error and without
 * waiting for a lost connection. Bounded in time; whatever has not left by then is reconnected to, or
 * moved by switch-over, as after any other end of the engine.
 */
import type { Api } from "../api/app.ts";
import type { StoreView } from "../control/cluster-state.ts";
import type { NodeId, Uuid } from "../control/model.ts";
import { stoppingLabel } from "../control/planner/stopping.ts";
import { type ErrorBody, fromErrorBody } from "../errors.ts";
import type { Log } from "../ops/log.ts";

/** How often is looked whether everything has left. */
const LOOK_MS = 50;

export interface VacationOptions {
  readonly nodeId: NodeId;
  readonly view: () => StoreView;
  /** The API of this member, which asks the leader where that is another one. */
  readonly api: Pick<Api, "fetch">;
  readonly log: Log;
}

interface Progress {
  readonly phase: "none" | "draining" | "drained";
  readonly remaining: readonly { readonly isStuck: boolean }[];
}

async function ask<T>(api: Pick<Api, "fetch">, method: string, path: string): Promise<T> {
  const response = await api.fetch(new Request(`http://localhost/v0${path}`, { method }));
  if (response.ok) return (await response.json()) as T;
  throw fromErrorBody((await response.json()) as ErrorBody);
}

/** Moves what the engine of this node serves elsewhere; true when nothing that can leave is left. */
export async function vacate(
  { nodeId, view, api, log }: VacationOptions,
  instanceUuid: Uuid,
  timeoutMs: number,
): Promise<boolean> {
  const serves = () => [...view().volumes.values()].some((one) => one.target?.nodeId === nodeId);
  if (!serves()) return true;
  const untilMs = performance.now() + timeoutMs;
  const node = `/nodes/${encodeURIComponent(nodeId)}`;
  log("info", "the engine is about to stop: its targets move", { node: nodeId });
  await ask(api, "PUT", `${node}/drain/${stoppingLabel(instanceUuid)}`);
  for (;;) {
    const { phase, remaining } = await ask<Progress>(api, "GET", `${node}/drain`);
    // What has nowhere to go is not waited for.
    if (phase === "drained" || remaining.every(({ isStuck }) => isStuck)) return true;
    if (performance.now() >= untilMs) return false;
    await Bun.sleep(LOOK_MS);
  }
}
