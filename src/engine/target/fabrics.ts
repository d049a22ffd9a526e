/** Fabrics commands on admin queues that are connected: controller properties (Base 2.0, 6.6, 6.7). */
import { FabricsType, Property, STATUS_DNR, Status } from "../../nvme/constants.ts";
import type { AdminQueue } from "./admin-queue.ts";
import type { Controller } from "./controller.ts";

const INVALID = Status.INVALID_FIELD | STATUS_DNR;

/** Carries out a Fabrics command and finishes its request. Dword 10 holds no type: byte 4 does. */
export function executeFabrics(queue: AdminQueue, controller: Controller, slot: number): void {
  const { requests } = queue;
  const type = requests.namespaceId(slot) & 0xff;
  const offset = requests.dword(slot, 11);
  const isWide = (requests.dword(slot, 10) & 7) === 1;
  if (type === FabricsType.PROPERTY_GET) {
    const value = property(controller, offset, isWide);
    // Without Do Not Retry: nvme-cli takes exactly this status for "no such property" and goes on.
    if (value === undefined) queue.finish(slot, Status.INVALID_FIELD, 0, 0);
    else queue.finish(slot, Status.SUCCESS, value.low, value.high);
    return;
  }
  if (type === FabricsType.PROPERTY_SET) {
    if (offset !== Property.CC || isWide) {
      queue.finish(slot, INVALID, 0, 0);
      return;
    }
    controller.configure(requests.dword(slot, 12));
    queue.finish(slot, Status.SUCCESS, 0, 0);
    return;
  }
  if (type === FabricsType.CONNECT) {
    queue.finish(slot, Status.COMMAND_SEQUENCE_ERROR | STATUS_DNR, 0, 0);
    return;
  }
  queue.finish(slot, INVALID, 0, 0);
}

function property(
  controller: Controller,
  offset: number,
  isWide: boolean,
): { low: number; high: number } | undefined {
  switch (offset) {
    case Property.CAP:
      return isWide ? controller.capabilities : undefined;
    case Property.VS:
      return isWide ? undefined : { low: controller.version, high: 0 };
    case Property.CC:
      return isWide ? undefined : { low: controller.configuration, high: 0 };
    case Property.CSTS:
      return isWide ? undefined : { low: controller.status, high: 0 };
    case Property.NSSR:
      // Subsystem reset is not supported (CAP.NSSRS 0): reads as zero, writes are refused.
      return isWide ? undefined : { low: 0, high: 0 };
    default:
      return undefined;
  }
}
