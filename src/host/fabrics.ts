/**
 * Connections as the kernel makes them: an option string written to `/dev/nvme-fabrics`, and the new
 * controller's number read back from the same descriptor (Linux, drivers/nvme/host/fabrics.c).
 */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { isIP } from "node:net";
import { TrilithError } from "../errors.ts";
import { endpointText } from "../names.ts";
import type { ConnectOptions, VolumePath } from "./host.ts";

export const FABRICS_DEVICE = "/dev/nvme-fabrics";

/** One connection to be made. */
export interface FabricsConnection extends VolumePath {
  readonly nqn: string;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly options: ConnectOptions;
}

/** What an attempt came to: a controller (`nvme3`), or the kernel's error (`ECONNREFUSED`). */
export type FabricsAnswer =
  | { readonly controller: string }
  | { readonly error: string; readonly message: string };

/** A word of an option: a comma would begin another one. */
function word(name: string, text: string): string {
  if (/^[\x21-\x2b\x2d-\x7e]{1,255}$/.test(text)) return `${name}=${text}`;
  throw new TrilithError("InvalidArgument", `${name} "${text}" cannot be given to the kernel`);
}

function number(name: string, value: number | undefined, least: number): string[] {
  if (value === undefined) return [];
  if (Number.isInteger(value) && value >= least && value < 2 ** 31) return [`${name}=${value}`];
  throw new TrilithError("InvalidArgument", `${name} is a whole number from ${least}: ${value}`);
}

/** The text that makes the kernel connect. `InvalidArgument` when a value cannot be part of it. */
export function fabricsOptions(connection: FabricsConnection): string {
  const { options, address, port } = connection;
  if (isIP(address) === 0) {
    throw new TrilithError("InvalidArgument", `"${address}" is no IP address`);
  }
  return [
    "transport=tcp",
    word("traddr", address),
    ...number("trsvcid", port, 1),
    word("nqn", connection.nqn),
    word("hostnqn", connection.hostNqn),
    word("hostid", connection.hostId),
    ...number("nr_io_queues", options.ioQueues, 1),
    ...number("queue_size", options.queueDepth, 16),
    ...number("ctrl_loss_tmo", options.ctrlLossTmoSeconds, -1),
    ...number("reconnect_delay", options.reconnectDelaySeconds, 1),
    ...number("keep_alive_tmo", options.keepAliveTmoSeconds, 1),
    ...number("fast_io_fail_tmo", options.fastIoFailTmoSeconds, -1),
    ...(options.headerDigest === true ? ["hdr_digest"] : []),
    ...(options.dataDigest === true ? ["data_digest"] : []),
  ].join(",");
}

/** The controller that the kernel's answer (`instance=3,cntlid=65`) names. */
export function parseFabricsAnswer(text: string): string {
  const instance = /(?:^|,)instance=(\d+)/.exec(text)?.[1];
  if (instance === undefined) {
    throw new TrilithError("Internal", `the kernel answered "${text.trim()}" to a connect`);
  }
  return `nvme${instance}`;
}

/**
 * Makes one connection; blocks until the kernel has made it or given up, which takes a minute when nobody
 * answers: for a process of its own (`trilith host kernel-connect`).
 */
export function connectBlocking(optionText: string, device = FABRICS_DEVICE): FabricsAnswer {
  let fd = -1;
  try {
    fd = openSync(device, "r+");
    writeSync(fd, optionText);
    const answer = Buffer.alloc(4096);
    const length = readSync(fd, answer, 0, answer.length, null);
    return { controller: parseFabricsAnswer(answer.subarray(0, length).toString()) };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return { error: code ?? "unknown", message };
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/** What the kernel's errors mean here. */
export function fabricsError(path: VolumePath, code: string, message: string): TrilithError {
  const to = `the connection to ${endpointText(path.address, path.port)}`;
  switch (code) {
    case "ECONNREFUSED":
      return new TrilithError(
        "Unavailable",
        `${to} was refused: nothing serves there`,
        "see `trilith get volumes` and whether the node runs",
      );
    case "ETIMEDOUT":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "EHOSTDOWN":
      return new TrilithError(
        "Unavailable",
        `${to} cannot be made: ${code}`,
        "see that the host reaches the node's address, and that firewalls let port 8420 in",
      );
    case "EALREADY":
      return new TrilithError("AlreadyExists", `${to} is there already`);
    case "EACCES":
    case "EPERM":
      return new TrilithError("PermissionDenied", `${to} may not be made`, "run it as root");
    case "ENOENT":
    case "ENODEV":
      return missingModule();
    case "EINVAL":
      return new TrilithError(
        "FailedPrecondition",
        `${to} was refused by the kernel, or by the volume's target (EINVAL)`,
        "see `dmesg | tail`: a host that is not admitted, or another host id with the same NQN",
      );
    default:
      return new TrilithError("Unavailable", `${to} failed: ${message}`, "see `dmesg | tail`");
  }
}

export function missingModule(): TrilithError {
  return new TrilithError(
    "FailedPrecondition",
    "the kernel cannot connect over NVMe/TCP: the module nvme-tcp is not loaded",
    "run `modprobe nvme-tcp` as root (Debian has it in linux-image, Ubuntu in linux-modules-extra)",
  );
}
