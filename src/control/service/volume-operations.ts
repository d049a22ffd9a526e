/** Operations on volumes, their snapshots and watches. */
import { TrilithError } from "../../errors.ts";
import { hostNqnOf } from "../../names.ts";
import type { Control } from "../control.ts";
import type { FrontendNode } from "../model.ts";
import { addWatch, removeWatch } from "../planner/decide/app-nodes.ts";
import {
  destroyShutdownTargets,
  publishVolume,
  shareVolume,
  unpublishVolume,
  unshareVolume,
} from "../planner/decide/publish.ts";
import {
  moveReplica,
  resizeVolume,
  setFaultedChildWait,
  setMaxSnapshots,
  setReplicaCount,
} from "../planner/decide/scale.ts";
import { acknowledgeScrub, startScrub, stopScrub } from "../planner/decide/scrubs.ts";
import { createSnapshot, destroySnapshot, restoreVolume } from "../planner/decide/snapshots.ts";
import { createVolume, destroyVolume } from "../planner/decide/volumes.ts";
import {
  formerTargetsClosed,
  replicaCountReached,
  snapshotCreated,
  snapshotGone,
  volumeCreated,
  volumeGone,
  volumePublished,
  volumeResized,
  volumeUnpublished,
} from "./goals.ts";
import { CREATE_QUEUE_MAX, CREATE_TURN_MS } from "./limits.ts";
import type { Operations } from "./operation.ts";
import { makeTurns } from "./turns.ts";

type LifeOperations = Pick<Control, "createVolume" | "restoreVolume" | "destroyVolume">;
type TargetOperations = Pick<
  Control,
  "publishVolume" | "unpublishVolume" | "shareVolume" | "unshareVolume" | "destroyShutdownTargets"
>;
type ChangeOperations = Pick<
  Control,
  "setReplicaCount" | "setMaxSnapshots" | "setFaultedChildWait" | "resizeVolume" | "moveReplica"
>;
type BesideOperations = Pick<
  Control,
  "createSnapshot" | "destroySnapshot" | "addWatch" | "removeWatch"
>;
type ScrubOperations = Pick<Control, "startScrub" | "stopScrub" | "acknowledgeScrub">;

export function volumeLife(operations: Operations): LifeOperations {
  const turns = makeTurns({
    what: "create volumes",
    patienceMs: CREATE_TURN_MS,
    queueMax: CREATE_QUEUE_MAX,
  });
  /** So many creations at a time; what waits too long is `Aborted`, as with Mayastor. */
  const inTurn = async (create: () => Promise<unknown>): Promise<void> => {
    const end = await turns.take(operations.state().settings.maxVolumeCreates);
    try {
      await create();
    } finally {
      end();
    }
  };
  return {
    createVolume: (request, context) =>
      inTurn(() =>
        operations.carryOut({
          name: "createVolume",
          request: [request],
          context,
          decide: (state, uuids) => createVolume(state, request, uuids),
          subject: `volume/${request.uuid}`,
          goal: volumeCreated(request.uuid),
        }),
      ),
    restoreVolume: (snapshotUuid, request, context) =>
      inTurn(() =>
        operations.carryOut({
          name: "restoreVolume",
          request: [snapshotUuid, request],
          context,
          decide: (state, uuids) => restoreVolume(state, snapshotUuid, request, uuids),
          subject: `volume/${request.uuid}`,
          goal: volumeCreated(request.uuid),
        }),
      ),
    async destroyVolume(uuid, context) {
      await operations.carryOut({
        name: "destroyVolume",
        request: [uuid],
        context,
        decide: (state) => destroyVolume(state, uuid),
        subject: `volume/${uuid}`,
        goal: volumeGone(uuid),
      });
    },
  };
}

export function volumeTargets(operations: Operations): TargetOperations {
  return {
    async publishVolume(request, context) {
      await operations.carryOut({
        name: "publishVolume",
        request: [request],
        context,
        decide: (state, uuids) => publishVolume(state, request, uuids),
        subject: `volume/${request.uuid}`,
        goal: volumePublished(request.uuid, "publication"),
      });
    },
    async unpublishVolume(uuid, force, fromHost, context) {
      await operations.carryOut({
        name: "unpublishVolume",
        request: fromHost === null ? [uuid, force] : [uuid, force, fromHost],
        context,
        decide: (state) => unpublishVolume(state, uuid, force, fromHost),
        subject: `volume/${uuid}`,
        goal: volumeUnpublished(uuid, fromHost),
      });
    },
    async shareVolume(uuid, frontendHost, context) {
      const uri = await operations.carryOut({
        name: "shareVolume",
        request: [uuid, frontendHost],
        context,
        decide: (state) => shareVolume(state, uuid, frontendOf(frontendHost)),
        subject: `volume/${uuid}`,
        goal: volumePublished(uuid, "sharing"),
      });
      return uri ?? "";
    },
    async unshareVolume(uuid, context) {
      await operations.carryOut({
        name: "unshareVolume",
        request: [uuid],
        context,
        decide: (state) => unshareVolume(state, uuid),
        subject: `volume/${uuid}`,
        goal: volumePublished(uuid, "unsharing"),
      });
    },
    async destroyShutdownTargets(uuid, context) {
      await operations.carryOut({
        name: "destroyShutdownTargets",
        request: [uuid],
        context,
        decide: (state) => destroyShutdownTargets(state, uuid),
        subject: `volume/${uuid}`,
        goal: formerTargetsClosed(uuid, "removal of former targets"),
      });
    },
  };
}

