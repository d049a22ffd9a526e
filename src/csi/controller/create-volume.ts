/**
 * CreateVolume: a volume as its class says, empty or out of a snapshot. A repeated call finds what the
 * former one made, or the part of it that is there, and ends where that would have ended.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CreateVolumeBody, Labels, Topology, Volume } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import { CREATED_BY_CSI, CREATED_BY_LABEL } from "../../kube/names.ts";
import { type VolumeClass, volumeClassOf } from "../class-parameters.ts";
import type { CreateVolumeRequest, CreateVolumeResponseSchema } from "../generated/csi_pb.js";
import type { Call } from "../grpc/service.ts";
import { VOLUME_BYTES_DEFAULT } from "../limits.ts";
import { TOPOLOGY_CSI_NODE, TOPOLOGY_CSI_NODE_VALUE, TOPOLOGY_NODE } from "../names.ts";
import { checkCapabilities } from "./capabilities.ts";
import { isId, noSuch, volumeIdOf } from "./ids.ts";
import { accessibleTopology, bytes, type ControllerParts, orNull } from "./parts.ts";

/** Label of a volume made of a smaller snapshot: the bytes that it is to grow to at once. */
export const CAPACITY_LABEL = "openebs.io/csi-capacity";

export interface CapacityRange {
  readonly requiredBytes: number;
  /** 0: no limit. */
  readonly limitBytes: number;
}

/** What a call wants, once it has been understood. */
interface Wanted {
  readonly id: string;
  readonly class: VolumeClass;
  readonly range: CapacityRange;
  /** Snapshot that it is made of; null: it is empty. */
  readonly snapshotId: string | null;
  readonly topology: Topology | null;
  readonly affinityGroup: string | null;
}

