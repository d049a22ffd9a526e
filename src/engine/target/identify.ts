/** Identify (Base 2.0, 5.17): what a controller, its subsystem and its namespace say of themselves. */
import { NSID_BROADCAST, STATUS_DNR, Status } from "../../nvme/constants.ts";
import {
  Cns,
  encodeCommandSets,
  encodeController,
  encodeDescriptors,
  encodeIndependentNamespace,
  encodeNamespace,
  encodeNamespaceList,
  encodeNvmController,
  IDENTIFY_BYTES,
  type NamespaceIdentity,
} from "../../nvme/identify.ts";
import type { Controller } from "./controller.ts";
import {
  ASYNC_EVENTS_MAX,
  ERROR_LOG_ENTRIES,
  IN_CAPSULE_BYTES,
  IO_QUEUE_ENTRIES_MAX,
  KEEP_ALIVE_GRANULARITY,
  TRANSFER_BYTES_MAX,
} from "./limits.ts";
import { ANA_GROUP_ID, type Namespace } from "./subsystem.ts";

const INVALID_FIELD = Status.INVALID_FIELD | STATUS_DNR;
const INVALID_NAMESPACE = Status.INVALID_NAMESPACE | STATUS_DNR;
const TRANSFER_PAGES_LOG2 = Math.log2(TRANSFER_BYTES_MAX / 4096);
/** CSI of the NVM command set, the only one. */
const CSI_NVM = 0;

function controllerData(c: Controller): Uint8Array {
  return encodeController({
    controllerId: c.id,
    serial: c.subsystem.serial,
    model: c.subsystem.model,
    firmware: c.target.options.firmware,
    subsystemNqn: c.subsystem.nqn,
    isDiscovery: c.discovery !== undefined,
    transferPagesLog2: TRANSFER_PAGES_LOG2,
    inCapsuleBytes: IN_CAPSULE_BYTES,
    asyncEvents: ASYNC_EVENTS_MAX,
    errorEntries: ERROR_LOG_ENTRIES,
    keepAliveGranularity: KEEP_ALIVE_GRANULARITY,
    namespaces: 1,
    queueEntries: IO_QUEUE_ENTRIES_MAX,
  });
}

function namespaceIdentity(namespace: Namespace): NamespaceIdentity {
  const { bdev, uuid, thin, reservations } = namespace;
  return {
    blockCount: bdev.blockCount,
    blockSize: bdev.blockSize,
    uuid,
    anaGroupId: ANA_GROUP_ID,
    thin,
    discardZeroes: bdev.discardZeroes,
    reservationsPersist: reservations.canPersist,
  };
}

/** The 4,096 bytes of an Identify data structure, or the NVMe status that refuses it. */
export function identify(
  c: Controller,
  nsid: number,
  dword10: number,
  dword11: number,
): Uint8Array | number {
  const cns = dword10 & 0xff;
  const csi = dword11 >>> 24;
  if (cns === Cns.CONTROLLER) return controllerData(c);
  if (c.nvm === undefined) return INVALID_FIELD;
  switch (cns) {
    case Cns.COMMAND_SET_CONTROLLER:
      return csi === CSI_NVM ? encodeNvmController(TRANSFER_PAGES_LOG2) : INVALID_FIELD;
    case Cns.COMMAND_SETS: {
      const of = dword10 >>> 16;
      return of === 0xffff || of === c.id ? encodeCommandSets() : INVALID_FIELD;
    }
    case Cns.ACTIVE_NAMESPACES:
    case Cns.COMMAND_SET_ACTIVE_NAMESPACES: {
      if (cns === Cns.COMMAND_SET_ACTIVE_NAMESPACES && csi !== CSI_NVM) return INVALID_FIELD;
      if (nsid >= NSID_BROADCAST - 1) return INVALID_NAMESPACE;
      const { namespace } = c.nvm;
      return encodeNamespaceList(namespace.active ? [namespace.id] : [], nsid);
    }
    default:
      return identifyNamespace(c.nvm.namespace, nsid, cns, csi);
  }
}

/** The data structures of one namespace; those of an inactive one are zero (5.17.2.1). */
function identifyNamespace(
  namespace: Namespace,
  nsid: number,
  cns: number,
  csi: number,
): Uint8Array | number {
  const zero = new Uint8Array(IDENTIFY_BYTES);
  const { active } = namespace;
  switch (cns) {
    case Cns.NAMESPACE:
      if (nsid !== namespace.id) return INVALID_NAMESPACE;
      return active ? encodeNamespace(namespaceIdentity(namespace)) : zero;
    case Cns.NAMESPACE_INDEPENDENT:
      if (nsid !== namespace.id) return INVALID_NAMESPACE;
      return active ? encodeIndependentNamespace(namespaceIdentity(namespace)) : zero;
    case Cns.COMMAND_SET_NAMESPACE:
      // No storage tags and no extended formats: nothing to say beyond the zeroes.
      if (csi !== CSI_NVM) return INVALID_FIELD;
      return nsid === namespace.id ? zero : INVALID_NAMESPACE;
    case Cns.NAMESPACE_DESCRIPTORS:
      if (nsid !== namespace.id || !active) return INVALID_NAMESPACE;
      return encodeDescriptors(namespace.uuid);
    default:
      return INVALID_FIELD;
  }
}
