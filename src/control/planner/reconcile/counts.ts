/**
 * How many replicas a volume has, and which: one more when there are too few, one less when there are
 * too many, another one for a replica that is lost or has to leave its place.
 *
 * What a replica holds is given up in one transaction, which puts the records of the healthy replicas
 * that remain unchanged: it is refused when the recorder has said otherwise of one meanwhile. A child
 * leaves its nexus before, and the engine refuses to let the last in-sync child go.
 */
import type { NexusRecord, ReplicaRecord, VolumeRecord } from "../../model.ts";
import { faultedChildWaitMs } from "../patience.ts";
import { removalOrder } from "../placement/replica-choice.ts";
import type { Work } from "../plan.ts";
import { childOfReplica } from "./children.ts";
import { newReplica } from "./place.ts";
import { isRefused, type Planning } from "./planning.ts";
import { planReturn } from "./returning.ts";
import { engine, givingUp, put, store, unchanged, work } from "./steps.ts";
import { isServing, type OpenTarget } from "./target.ts";

interface Situation {
  readonly p: Planning;
  readonly volume: VolumeRecord;
  /** Null: the volume is not published. */
  readonly open: OpenTarget | null;
  /** Its replicas that are not being deleted. */
  readonly owned: readonly ReplicaRecord[];
  readonly subject: string;
}

export function planCounts(
  p: Planning,
  volume: VolumeRecord,
  open: OpenTarget | null,
): Work | null {
  const owned = p.replicasOf(volume).filter(({ status }) => status !== "Deleting");
  const situation = { p, volume, open, owned, subject: `volume/${volume.uuid}` };
  const failed = unmakeable(situation);
  if (failed !== null) return failed;
  if (owned.some(({ status }) => status === "Creating")) return null;
  if (owned.length > volume.replicaCount) return excess(situation);
  if (volume.victimReplica !== null) {
    const step = store("it is not to lose a replica any more", [
      put("volumes", { ...volume, victimReplica: null }),
    ]);
    return work(situation.subject, step);
  }
  const back = planReturn(p, volume);
  if (back !== null) return back;
  if (owned.length < volume.replicaCount) return lacking(situation);
  return lost(situation) ?? leaving(situation);
}

// ------------------------------------------------------------------------------------ what is asked

/** Takes part in I/O, or could: it holds everything and answers. */
function isInUse({ p, open }: Situation, replica: ReplicaRecord): boolean {
  if (!replica.healthy || replica.status !== "Created") return false;
  const observed = p.replica(replica);
  if (observed === undefined || !isServing(observed)) return false;
  return open === null || childOfReplica(open.nexus, replica)?.state === "online";
}

/** Former nexuses that may still be at work would be hurt by what happens to their children. */
function isQuiet({ p, volume, open }: Situation): boolean {
  const used = open?.record.uuid;
  return p
    .nexusesOf(volume)
    .every((nexus: NexusRecord) => nexus.uuid === used || p.isGone(nexus.nodeId));
}

// ------------------------------------------------------------------------------------------ giving up

/** A further replica that cannot be made is given up; the next plan looks for another place. */
function unmakeable({ p, owned, subject }: Situation): Work | null {
  for (const replica of owned) {
    if (replica.status !== "Creating") continue;
    const failure = p.failures.get(`replica/${replica.uuid}`);
    const isHopeless = failure !== undefined && isRefused(failure);
    if (!isHopeless && !p.isGone(replica.nodeId)) continue;
    const cause = failure ?? {
      code: "Unavailable",
      message: `node ${replica.nodeId} cannot be reached`,
      remedy: "",
    };
    const changes = [put("replicas", { ...replica, status: "Deleting" } as const)];
    return givingUp(subject, cause, store(`it cannot be made: ${cause.message}`, changes));
  }
  return null;
}

/** Takes a replica away: out of the nexus first, then for good. */
function discard(situation: Situation, victim: ReplicaRecord, reason: string): Work | null {
  const { volume, open, owned, subject } = situation;
  if (!isQuiet(situation)) return null;
  const others = owned.filter(({ uuid }) => uuid !== victim.uuid);
  const keepers = others.filter((replica) => isInUse(situation, replica));
  if (keepers.length === 0) return null;
  if (open !== null) {
    const child = childOfReplica(open.nexus, victim);
    if (child !== undefined) {
      const input = { uuid: open.record.uuid, childUri: child.uri };
      const call = { method: "removeNexusChild", input } as const;
      return work(subject, engine(open.record.nodeId, call, reason, ["NotFound"]));
    }
  }
  const step = store(reason, [
    put("replicas", { ...victim, status: "Deleting" }),
    put("volumes", { ...volume, victimReplica: null }),
    ...keepers.map((replica) => unchanged("replicas", replica)),
  ]);
  return work(subject, step);
}

