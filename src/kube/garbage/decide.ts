/**
 * Which volumes nobody can ask for any more. Pure. It errs on the side of keeping: what is published, has
 * snapshots, or is named by anything in Kubernetes, stays.
 */
import type { Volume } from "../../client/types.ts";
import { CREATED_BY_CSI, CREATED_BY_LABEL } from "../names.ts";
import type { Claim, PersistentVolume } from "./objects.ts";

/** What Kubernetes has, as it is listed now. */
export interface Claimed {
  readonly persistentVolumes: readonly PersistentVolume[];
  readonly claims: readonly Claim[];
}

/** Since when a volume is seen without a claim, by its id. */
export type Unclaimed = ReadonlyMap<string, number>;

export interface Garbage {
  /** Volumes to delete. */
  readonly ids: readonly string[];
  /** What is to be remembered for the next look. */
  readonly unclaimed: Unclaimed;
  /** Why nothing is deleted although something is without a claim; null: there is no reason. */
  readonly refusal: string | null;
}

/** Ids of volumes that something in Kubernetes names. */
export function namedIds({ persistentVolumes, claims }: Claimed): Set<string> {
  const ids = new Set<string>();
  for (const { metadata, spec } of persistentVolumes) {
    if (spec.csi !== undefined) ids.add(spec.csi.volumeHandle.toLowerCase());
    ids.add(metadata.name.replace(/^pvc-/, ""));
  }
  for (const { metadata } of claims) if (metadata.uid !== undefined) ids.add(metadata.uid);
  return ids;
}

/** A volume that may go if nobody names it. */
function isIdle({ spec, state }: Volume): boolean {
  return (
    spec.status === "Created" &&
    (spec.target ?? null) === null &&
    (state.target ?? null) === null &&
    spec.num_snapshots === 0
  );
}

/**
 * The volumes that go now. `lost`: ids whose PersistentVolume with the policy Delete was seen to be
 * deleted. `sweeps`: all that the CSI controller ever made is looked at, too.
 */
export function garbageOf(
  volumes: readonly Volume[],
  claimed: Claimed,
  lost: ReadonlySet<string>,
  sweeps: boolean,
  former: Unclaimed,
  nowMs: number,
  unclaimedMs: number,
): Garbage {
  const named = namedIds(claimed);
  const made = volumes.filter(({ spec }) => spec.labels?.[CREATED_BY_LABEL] === CREATED_BY_CSI);
  // Of a Kubernetes that knows none of the volumes, all would be garbage: it is another one.
  const knowsSome = made.some(({ spec }) => named.has(spec.uuid));
  const unclaimed = new Map<string, number>();
  const ids: string[] = [];
  let refused = 0;
  for (const volume of volumes) {
    const { uuid } = volume.spec;
    const isCandidate = lost.has(uuid) || (sweeps && made.includes(volume));
    if (!isCandidate || named.has(uuid) || !isIdle(volume)) continue;
    const sinceMs = former.get(uuid) ?? nowMs;
    unclaimed.set(uuid, sinceMs);
    if (nowMs - sinceMs < unclaimedMs) continue;
    if (lost.has(uuid) || knowsSome) ids.push(uuid);
    else refused++;
  }
  const refusal =
    refused === 0
      ? null
      : `${refused} volumes have no claim, but neither has any other: is this the Kubernetes they were made for?`;
  return { ids, unclaimed, refusal };
}
