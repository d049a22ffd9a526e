/**
 * What a nexus asks of a replica beyond reading and writing: who may use it, what it knows of its
 * own freshness, and its write-intent log. A local replica answers by call, a remote one by vendor
 * commands; devices that are no replicas have no link, and then nothing of this survives the nexus.
 */

/** What a replica keeps durably about its place in the volume. */
export interface SyncState {
  /** Raised at every publish; the highest that ever acquired the replica. */
  readonly epoch: number;
  /**
   * Raised whenever the set of in-sync replicas shrinks. Replicas behind the highest generation are
   * stale. 0: never part of a volume, or in the middle of a full rebuild.
   */
  readonly generation: number;
  /**
   * The dirty regions cover every difference to replicas whose generation is at least this. Those
   * can be brought up to date from the dirty regions alone.
   */
  readonly baseGeneration: number;
  /** The last nexus was closed in an orderly way: in-sync replicas are identical. */
  readonly clean: boolean;
  /**
   * Its machine has been started anew since it was last up to date: writes that no flush had covered may
   * be missing from it. They lie in regions that are marked dirty.
   */
  readonly mayLack: boolean;
}

/** Which parts of a replica hold data. Bit i (least significant first) is cluster i. */
export interface Allocation {
  readonly clusterBytes: number;
  readonly bitmap: Uint8Array;
}

/** Who wants to use a replica. */
export interface Claim {
  readonly epoch: number;
  readonly nexusUuid: string;
  /** Called when a newer nexus has taken the replica. */
  readonly onFenced: () => void;
  /**
   * It serves already, so no lease of a former nexus can be valid any more. Else the claim resolves
   * only when those have run out.
   */
  readonly isServing: boolean;
}

/** The read lease of a replica on another node (read-lease.ts). */
export interface LeaseLink {
  /** Resolves when the replica has granted it anew; throws `Superseded`, or what kept it from that. */
  renew(): Promise<void>;
  /** Calls the listener before the connection that it was granted over is shut down from this side. */
  onLoss(listener: () => void): void;
}

export interface ReplicaLink {
  /** Absent: the replica is on this node, and tells by `onFenced`. */
  readonly lease?: LeaseLink;
  /**
   * Takes the replica for this nexus: everybody else is shut out, and what they had in flight has
   * ended when it resolves. `Superseded` when a newer epoch holds it.
   */
  acquire(claim: Claim): Promise<void>;
  /** Gives the replica up. */
  release(): Promise<void>;
  readState(): Promise<SyncState>;
  /** Durable when it resolves. */
  writeState(state: SyncState): Promise<void>;
  /** Dirty regions as a bitmap, least significant bit first, of `REGION_BYTES` each. */
  readDirty(): Promise<Uint8Array>;
  /** Durable when it resolves. */
  markDirty(regions: readonly number[]): Promise<void>;
  /** May be lost in a crash, which only makes a resync longer. */
  clearDirty(regions: readonly number[]): Promise<void>;
  /** Undefined when the replica cannot tell (then everything counts as data). */
  readAllocation(): Promise<Allocation | undefined>;
}

/** True when bit `index` is set. Bits beyond the end are clear. */
export function bitAt(bitmap: Uint8Array, index: number): boolean {
  return ((bitmap[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}

/** Sets bit `index`. */
export function setBit(bitmap: Uint8Array, index: number): void {
  bitmap[index >> 3] = bitmap[index >> 3]! | (1 << (index & 7));
}

/** Indexes of the bits that are set, below `count`. */
export function bitsOf(bitmap: Uint8Array, count: number): number[] {
  const indexes: number[] = [];
  for (let byte = 0; byte < bitmap.byteLength; byte++) {
    if (bitmap[byte] === 0) continue;
    for (let bit = 0; bit < 8; bit++) {
      const index = byte * 8 + bit;
      if ((bitmap[byte]! & (1 << bit)) !== 0 && index < count) indexes.push(index);
    }
  }
  return indexes;
}
