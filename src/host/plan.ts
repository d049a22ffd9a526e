/**
 * What a host has to do so that it is connected as it is to be: wanted volumes and their paths against the
 * controllers that the kernel has. Pure.
 *
 * A controller that has lost its connection is left to the kernel, which tries again by itself until
 * `ctrl_loss_tmo`; only what the kernel has given up, or never had, is connected anew. Nothing is taken away
 * that may be the last way to the data.
 */
import { endpointText } from "../names.ts";
import type { VolumePath } from "./host.ts";
import { controllersOf, isServing, type KernelController, type KernelView } from "./kernel-view.ts";
import { SURPLUS_HOLD_MS } from "./limits.ts";
import type { WantedVolume } from "./state-file.ts";

/** A path as the cluster names it. */
export interface KnownPath extends VolumePath {
  /** Nothing listens there yet, or at present: a connection that is there stays, none is made. */
  readonly isPending: boolean;
}

/** What is wanted of one volume, by state file and cluster. */
export interface DesiredVolume {
  readonly wanted: WantedVolume;
  readonly paths: readonly KnownPath[];
  /** The cluster has named them; else they are what was known once, and may be old. */
  readonly isConfirmed: boolean;
}

/** Attempts to connect a path since it was last connected. */
export interface Attempt {
  readonly failures: number;
  readonly isRunning: boolean;
  /** Not before. */
  readonly nextMs: number;
}

export interface HostObservation {
  readonly nowMs: number;
  readonly volumes: readonly DesiredVolume[];
  readonly view: KernelView;
  /** By `attemptKey`. */
  readonly attempts: ReadonlyMap<string, Attempt>;
  /** Since when a controller leads to what is no path, by its name; from the plan before. */
  readonly surplusSinceMs: ReadonlyMap<string, number>;
}

export interface HostPlan {
  readonly connects: readonly { readonly wanted: WantedVolume; readonly path: VolumePath }[];
  readonly removals: readonly { readonly controller: string; readonly reason: string }[];
  readonly surplusSinceMs: ReadonlyMap<string, number>;
  /** When to plan again although nothing has changed; null: not needed. */
  readonly wakeAtMs: number | null;
}

export function attemptKey(volumeUuid: string, path: VolumePath): string {
  return `${volumeUuid} ${endpointText(path.address, path.port)}`;
}

export function leadsTo(controller: KernelController, path: VolumePath): boolean {
  return controller.address === path.address && controller.port === path.port;
}

/** It is on its way out: the kernel connects anew beside it. */
export function isEnding(controller: KernelController): boolean {
  return controller.state.startsWith("deleting") || controller.state === "dead";
}

/** What is to be done now. */
export function planHost(seen: HostObservation): HostPlan {
  const connects: { wanted: WantedVolume; path: VolumePath }[] = [];
  const removals: { controller: string; reason: string }[] = [];
  const surplusSinceMs = new Map<string, number>();
  let wakeAtMs: number | null = null;
  const wakeAt = (ms: number): void => {
    if (wakeAtMs === null || ms < wakeAtMs) wakeAtMs = ms;
  };
  for (const { wanted, paths, isConfirmed } of seen.volumes) {
    const own = controllersOf(seen.view, wanted.nqn);
    for (const path of paths) {
      if (path.isPending || own.some((one) => leadsTo(one, path) && !isEnding(one))) continue;
      const attempt = seen.attempts.get(attemptKey(wanted.volumeUuid, path));
      if (attempt?.isRunning === true) continue;
      if (attempt !== undefined && attempt.nextMs > seen.nowMs) wakeAt(attempt.nextMs);
      else connects.push({ wanted, path: { address: path.address, port: path.port } });
    }
    const isNamed = (one: KernelController) => paths.some((path) => leadsTo(one, path));
    const hasOther = own.some((one) => isNamed(one) && isServing(one, wanted.volumeUuid));
    if (!isConfirmed || !hasOther) continue;
    for (const one of own) {
      // What somebody else has connected under another name is his.
      if (isNamed(one) || isEnding(one) || one.hostNqn !== wanted.hostNqn) continue;
      const sinceMs = seen.surplusSinceMs.get(one.name) ?? seen.nowMs;
      surplusSinceMs.set(one.name, sinceMs);
      const dueMs = sinceMs + SURPLUS_HOLD_MS;
      if (seen.nowMs < dueMs) wakeAt(dueMs);
      else {
        const reason = `${endpointText(one.address, one.port)} is no path of it any more`;
        removals.push({ controller: one.name, reason });
      }
    }
  }
  return { connects, removals, surplusSinceMs, wakeAtMs };
}

/** Why not all is well with a volume, in words; null when it is. */
export function troubleOf(volume: DesiredVolume, view: KernelView): string | null {
  const { wanted, paths } = volume;
  const own = controllersOf(view, wanted.nqn);
  if (own.length === 0) return "it is not connected over any path";
  const missing = paths.filter((path) => !path.isPending && !own.some((one) => leadsTo(one, path)));
  const lost = own.filter(({ state }) => state !== "live");
  const parts = [
    ...lost.map((one) => `${endpointText(one.address, one.port)} is ${one.state}`),
    ...missing.map((path) => `${endpointText(path.address, path.port)} is not connected`),
  ];
  if (!own.some((one) => isServing(one, wanted.volumeUuid))) parts.unshift("no path serves");
  return parts.length === 0 ? null : parts.join("; ");
}
