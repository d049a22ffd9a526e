/** One child of a nexus: a device, what links it to its replica, and what it is at the moment. */
import type { Bdev } from "../bdev/bdev.ts";
import { IoStatistics } from "../reactor/io-statistics.ts";
import type { ReplicaLink } from "./replica-link.ts";
import { type ChildPhase, type ChildReason, type ChildState, childState } from "./states.ts";

/** An opened device as a nexus uses it. Closing it is the nexus's business. */
export interface ChildDevice {
  readonly bdev: Bdev;
  /** Undefined for devices that are no replicas. */
  readonly link: ReplicaLink | undefined;
  /** On this node: reads prefer it. */
  readonly isLocal: boolean;
  /** Ends what is in flight at once: nothing of the device counts any more. */
  readonly abandon?: () => void;
  /** Gives the device up; a device that others use as well is only let go of. */
  close(): Promise<void>;
}

/** Opens the device behind a child URI. Errors are those of `openBdev`. */
export type OpenChild = (uri: string) => Promise<ChildDevice>;

export class Child {
  readonly uri: string;
  /** Its bit in the masks of the I/O path. */
  readonly index: number;
  readonly statistics = new IoStatistics();
  phase: ChildPhase = "opening";
  reason: ChildReason = "none";
  device: ChildDevice | null = null;
  /**
   * Whoever keeps the record of the volume believes this child healthy, so its loss must be
   * recorded before a write is acknowledged without it.
   */
  recordedHealthy: boolean;
  /** Holds every acknowledged write although it is being resynced (after a nexus crashed). */
  consistent = false;
  /** What the replica said when it was claimed, until it is up to date again: see `SyncState`. */
  mayLack = false;
  /** Generation that it has confirmed; for a child without a link the only place it is kept. */
  generation = 0;
  /** When the exchange that its read lease counts from was begun; see read-lease.ts. */
  leaseSinceNs = Number.NEGATIVE_INFINITY;
  /** Times that its lease was voided, so that a renewal from before is known as such. */
  leaseLosses = 0;
  /** Number of the renewal that is under way; 0: none. */
  renewal = 0;
  /** Set while a device that it had is being closed. */
  detaching: Promise<void> | null = null;
  /** Takes the device's listener off. */
  unlisten: (() => void) | null = null;

  constructor(uri: string, index: number, recordedHealthy: boolean) {
    this.uri = uri;
    this.index = index;
    this.recordedHealthy = recordedHealthy;
  }

  get bit(): number {
    return 1 << this.index;
  }

  get state(): ChildState {
    return childState(this.phase, this.reason);
  }

  get isLocal(): boolean {
    return this.device?.isLocal ?? false;
  }
}
