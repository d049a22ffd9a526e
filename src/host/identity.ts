/**
 * Who a host is to NVMe subsystems: its NQN, and its id (a UUID). Newer kernels refuse two NQNs with one id
 * and two ids with one NQN, whoever connects, so that an id belongs to one NQN here as well.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TrilithError } from "../errors.ts";
import type { KernelView } from "./kernel-view.ts";

/** What a machine says of itself. Null: it does not. */
export interface HostFacts {
  /** `/etc/nvme/hostnqn` and `/etc/nvme/hostid`, which nvme-cli uses too. */
  readonly nqn: string | null;
  readonly id: string | null;
  /** `/etc/machine-id`: stable for this installation. */
  readonly machineId: string | null;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const UUID_NQN = /^nqn\.2014-08\.org\.nvmexpress:uuid:([0-9a-f-]{36})$/i;

function wordIn(path: string): string | null {
  try {
    const text = readFileSync(path, "utf8").trim();
    return text === "" ? null : text;
  } catch {
    return null;
  }
}

/** Reads the facts; `root` is `/` outside of tests. */
export function readHostFacts(root = "/"): HostFacts {
  return {
    nqn: wordIn(join(root, "etc/nvme/hostnqn")),
    id: wordIn(join(root, "etc/nvme/hostid")),
    machineId: wordIn(join(root, "etc/machine-id")),
  };
}

/** A UUID that is always the same for a text (RFC 9562, version 8). */
function uuidFrom(text: string): string {
  const bytes = createHash("sha256").update(text).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return [8, 12, 16, 20, 32].map((end, i) => hex.slice([0, 8, 12, 16, 20][i], end)).join("-");
}

/** The NQN that a host uses when nobody names one. `FailedPrecondition` when it cannot be told apart. */
export function defaultHostNqn(facts: HostFacts): string {
  if (facts.nqn !== null) return facts.nqn;
  if (facts.id !== null) return `nqn.2014-08.org.nvmexpress:uuid:${facts.id}`;
  if (facts.machineId !== null) {
    return `nqn.2014-08.org.nvmexpress:uuid:${uuidFrom(`trilith host ${facts.machineId}`)}`;
  }
  throw new TrilithError(
    "FailedPrecondition",
    "this host has no identity: /etc/nvme/hostnqn and /etc/machine-id are missing",
    "run `systemd-machine-id-setup`, or write an NQN into /etc/nvme/hostnqn, or give --host-nqn",
  );
}

/**
 * The host id that goes with an NQN: that of connections which exist already, that of the machine when the
 * NQN is the machine's own, the UUID in the NQN, else one derived from machine and NQN.
 */
export function hostIdFor(hostNqn: string, facts: HostFacts, view: KernelView): string {
  const used = view.controllers.find((one) => one.hostNqn === hostNqn && UUID.test(one.hostId));
  if (used !== undefined) return used.hostId;
  const own = facts.id !== null && UUID.test(facts.id) ? facts.id : null;
  if (own !== null && hostNqn === facts.nqn) return own;
  const inNqn = UUID_NQN.exec(hostNqn)?.[1];
  if (inNqn !== undefined && UUID.test(inNqn)) return inNqn;
  if (own !== null && facts.nqn === null) return own;
  return uuidFrom(`trilith host ${facts.machineId ?? ""} ${hostNqn}`);
}
