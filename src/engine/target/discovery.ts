/**
 * The discovery subsystem of a target (Base 2.0, 3.1.2.3): which subsystems a host can
 * reach, and where. What it tells is handed in by whoever knows all reactors.
 */
import { asyncEvents } from "../../nvme/async-events.ts";
import { DISCOVERY_NQN } from "../../nvme/constants.ts";
import {
  DISCOVERY_ENTRY_BYTES,
  type DiscoveryEntry,
  DiscoveryFlag,
  DiscoverySubtype,
  encodeDiscoveryEntry,
  encodeDiscoveryHeader,
} from "../../nvme/discovery.ts";
import type { Controller } from "./controller.ts";
import { ADMIN_QUEUE_ENTRIES_MAX } from "./limits.ts";
import { SubsystemBase } from "./subsystem.ts";

/** An address that hosts can connect to. */
export interface DiscoveryPort {
  /** Numeric IPv4 or IPv6 address, as hosts reach it. */
  readonly address: string;
  readonly port: number;
}

/** A subsystem that hosts can connect to. */
export interface DiscoverySubject {
  readonly nqn: string;
  /** Hosts that are told of it; undefined: all. */
  readonly hosts: readonly string[] | undefined;
}

/** A discovery service elsewhere. */
export interface DiscoveryReferral extends DiscoveryPort {
  readonly nqn: string;
}

/** Everything that discovery tells. Every subsystem is reached through every port. */
export interface DiscoveryData {
  /** Goes up with every change; the same on all reactors. */
  readonly generation: number;
  readonly ports: readonly DiscoveryPort[];
  readonly subsystems: readonly DiscoverySubject[];
  readonly referrals?: readonly DiscoveryReferral[];
}

export interface DiscoveryOptions {
  /** NQN of this discovery subsystem beside the well-known one; undefined: it has none. */
  readonly nqn: string | undefined;
  readonly serial: string;
  readonly model: string;
}

export class DiscoverySubsystem extends SubsystemBase {
  #data: DiscoveryData = { generation: 1, ports: [], subsystems: [] };
  /** What each controller's host may know, made when it asks, for the present generation. */
  #entries = new WeakMap<Controller, readonly DiscoveryEntry[]>();

  constructor(options: DiscoveryOptions) {
    super({
      nqn: options.nqn ?? DISCOVERY_NQN,
      serial: options.serial,
      model: options.model,
      hosts: undefined,
      controllerIds: { min: 1, max: 0xffef },
    });
  }

  /** True when `nqn` names this subsystem. */
  isNamed(nqn: string): boolean {
    return nqn === DISCOVERY_NQN || nqn === this.nqn;
  }

  get data(): DiscoveryData {
    return this.#data;
  }

  /** Replaces what is told; hosts that asked for it hear of the change. */
  setData(data: DiscoveryData): void {
    this.#data = data;
    this.#entries = new WeakMap();
    for (const { events } of this.controllers.values()) events.raise(asyncEvents.discoveryChanged);
  }

  /** A part of the log page as this controller's host sees it; zeroes beyond its end. */
  logPage(controller: Controller, offset: number, length: number): Uint8Array {
    const entries = this.#entriesFor(controller);
    const bytes = new Uint8Array(length);
    const first = Math.floor(offset / DISCOVERY_ENTRY_BYTES);
    const last = Math.min(
      Math.floor((offset + length - 1) / DISCOVERY_ENTRY_BYTES),
      entries.length,
    );
    for (let i = first; i <= last; i++) {
      const part =
        i === 0
          ? encodeDiscoveryHeader(this.#data.generation, entries.length)
          : encodeDiscoveryEntry(entries[i - 1]!);
      const at = i * DISCOVERY_ENTRY_BYTES - offset;
      const from = Math.max(0, -at);
      bytes.set(part.subarray(from, Math.min(DISCOVERY_ENTRY_BYTES, length - at)), at + from);
    }
    return bytes;
  }

  /** Bytes of the log page. */
  logBytes(controller: Controller): number {
    return (1 + this.#entriesFor(controller).length) * DISCOVERY_ENTRY_BYTES;
  }

  #entriesFor(controller: Controller): readonly DiscoveryEntry[] {
    let entries = this.#entries.get(controller);
    if (entries === undefined) {
      entries = this.#listFor(controller.hostNqn);
      this.#entries.set(controller, entries);
    }
    return entries;
  }

  #listFor(hostNqn: string): DiscoveryEntry[] {
    const { ports, subsystems, referrals } = this.#data;
    const entries: DiscoveryEntry[] = [];
    const adminEntries = ADMIN_QUEUE_ENTRIES_MAX;
    ports.forEach(({ address, port }, i) => {
      const at = { address, port, portId: i + 1, adminEntries };
      entries.push({
        ...at,
        subtype: DiscoverySubtype.CURRENT,
        nqn: this.nqn,
        flags: DiscoveryFlag.DUPLICATE | DiscoveryFlag.PERSISTENT,
      });
      for (const { nqn, hosts } of subsystems) {
        if (hosts !== undefined && !hosts.includes(hostNqn)) continue;
        entries.push({ ...at, subtype: DiscoverySubtype.NVM, nqn, flags: 0 });
      }
    });
    for (const { nqn, address, port } of referrals ?? []) {
      const subtype = DiscoverySubtype.REFERRAL;
      entries.push({ subtype, nqn, address, port, portId: 0, adminEntries, flags: 0 });
    }
    return entries;
  }
}