function byteCount(what: string, value: bigint): number {
  if (value >= 0n && value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new TrilithError("OutOfRange", `${what} is ${value} bytes`);
}

/** The range that is asked for. Throws `OutOfRange` when nothing lies in it. */
export function capacityRangeOf(
  range: { readonly requiredBytes: bigint; readonly limitBytes: bigint } | undefined,
): CapacityRange {
  const requiredBytes = byteCount("the required capacity", range?.requiredBytes ?? 0n);
  const limitBytes = byteCount("the limit of the capacity", range?.limitBytes ?? 0n);
  if (limitBytes > 0 && limitBytes < requiredBytes) {
    throw new TrilithError(
      "OutOfRange",
      `at least ${requiredBytes} and at most ${limitBytes} bytes are asked for`,
    );
  }
  return { requiredBytes, limitBytes };
}

/** The size of a new volume in a range. */
function sizeIn({ requiredBytes, limitBytes }: CapacityRange): number {
  if (requiredBytes > 0) return requiredBytes;
  return limitBytes > 0 ? Math.min(limitBytes, VOLUME_BYTES_DEFAULT) : VOLUME_BYTES_DEFAULT;
}

/** The snapshot that a volume is to be made of. Throws `InvalidArgument`, `NotFound`. */
function snapshotOf({ volumeContentSource: source }: CreateVolumeRequest): string | null {
  if (source === undefined) return null;
  if (source.type.case !== "snapshot") {
    throw new TrilithError(
      "InvalidArgument",
      "a volume is not cloned from a volume",
      "take a snapshot of it (VolumeSnapshot), and make the volume of that",
    );
  }
  const id = source.type.value.snapshotId;
  if (!isId(id)) throw noSuch("snapshot", id);
  return id;
}

/** Id of the group of volumes of one StatefulSet: its namespace and name (mayastor.md 3.1). */
export function affinityGroupOf(parameters: Labels): string | null {
  const namespace = parameters["csi.storage.k8s.io/pvc/namespace"];
  const claim = parameters["csi.storage.k8s.io/pvc/name"] ?? "";
  const set = /^([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)-\d+$/.exec(claim)?.[1];
  return namespace === undefined || set === undefined ? null : `${namespace}/${set}`;
}

/**
 * Where replicas are to lie. Nodes outside of Kubernetes hold volumes as well as those inside, and each
 * volume can be used from every node: so the topology that is asked for says whom to be close to, if
 * the class or the driver wants that, and never where not to be.
 */
export function placementOf(
  volumeClass: VolumeClass,
  request: Pick<CreateVolumeRequest, "accessibilityRequirements">,
  byDefault: ControllerParts["dataLocality"],
): Topology | null {
  const { requisite = [], preferred = [] } = request.accessibilityRequirements ?? {};
  const isReachable = requisite.some(
    ({ segments }) =>
      (segments[TOPOLOGY_CSI_NODE] ?? TOPOLOGY_CSI_NODE_VALUE) === TOPOLOGY_CSI_NODE_VALUE,
  );
  if (requisite.length > 0 && !isReachable) {
    throw new TrilithError(
      "ResourceExhausted",
      `no node that runs the driver (${TOPOLOGY_CSI_NODE}=${TOPOLOGY_CSI_NODE_VALUE}) is among those asked for`,
      "see the allowedTopologies of the storage class",
    );
  }
  const locality = volumeClass.dataLocality ?? byDefault;
  const node = preferred[0]?.segments[TOPOLOGY_NODE];
  const { topology } = volumeClass;
  if (locality === "none" || node === undefined || topology?.node_topology != null) return topology;
  return {
    ...topology,
    node_topology: { explicit: { allowed_nodes: [], preferred_nodes: [node] } },
  };
}

function wantedOf(parts: ControllerParts, request: CreateVolumeRequest): Wanted {
  const id = volumeIdOf(request.name);
  checkCapabilities(request.volumeCapabilities);
  const volumeClass = volumeClassOf(request.parameters, "storage class");
  return {
    id,
    class: volumeClass,
    range: capacityRangeOf(request.capacityRange),
    snapshotId: snapshotOf(request),
    topology: placementOf(volumeClass, request, parts.dataLocality),
    affinityGroup: volumeClass.affinityGroup ? affinityGroupOf(request.parameters) : null,
  };
}

/** The size that a volume has, or is about to have. */
function sizeOf({ spec }: Volume): number {
  return Math.max(spec.size, Number(spec.labels?.[CAPACITY_LABEL] ?? 0));
}

/** Throws `Conflict` unless a volume that is there is what is wanted, `Aborted` while it goes. */
function checkIsWanted(volume: Volume, wanted: Wanted): void {
  const { spec } = volume;
  if (spec.status === "Deleting" || spec.status === "Deleted") {
    throw new TrilithError("Aborted", `volume ${spec.uuid} is being deleted`, "repeat it later");
  }
  const { requiredBytes, limitBytes } = wanted.range;
  const size = sizeOf(volume);
  const source = spec.content_source?.snapshot?.snapshot ?? null;
  const differences = [
    size < requiredBytes ? `it has ${size} bytes, ${requiredBytes} are asked for` : null,
    limitBytes > 0 && size > limitBytes ? `it has ${size} bytes, the limit is ${limitBytes}` : null,
    source === wanted.snapshotId
      ? null
      : `it was made of ${source === null ? "nothing" : `snapshot ${source}`}`,
    source === null && spec.thin !== wanted.class.thin
      ? `it is ${spec.thin ? "thin" : "thick"}`
      : null,
    source === null && spec.num_replicas < wanted.class.replicas
      ? `it has ${spec.num_replicas} replicas, not ${wanted.class.replicas}`
      : null,
  ].filter((text) => text !== null);
  if (differences.length === 0) return;
  throw new TrilithError(
    "Conflict",
    `volume ${spec.uuid} is there, and differs: ${differences.join("; ")}`,
    "use another name, or delete it first",
  );
}

/** What the volume was asked for with, to ask for it once more. */
function bodyAgain({ spec }: Volume): CreateVolumeBody {
  return {
    policy: spec.policy,
    replicas: spec.num_replicas,
    size: spec.size,
    thin: spec.thin,
    ...(spec.topology == null ? {} : { topology: spec.topology }),
    labels: spec.labels ?? {},
    ...(spec.affinity_group == null ? {} : { affinity_group: spec.affinity_group }),
    ...(spec.max_snapshots == null ? {} : { max_snapshots: spec.max_snapshots }),
  };
}

function newBody(wanted: Wanted, size: number, replicas: number, labels: Labels): CreateVolumeBody {
  const { maxSnapshots, thin } = wanted.class;
  return {
    policy: { self_heal: true },
    replicas,
    size,
    thin: thin || wanted.snapshotId !== null,
    ...(wanted.topology === null ? {} : { topology: wanted.topology }),
    // So that it is known for a claim's volume when the claim is gone (mayastor.md 3.3).
    labels: { ...labels, [CREATED_BY_LABEL]: CREATED_BY_CSI },
    ...(wanted.affinityGroup === null ? {} : { affinity_group: { id: wanted.affinityGroup } }),
    ...(maxSnapshots === null ? {} : { max_snapshots: maxSnapshots }),
  };
}

/** Size, count and labels of a volume out of a snapshot, which it can only be as large as at first. */
async function cloneBody(
  { client }: ControllerParts,
  wanted: Wanted,
  snapshotId: string,
): Promise<CreateVolumeBody> {
  const { range, class: volumeClass } = wanted;
  const [snapshot] = await client.snapshots({ snapshot: snapshotId });
  if (snapshot === undefined) throw noSuch("snapshot", snapshotId);
  const { spec_size: size, num_snapshot_replicas: copies } = snapshot.definition.metadata;
  if (range.limitBytes > 0 && size > range.limitBytes) {
    throw new TrilithError(
      "OutOfRange",
      `snapshot ${snapshotId} has ${size} bytes, more than the limit of ${range.limitBytes}`,
    );
  }
  const labels =
    range.requiredBytes > size ? { [CAPACITY_LABEL]: String(range.requiredBytes) } : {};
  const replicas =
    volumeClass.restorePolicy === "bestEffort"
      ? Math.max(1, Math.min(volumeClass.replicas, copies))
      : volumeClass.replicas;
  return newBody(wanted, size, replicas, labels);
}

function put(parts: ControllerParts, wanted: Wanted, body: CreateVolumeBody): Promise<Volume> {
  const { client } = parts;
  return wanted.snapshotId === null
    ? client.createVolume(wanted.id, body)
    : client.restoreVolume(wanted.snapshotId, wanted.id, body);
}

/** Makes it, unless somebody else has made it in the same moment: then that is what is there. */
async function make(parts: ControllerParts, wanted: Wanted): Promise<Volume> {
  const body =
    wanted.snapshotId === null
      ? newBody(wanted, sizeIn(wanted.range), wanted.class.replicas, {})
      : await cloneBody(parts, wanted, wanted.snapshotId);
  try {
    return await put(parts, wanted, body);
  } catch (error) {
    if (!(error instanceof TrilithError) || error.code !== "Conflict") throw error;
    const there = await orNull(parts.client.volume(wanted.id));
    if (there === null) throw error;
    checkIsWanted(there, wanted);
    return put(parts, wanted, bodyAgain(there));
  }
}

/** A clone takes its size and number of copies in steps of their own. */
async function complete(
  { client }: ControllerParts,
  wanted: Wanted,
  made: Volume,
  call: Call,
): Promise<Volume> {
  let volume = made;
  const size = sizeOf(volume);
  if (volume.spec.size < size) {
    call.signal.throwIfAborted();
    volume = await client.resizeVolume(wanted.id, size);
  }
  if (wanted.snapshotId === null || wanted.class.restorePolicy !== "bestEffort") return volume;
  while (volume.spec.num_replicas < wanted.class.replicas) {
    call.signal.throwIfAborted();
    volume = await client.setReplicaCount(wanted.id, volume.spec.num_replicas + 1);
  }
  return volume;
}

async function ensure(parts: ControllerParts, wanted: Wanted, call: Call): Promise<Volume> {
  const there = await orNull(parts.client.volume(wanted.id));
  call.signal.throwIfAborted();
  if (there === null) return complete(parts, wanted, await make(parts, wanted), call);
  checkIsWanted(there, wanted);
  const made =
    there.spec.status === "Creating" ? await put(parts, wanted, bodyAgain(there)) : there;
  return complete(parts, wanted, made, call);
}

/** Parameters that the node service is to see; the sidecars' own are not for it. */
function contextOf(parameters: Labels): Record<string, string> {
  return Object.fromEntries(
    Object.entries(parameters).filter(([name]) => !name.startsWith("csi.storage.k8s.io/")),
  );
}

/**
 * Answers CreateVolume. Throws `InvalidArgument`, `OutOfRange`, `NotFound` (the snapshot), `Conflict` (a
 * volume of that name is there and differs), `ResourceExhausted`, and what the API answers.
 */
export async function createVolume(
  parts: ControllerParts,
  request: CreateVolumeRequest,
  call: Call,
): Promise<MessageInitShape<typeof CreateVolumeResponseSchema>> {
  const wanted = wantedOf(parts, request);
  const volume = await parts.lanes.run(wanted.id, call.signal, () => ensure(parts, wanted, call));
  const { volumeContentSource } = request;
  return {
    volume: {
      volumeId: wanted.id,
      capacityBytes: bytes(sizeOf(volume)),
      volumeContext: contextOf(request.parameters),
      ...(volumeContentSource === undefined ? {} : { contentSource: volumeContentSource }),
      accessibleTopology,
    },
  };
}
