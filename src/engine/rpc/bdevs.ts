/** Routes and shapes of block devices: those of the machine, and those this engine has opened. */
import * as v from "valibot";
import { Bytes, Count, QueryFlag, Share, Uri } from "./fields.ts";
import { routes } from "./route.ts";
import { ShareNbd, ShareNvmf, ShareProtocol } from "./shares.ts";

/** A device that was opened by its URI and belongs to nobody else. */
export const Bdev = v.object({
  name: v.string(),
  uuid: v.string(),
  /** Canonical URI. */
  uri: v.string(),
  driver: v.string(),
  blockSize: Count,
  blockCount: Count,
  sizeBytes: Bytes,
  shares: v.array(Share),
  reactor: Count,
});
export type Bdev = v.InferOutput<typeof Bdev>;

/** A name of a device as it stands in a path: percent-encoded, as it may contain slashes. */
export const BdevName = v.pipe(v.string(), v.minLength(1), v.maxBytes(1024));

export const Filesystem = v.object({
  fstype: v.string(),
  label: v.string(),
  uuid: v.string(),
  mountpoint: v.string(),
});

export const Partition = v.object({
  /** Device that it is part of, e.g. `/dev/sda`. */
  parent: v.string(),
  number: Count,
  name: v.string(),
  /** `gpt` or `dos`; empty when it is not known. */
  scheme: v.string(),
  typeid: v.string(),
  uuid: v.string(),
});

/** A disk or partition of the machine (mayastor.md 1.2, BlockDevice). */
export const BlockDevice = v.object({
  devname: v.string(),
  devtype: v.picklist(["disk", "partition"]),
  devmajor: Count,
  devminor: Count,
  model: v.string(),
  devpath: v.string(),
  devlinks: v.array(v.string()),
  sizeBytes: Bytes,
  isRotational: v.nullable(v.boolean()),
  /** `nvme`, `scsi`, `virtio`, `usb`, ...; empty when it is not known. */
  connectionType: v.string(),
  /** Nobody uses it and nothing is written on it: it can become a pool. */
  available: v.boolean(),
  /** Why it is not available; empty when it is. */
  unavailableReason: v.string(),
  /** The pool that it holds; absent when it holds none. */
  pool: v.optional(v.object({ name: v.string(), uuid: v.string() })),
  filesystem: v.nullable(Filesystem),
  partition: v.nullable(Partition),
});
export type BlockDevice = v.InferOutput<typeof BlockDevice>;

const nameParams = v.strictObject({ name: BdevName });

export const bdevRoutes = routes({
  listBlockDevices: {
    method: "GET",
    path: "/v1/block-devices",
    summary: "Disks of this machine; only those that can become a pool unless `all`",
    query: v.strictObject({ all: v.optional(QueryFlag, false) }),
    result: v.array(BlockDevice),
  },
  createBdev: {
    method: "PUT",
    path: "/v1/bdevs",
    summary: "Opens a device by its URI, or confirms that it is open",
    body: v.strictObject({ uri: Uri }),
    result: Bdev,
  },
  listBdevs: {
    method: "GET",
    path: "/v1/bdevs",
    summary: "Devices that were opened by URI",
    result: v.array(Bdev),
  },
  getBdev: {
    method: "GET",
    path: "/v1/bdevs/:name",
    summary: "One device",
    params: nameParams,
    result: Bdev,
  },
  destroyBdev: {
    method: "DELETE",
    path: "/v1/bdevs/:name",
    summary: "Closes a device that is not shared",
    params: nameParams,
  },
  shareBdevNvmf: {
    method: "PUT",
    path: "/v1/bdevs/:name/shares/nvmf",
    summary: "Serves a device over NVMe/TCP, or changes who may connect",
    params: nameParams,
    body: ShareNvmf,
    result: Bdev,
  },
  shareBdevNbd: {
    method: "PUT",
    path: "/v1/bdevs/:name/shares/nbd",
    summary: "Serves a device over NBD",
    params: nameParams,
    body: ShareNbd,
    result: Bdev,
  },
  unshareBdev: {
    method: "DELETE",
    path: "/v1/bdevs/:name/shares/:protocol",
    summary: "Stops serving a device",
    params: v.strictObject({ name: BdevName, protocol: ShareProtocol }),
    result: Bdev,
  },
});
