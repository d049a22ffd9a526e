/** What crosses between the main thread and a reactor: the calls each serves for the other. */

import type { LogLevel } from "../../ops/log.ts";
import type { NvmeHost } from "../bdev/open.ts";
import type { NbdHandedOver } from "../nbd/server.ts";
import type { NexusRecord } from "../nexus/index.ts";
import type { Serves } from "../reactor/mailbox.ts";
import type { EngineHandlers, EngineMethod } from "../rpc/contract.ts";
import type { EngineEvent, ReactorState } from "../rpc/info.ts";
import type { DiscoveryData } from "../target/discovery.ts";
import type { HandedOver } from "../target/target.ts";

/** What a reactor is told when it starts. */
export interface ShardOptions {
  readonly index: number;
  readonly arenaBytes: number;
  readonly spinNs: number;
  /** CPU to be bound to; null: not bound. */
  readonly core: number | null;
  readonly nodeName: string;
  /** A UUID that the machine has until it is started anew; "" when it cannot be known. */
  readonly bootId: string;
  readonly host: NvmeHost;
  /** Address that share URIs carry, and the ports that were bound. */
  readonly address: string;
  readonly nvmfPort: number;
  readonly nbdPort: number | null;
  /** How long the disk of a pool that failed has to answer before it is steady. Default: the limit. */
  readonly diskSteadyMs?: number;
}

/** Kinds of things that live on one reactor and are found by a key: as they are called in errors. */
export type ObjectKind = "device" | "pool" | "replica" | "snapshot" | "nexus" | "standby" | "fault";

/** Routes of the API that the main thread carries out itself; all others go to reactors. */
export type MainRoute =
  | "getInfo"
  | "getSettings"
  | "getUsage"
  | "listEvents"
  | "listBlockDevices"
  | "listRecords"
  | "getRecord"
  | "deleteRecord";

/** Routes of the API that a reactor carries out for what it owns. */
export type ShardRoute = Exclude<EngineMethod, MainRoute>;

/** A subsystem (by NQN) or an NBD export (by name). */
export interface Served {
  readonly protocol: "nvmf" | "nbd";
  readonly name: string;
}

/** Reactor by served name, and what NVMe discovery tells. */
export interface ServedRoutes {
  readonly nvmf: ReadonlyMap<string, number>;
  readonly nbd: ReadonlyMap<string, number>;
  readonly discovery: DiscoveryData;
}

/** What only the main thread asks of a reactor. */
export interface ShardControl {
  /** Begins to accept connections on sockets that listen already. */
  listen(input: { nvmf: readonly number[]; nbd: readonly number[] }): Promise<void>;
  /** True when the reactor has the thing. */
  find(input: { kind: ObjectKind; key: string }): Promise<boolean>;
  /** How much lives here; new things go where it is least. */
  load(input: Record<string, never>): Promise<number>;
  state(input: Record<string, never>): Promise<ReactorState>;
  /** Which reactor serves each name: NQNs of subsystems, names of NBD exports. */
  setRoutes(input: ServedRoutes): Promise<void>;
  takeOverNvmf(moved: HandedOver): Promise<void>;
  takeOverNbd(moved: NbdHandedOver): Promise<void>;
  /** Ends what serves hosts, in order: listeners, connections, nexuses. */
  drainFront(input: Record<string, never>): Promise<void>;
  /** Closes pools and devices; no nexus of any reactor is left. */
  drainDevices(input: Record<string, never>): Promise<void>;
  /** Ends the loop. */
  stop(input: Record<string, never>): Promise<void>;
}

export type ShardMethods = ShardControl & Pick<EngineHandlers, ShardRoute>;

/** An event as a reactor tells it. */
export type ShardEvent = Pick<EngineEvent, "kind" | "subject" | "message" | "fields">;

/** What a reactor asks of the main thread. */
export interface MainMethods {
  ready(input: Record<string, never>): Promise<void>;
  log(input: {
    level: LogLevel;
    text: string;
    fields: Readonly<Record<string, unknown>>;
  }): Promise<void>;
  event(event: ShardEvent): Promise<void>;
  handOverNvmf(moved: HandedOver): Promise<void>;
  handOverNbd(moved: NbdHandedOver): Promise<void>;
  /**
   * Something is served here from now on, or to other hosts than before (undefined: to all): when it
   * resolves, every reactor sends hosts here. `AlreadyExists` when another reactor serves that name.
   */
  announce(served: Served & { readonly hosts: readonly string[] | undefined }): Promise<void>;
  /** Something is not served any more. */
  withdraw(served: Served): Promise<void>;
  /** Durably records which children of a volume are healthy; see `FaultRecorder`. */
  record(record: NexusRecord): Promise<void>;
}

// Both are usable by a mailbox: functions of one plain argument.
type Checked<T extends Serves<T>> = T;
export type ShardEnd = Checked<ShardMethods>;
export type MainEnd = Checked<MainMethods>;
