/**
 * What the agent of an application host does: it keeps a published volume connected over all of its
 * paths, and tells which block device it is. Types only: the verbs of `trilith host` and the CSI node
 * service stand on this, and need no more.
 */
import type { TrilithError } from "../errors.ts";

/** One way to a volume's subsystem: a listener of a node. */
export interface VolumePath {
  readonly address: string;
  readonly port: number;
}

/** How the kernel's controllers are made. What is left out is the kernel's own default. */
export interface ConnectOptions {
  /** Seconds for which a lost path is retried before the kernel gives it up; -1: for ever. */
  readonly ctrlLossTmoSeconds?: number;
  readonly reconnectDelaySeconds?: number;
  readonly keepAliveTmoSeconds?: number;
  /** Seconds after which I/O without a path left fails; absent: it waits. */
  readonly fastIoFailTmoSeconds?: number;
  readonly ioQueues?: number;
  readonly queueDepth?: number;
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
}

export interface ConnectRequest {
  readonly volumeUuid: string;
  /** NQN of the volume's subsystem. */
  readonly nqn: string;
  /** The paths known when the volume was published; where the API can be asked, newer ones follow. */
  readonly paths: readonly VolumePath[];
  /** As whom the host connects; one that the volume was published to. */
  readonly hostNqn: string;
  readonly options: ConnectOptions;
}

/** A path as the kernel has it. */
export interface ConnectedPath extends VolumePath {
  /** Name of the kernel's controller: `nvme3`. */
  readonly controller: string;
  /** sysfs `state`: `live`, `connecting`, `deleting`, ... */
  readonly state: string;
  readonly ana:
    | "optimized"
    | "non-optimized"
    | "inaccessible"
    | "persistent-loss"
    | "change"
    | "unknown";
}

export interface ConnectedVolume {
  readonly volumeUuid: string;
  readonly nqn: string;
  readonly paths: readonly ConnectedPath[];
  /** The block device of all paths together: `/dev/nvme0n1`. Null while the kernel shows none. */
  readonly device: string | null;
  /** Bytes; null without a device. */
  readonly sizeBytes: number | null;
}

/** The agent. Every call may be repeated: what is already so is left as it is. */
export interface HostAgent {
  /**
   * Connects what is missing of the volume's paths and waits until its block device is there and its
   * namespace has the volume's UUID. From then on the agent keeps the paths connected and follows the
   * volume to other nodes, until `disconnect`; also across a restart of the agent. Resolves as soon as
   * one path serves. Errors: `FailedPrecondition` when the kernel lacks nvme-tcp (says how to load it),
   * `Unavailable` when no path can be connected, `Aborted` by the signal.
   */
  connect(request: ConnectRequest, signal?: AbortSignal): Promise<ConnectedVolume>;
  /**
   * Disconnects every path of the volume. Not connected is no error. `FailedPrecondition` while the
   * device is mounted or held open (says by whom), unless `force`.
   */
  disconnect(volumeUuid: string, options?: { readonly force?: boolean }): Promise<void>;
  /** What is connected, whoever connected it. */
  list(): Promise<readonly ConnectedVolume[]>;
  /** Makes the kernel look at the size of the volume's namespace again; resolves with its bytes. */
  rescan(volumeUuid: string): Promise<number>;
  /** The last problem of each volume whose paths are not all live; empty when all is well. */
  problems(): ReadonlyMap<string, TrilithError>;
}
