/**
 * Collects volumes whose PersistentVolume is gone (mayastor.md 3.3). Runs where the leader is.
 *
 * A PersistentVolume with the policy Delete that somebody deleted, finalizers and all, leaves a volume that
 * nothing will ever ask for: it goes a minute later. What merely is no longer listed (a Kubernetes that was
 * set back to a backup lists less) stays, and so does all that has the policy Retain. Where it is
 * asked for, volumes that were made for claims and are named by none are looked for, too.
 */
import type { RestClient } from "../../client/client.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { KubeClient } from "../client/client.ts";
import { type Reflector, startReflector } from "../client/reflector.ts";
import { persistentVolumeClaims, persistentVolumes } from "../names.ts";
import { garbageOf, type Unclaimed } from "./decide.ts";
import { LOOK_MS, SWEEP_MS, UNCLAIMED_MS } from "./limits.ts";
import type { Claim, PersistentVolume } from "./objects.ts";

export interface CollectorOptions {
  readonly kube: KubeClient;
  readonly rest: RestClient;
  readonly log: Log;
  /** Look for volumes that no claim names, too. */
  readonly sweeps: boolean;
  /** For tests. */
  readonly unclaimedMs?: number;
  readonly lookMs?: number;
  readonly sweepMs?: number;
}

export class VolumeCollector {
  readonly #options: CollectorOptions;
  readonly #reflector: Reflector<PersistentVolume>;
  readonly #lost = new Set<string>();
  readonly #ending = Promise.withResolvers<void>();
  readonly #ended: Promise<void>;
  #unclaimed: Unclaimed = new Map();
  #isEnding = false;
  #sweptAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: CollectorOptions) {
    this.#options = options;
    this.#reflector = startReflector<PersistentVolume>({
      client: options.kube,
      resource: persistentVolumes,
      log: options.log,
      changed: () => {},
      deleted: (object) => this.#deleted(object),
    });
    this.#ended = this.#run();
  }

  async stop(): Promise<void> {
    this.#isEnding = true;
    this.#ending.resolve();
    await Promise.all([this.#ended, this.#reflector.stop()]);
  }

  #deleted({ spec }: PersistentVolume): void {
    if (spec.persistentVolumeReclaimPolicy !== "Delete" || spec.csi === undefined) return;
    this.#lost.add(spec.csi.volumeHandle.toLowerCase());
  }

  async #run(): Promise<void> {
    const { log, lookMs = LOOK_MS } = this.#options;
    while (!this.#isEnding) {
      const timer = Promise.withResolvers<void>();
      const handle = setTimeout(timer.resolve, lookMs);
      await Promise.race([timer.promise, this.#ending.promise]);
      clearTimeout(handle);
      if (this.#isEnding) return;
      try {
        await this.#look();
      } catch (error) {
        log("debug", "volumes without a claim cannot be looked for", { error });
      }
    }
  }

  async #look(): Promise<void> {
    const { kube, rest, log, sweeps, unclaimedMs = UNCLAIMED_MS } = this.#options;
    const { sweepMs = SWEEP_MS } = this.#options;
    const nowMs = performance.now();
    // Between two looks of a sweep it is looked again at what the first has found.
    const isSweep = sweeps && (nowMs - this.#sweptAtMs >= sweepMs || this.#unclaimed.size > 0);
    if (this.#lost.size === 0 && !isSweep) return;
    const volumes = await rest.volumes();
    // Listed after the volumes: what was made meanwhile is named, and nothing is missed.
    const pvs = await kube.list<PersistentVolume>(persistentVolumes);
    const claims = await kube.list<Claim>(persistentVolumeClaims);
    if (isSweep) this.#sweptAtMs = nowMs;
    const claimed = { persistentVolumes: pvs.items, claims: claims.items };
    const { ids, unclaimed, refusal } = garbageOf(
      volumes,
      claimed,
      this.#lost,
      isSweep,
      this.#unclaimed,
      nowMs,
      unclaimedMs,
    );
    this.#unclaimed = unclaimed;
    const present = new Set(volumes.map(({ spec }) => spec.uuid));
    for (const id of this.#lost) if (!present.has(id)) this.#lost.delete(id);
    if (refusal !== null) log("warn", "volumes without a claim are kept", { reason: refusal });
    for (const id of ids) {
      if (this.#isEnding) return;
      await this.#collect(id);
    }
  }

  async #collect(id: string): Promise<void> {
    const { rest, log } = this.#options;
    try {
      await rest.deleteVolume(id);
      log("info", "volume deleted: nothing in Kubernetes names it any more", { volume: id });
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      if (error.code !== "NotFound") {
        log("warn", "a volume without a claim cannot be deleted", { volume: id, error });
        return;
      }
    }
    this.#lost.delete(id);
  }
}
