/** Settings of the NVMe/TCP initiator. Times are milliseconds. */
import { IO_QUEUES_DEFAULT, QUEUE_DEPTH_DEFAULT } from "./limits.ts";

/** Who connects to NVMe targets: the same for all devices of an engine. */
export interface NvmeHost {
  /** Host NQN, unless a URI has its own `hostnqn`. */
  readonly nqn: string;
  /** Host id: a UUID, lower case with dashes. */
  readonly id: string;
}

/** What becomes of commands that are in flight when the connection is lost. */
export type LossPolicy =
  /** They end with TIMEOUT or UNAVAILABLE, and so do new ones until the connection is back. */
  | "fail"
  /** They wait, with new ones, and are sent again after the reconnect, in their order. */
  | "retry";

export interface NvmfSettings {
  /** Commands per I/O queue; the controller's CAP.MQES may lower it. */
  readonly queueDepth: number;
  /** I/O queues when the URI has no `queues`; the controller may grant fewer. */
  readonly queues: number;
  /** An I/O command that takes longer is aborted. */
  readonly ioTimeoutMs: number;
  /** An admin command that takes longer makes the controller be reset. */
  readonly adminTimeoutMs: number;
  /** After an Abort, the command has this long to end before the controller is reset. */
  readonly abortGraceMs: number;
  /** TCP connection and negotiation of one queue. */
  readonly connectTimeoutMs: number;
  /** Keep-alive time-out granted to us by the controller; a Keep Alive is sent twice as often. */
  readonly keepAliveMs: number;
  readonly onLoss: LossPolicy;
  /** Pause before the first and, doubling, at most before later attempts to reconnect. */
  readonly reconnectDelayMs: number;
  readonly reconnectDelayMaxMs: number;
  /** Attempts to reconnect end after this long; the device is then gone. 0: none is made. */
  readonly controllerLossMs: number;
  readonly log: (level: "info" | "warn", message: string) => void;
}

export const nvmfDefaults: NvmfSettings = {
  queueDepth: QUEUE_DEPTH_DEFAULT,
  queues: IO_QUEUES_DEFAULT,
  ioTimeoutMs: 30_000,
  adminTimeoutMs: 30_000,
  abortGraceMs: 5_000,
  connectTimeoutMs: 5_000,
  keepAliveMs: 10_000,
  onLoss: "fail",
  reconnectDelayMs: 50,
  reconnectDelayMaxMs: 5_000,
  controllerLossMs: 600_000,
  log: () => {},
};
