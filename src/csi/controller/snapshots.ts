/** Snapshots: taken, deleted, listed. */
import type { VolumeSnapshot } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type {
  CreateSnapshotRequest,
  DeleteSnapshotRequest,
  GetSnapshotRequest,
  ListSnapshotsRequest,
} from "../generated/csi_pb.js";
import type { Call } from "../grpc/service.ts";
import { isId, noSuch, requiredId, snapshotIdOf } from "./ids.ts";
import { pageAfter } from "./paging.ts";
import { bytes, type ControllerParts, doneOr } from "./parts.ts";

/** Parameters of a VolumeSnapshotClass. */
const knownParameters = ["quiesceFs"];

function checkParameters(parameters: Readonly<Record<string, string>>): void {
  const unknown = Object.keys(parameters).find(
    (name) => !knownParameters.includes(name) && !name.startsWith("csi.storage.k8s.io/"),
  );
  if (unknown !== undefined) {
    throw new TrilithError(
      "InvalidArgument",
      `snapshot class: parameter ${unknown} is not known`,
      `known are ${knownParameters.join(", ")}`,
    );
  }
  const { quiesceFs = "freeze" } = parameters;
  if (quiesceFs !== "freeze" && quiesceFs !== "none") {
    throw new TrilithError(
      "InvalidArgument",
      `snapshot class: parameter quiesceFs is "${quiesceFs}"; it has to be one of freeze, none`,
    );
  }
}

function snapshotOf({ definition, state }: VolumeSnapshot) {
  const { metadata, spec } = definition;
  const time = metadata.timestamp ?? state.timestamp;
  const ms = time == null ? 0 : Date.parse(time);
  return {
    snapshotId: spec.uuid,
    sourceVolumeId: spec.source_volume,
    sizeBytes: bytes(metadata.spec_size),
    creationTime: {
      seconds: BigInt(Math.floor(ms / 1_000)),
      nanos: (((ms % 1_000) + 1_000) % 1_000) * 1_000_000,
    },
    readyToUse: metadata.status === "Created" && state.ready_as_source,
  };
}

/**
 * Answers CreateSnapshot. Throws `InvalidArgument`, `NotFound` (the volume), `Conflict` (the name is another
 * volume's snapshot), `ResourceExhausted`, `FailedPrecondition` (a replica is missing).
 */
export async function createSnapshot(
  { client, lanes }: ControllerParts,
  request: CreateSnapshotRequest,
  call: Call,
) {
  const id = snapshotIdOf(request.name);
  const volumeId = requiredId("source volume id", request.sourceVolumeId);
  checkParameters(request.parameters);
  if (!isId(volumeId)) throw noSuch("volume", volumeId);
  return lanes.run(id, call.signal, () =>
    lanes.run(volumeId, call.signal, async () => ({
      snapshot: snapshotOf(await client.createSnapshot(volumeId, id)),
    })),
  );
}

/** Answers DeleteSnapshot: what is not there is deleted. Throws `InUse` while a volume is made of it. */
export async function deleteSnapshot(
  { client, lanes }: ControllerParts,
  { snapshotId }: DeleteSnapshotRequest,
  call: Call,
): Promise<Record<string, never>> {
  requiredId("snapshot id", snapshotId);
  if (!isId(snapshotId)) return {};
  await lanes.run(snapshotId, call.signal, () =>
    doneOr(["NotFound"], client.deleteSnapshot(snapshotId)),
  );
  return {};
}

/** Answers GetSnapshot. Throws `NotFound`. */
export async function getSnapshot({ client }: ControllerParts, { snapshotId }: GetSnapshotRequest) {
  requiredId("snapshot id", snapshotId);
  const [found] = isId(snapshotId) ? await client.snapshots({ snapshot: snapshotId }) : [];
  if (found === undefined) throw noSuch("snapshot", snapshotId);
  return { snapshot: snapshotOf(found) };
}

/** Answers ListSnapshots. A filter that nothing fits gives an empty list. */
export async function listSnapshots({ client }: ControllerParts, request: ListSnapshotsRequest) {
  const { snapshotId, sourceVolumeId } = request;
  const filter = [snapshotId, sourceVolumeId].filter((id) => id !== "");
  if (!filter.every(isId)) return { entries: [], nextToken: "" };
  const wanted = {
    snapshot: snapshotId === "" ? undefined : snapshotId,
    volume: sourceVolumeId === "" ? undefined : sourceVolumeId,
  };
  const { entries, nextToken } = await pageAfter(request, {
    page: (from, count) => client.snapshotsPage(wanted, from, count),
    idOf: ({ definition }: VolumeSnapshot) => definition.spec.uuid,
  });
  return { entries: entries.map((one) => ({ snapshot: snapshotOf(one) })), nextToken };
}