/** A host by its name or NQN. */
function frontendOf(host: string | null): FrontendNode | null {
  if (host === null) return null;
  if (host === "") throw new TrilithError("InvalidArgument", "the front-end host has no name");
  return { name: host, nqn: hostNqnOf(host) };
}

export function volumeChanges(operations: Operations): ChangeOperations {
  return {
    async setReplicaCount(uuid, count, victim, context) {
      await operations.carryOut({
        name: "setReplicaCount",
        request: [uuid, count, victim],
        context,
        decide: (state, uuids) => setReplicaCount(state, uuid, count, victim, uuids),
        subject: `volume/${uuid}`,
        goal: replicaCountReached(uuid),
      });
    },
    setMaxSnapshots: (uuid, max, context) =>
      operations.commit({
        name: "setMaxSnapshots",
        request: [uuid, max],
        context,
        decide: (state) => setMaxSnapshots(state, uuid, max),
      }),
    setFaultedChildWait: (uuid, ms, context) =>
      operations.commit({
        name: "setFaultedChildWait",
        request: [uuid, ms],
        context,
        decide: (state) => setFaultedChildWait(state, uuid, ms),
      }),
    async resizeVolume(uuid, sizeBytes, context) {
      await operations.carryOut({
        name: "resizeVolume",
        request: [uuid, sizeBytes],
        context,
        decide: (state) => resizeVolume(state, uuid, sizeBytes),
        subject: `volume/${uuid}`,
        goal: volumeResized(uuid),
      });
    },
    async moveReplica(uuid, toPool, context) {
      const volume = operations.state().stored.replicas.get(uuid)?.volumeUuid;
      await operations.carryOut({
        name: "moveReplica",
        request: [uuid, toPool],
        context,
        decide: (state, uuids) => moveReplica(state, uuid, toPool, uuids),
        subject: volume == null ? null : `volume/${volume}`,
        goal: null,
      });
    },
  };
}

export function besideVolumes(operations: Operations): BesideOperations {
  return {
    async createSnapshot(volumeUuid, snapshotUuid, context) {
      await operations.carryOut({
        name: "createSnapshot",
        request: [volumeUuid, snapshotUuid],
        context,
        decide: (state, uuids) => createSnapshot(state, volumeUuid, snapshotUuid, uuids),
        subject: `snapshot/${snapshotUuid}`,
        goal: snapshotCreated(snapshotUuid),
      });
    },
    async destroySnapshot(snapshotUuid, volumeUuid, context) {
      await operations.carryOut({
        name: "destroySnapshot",
        request: [snapshotUuid, volumeUuid],
        context,
        decide: (state) => destroySnapshot(state, snapshotUuid, volumeUuid),
        subject: `snapshot/${snapshotUuid}`,
        goal: snapshotGone(snapshotUuid),
      });
    },
    addWatch: (volumeUuid, callback, context) =>
      operations.commit({
        name: "addWatch",
        request: [volumeUuid, callback],
        context,
        decide: (state) => addWatch(state, volumeUuid, callback),
      }),
    removeWatch: (volumeUuid, callback, context) =>
      operations.commit({
        name: "removeWatch",
        request: [volumeUuid, callback],
        context,
        decide: (state) => removeWatch(state, volumeUuid, callback),
      }),
  };
}

export function volumeScrubs(operations: Operations): ScrubOperations {
  return {
    async startScrub(uuid, request, context) {
      await operations.carryOut({
        name: "startScrub",
        request: [uuid, request],
        context,
        decide: (state, uuids) => startScrub(state, uuid, request, uuids),
        subject: `scrub/${uuid}`,
        goal: null,
      });
    },
    async stopScrub(uuid, context) {
      await operations.carryOut({
        name: "stopScrub",
        request: [uuid],
        context,
        decide: (state) => stopScrub(state, uuid),
        subject: `scrub/${uuid}`,
        goal: null,
      });
    },
    acknowledgeScrub: (uuid, context) =>
      operations.commit({
        name: "acknowledgeScrub",
        request: [uuid],
        context,
        decide: (state) => acknowledgeScrub(state, uuid),
      }),
  };
}
