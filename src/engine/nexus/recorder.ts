/**
 * Whoever keeps the durable record of which children of a volume are healthy: the control plane, or
 * a file that stands in for it. A nexus acknowledges no write that a healthy-recorded child lacks.
 */

/** A change of a volume's record. */
export interface NexusRecord {
  readonly volumeUuid: string;
  readonly nexusUuid: string;
  readonly epoch: number;
  /** All children, with what they are from now on. */
  readonly children: readonly { readonly uri: string; readonly healthy: boolean }[];
  /** The nexus has been closed in an orderly way. */
  readonly cleanShutdown: boolean;
}

export interface FaultRecorder {
  /**
   * Resolves when the record is durable. Throws `Superseded` when a newer epoch of the volume is
   * recorded, anything else when the recorder could not be reached (it is then asked again).
   */
  record(record: NexusRecord): Promise<void>;
}