// ------------------------------------------------------------------------------------ too many, too few

function excess(situation: Situation): Work | null {
  const { volume, owned, subject } = situation;
  const victim = owned.find(({ uuid }) => uuid === volume.victimReplica);
  if (victim === undefined) {
    const [chosen] = removalOrder(situation.p.state, volume);
    if (chosen === undefined) return null;
    const step = store(`it has ${owned.length} replicas of ${volume.replicaCount}`, [
      put("volumes", { ...volume, victimReplica: chosen.uuid }),
      ...owned.map((replica) => unchanged("replicas", replica)),
    ]);
    return work(subject, step);
  }
  const others = owned.filter((replica) => replica !== victim);
  const isCovered = others.every((replica) => isInUse(situation, replica));
  // A good copy is kept until all that remain are good.
  if (victim.healthy && !isCovered) return null;
  return discard(situation, victim, "it is one more than wanted");
}

function lacking({ p, volume, owned, subject }: Situation): Work | null {
  const made = newReplica(p, volume, { staying: owned });
  if ("why" in made) {
    p.warn(
      "warning",
      subject,
      `it has ${owned.length} of ${volume.replicaCount} replicas, and there is no place for more: ${made.why}`,
      "add a pool or make room on a node that has none of its replicas",
    );
    return null;
  }
  const reason = `it has ${owned.length} of ${volume.replicaCount} replicas`;
  return work(subject, store(reason, [put("volumes", volume), ...made.changes]));
}

// ------------------------------------------------------------------------------- lost, or to be moved

/**
 * A replica that has been away for too long is given up, also when there is no place for another one
 * (scenario four of Mayastor's replica operations): its nexus is whole without it, and the volume is
 * degraded until it has as many replicas as wanted. Should it return before its pool could be cleared of
 * it, it is taken back where that is the cheaper way (`returning.ts`).
 */
function lost(situation: Situation): Work | null {
  const { p, volume, owned, subject } = situation;
  if (!volume.selfHeal) return null;
  for (const replica of owned) {
    if (replica.healthy || isThere(situation, replica)) continue;
    if (replica.faultedAtMs === null) {
      const changes = [put("replicas", { ...replica, faultedAtMs: p.nowMs })];
      return work(subject, store("it was found away", changes));
    }
    const untilMs = replica.faultedAtMs + faultedChildWaitMs(p.state, volume.uuid);
    if (p.nowMs < untilMs) {
      p.wakeAt(untilMs);
      continue;
    }
    const discarded = discard(situation, replica, "it has been away for too long");
    if (discarded !== null) return discarded;
  }
  return null;
}

/** Its engine has it: it is brought back, or being brought back. */
function isThere({ p }: Situation, replica: ReplicaRecord): boolean {
  const observed = p.replica(replica);
  return observed !== undefined && isServing(observed);
}

/** A replica that has to leave its pool gets a successor; it goes when that one holds everything. */
function leaving(situation: Situation): Work | null {
  const { p, volume, owned, subject } = situation;
  for (const replica of owned) {
    const why = whyLeaving(situation, replica);
    if (why === null) continue;
    const staying = owned.filter((other) => other !== replica);
    const made = newReplica(p, volume, { staying, notPools: new Set([replica.poolId]) });
    if ("why" in made) {
      p.warn(
        "warning",
        subject,
        `${why}, and there is no place for another: ${made.why}`,
        "add a pool",
      );
      continue;
    }
    const step = store(why, [
      put("volumes", { ...volume, victimReplica: replica.uuid }),
      ...owned.map((other) => unchanged("replicas", other)),
      ...made.changes,
    ]);
    return work(subject, step);
  }
  return null;
}

function whyLeaving({ p, open }: Situation, replica: ReplicaRecord): string | null {
  const node = p.stored.nodes.get(replica.nodeId);
  if (node !== undefined && node.drainPhase !== "none" && node.evacuate) {
    return `replica on ${node.id} is to leave: the node is evacuated`;
  }
  const child = open === null ? undefined : childOfReplica(open.nexus, replica);
  if (child?.reason === "no-space") return `pool ${replica.poolId} has no room for its replica`;
  return null;
}
