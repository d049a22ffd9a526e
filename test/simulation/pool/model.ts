/**
 * What a pool's user may rely on: for every sector of every replica and snapshot the contents that
 * are possible after a crash at a given moment, and which replicas exist with which size, attributes
 * and write-intent.
 */
import { SECTOR_BYTES } from "./sim-disk.ts";

const NEVER = Number.POSITIVE_INFINITY;
const WORDS = SECTOR_BYTES / 4;

/** One change of content: all its sectors carry its number, or zeroes. */
export interface Version {
  readonly number: number;
  readonly isZero: boolean;
  readonly submitted: number;
  /** When it was acknowledged, or never. */
  completed: number;
  /** When it ended, well or not. */
  ended: number;
  /** From when on it must survive. */
  durable: number;
}

/** A value that changes over time. */
export interface Event<T> {
  readonly value: T;
  readonly submitted: number;
  completed: number;
}

/** Values possible at `moment`: the last one that was acknowledged, and what was asked for since. */
export function possible<T>(events: readonly Event<T>[], moment: number): Set<T> {
  const values = new Set<T>();
  for (let i = events.length - 1; i >= 0; i--) {
    const event = events[i]!;
    if (event.submitted > moment) continue;
    values.add(event.value);
    if (event.completed <= moment) break;
  }
  return values;
}

/** A replica or snapshot. */
export class ModelDevice {
  readonly uuid: string;
  readonly isSnapshot: boolean;
  readonly thin: boolean;
  /** Tag of its family: its data and that of its snapshots and clones. */
  readonly family: number;
  readonly sizes: Event<number>[] = [];
  readonly epochs: Event<number>[] = [];
  readonly intents = new Map<number, Event<boolean>[]>();
  created: Event<boolean>;
  deleted: Event<boolean> | null = null;
  /** Versions at the start, by sector; 0: zeroes. */
  baseline: Uint32Array;
  /** Changes since, by sector, in the order of their submission. */
  readonly #history = new Map<number, Version[]>();
  readonly #recent: Version[] = [];
  /** Ranges of sectors with a request under way that nothing else may overlap. */
  readonly busy = new Set<readonly [number, number]>();

  constructor(
    uuid: string,
    isSnapshot: boolean,
    thin: boolean,
    family: number,
    sectors: number,
    submitted: number,
  ) {
    this.uuid = uuid;
    this.isSnapshot = isSnapshot;
    this.thin = thin;
    this.family = family;
    this.created = { value: true, submitted, completed: NEVER };
    this.baseline = new Uint32Array(sectors);
    this.sizes.push({ value: sectors, submitted, completed: submitted });
    this.epochs.push({ value: 0, submitted, completed: submitted });
  }

  /** Sectors now. */
  get sectors(): number {
    return this.sizes.findLast((size) => size.completed !== NEVER)!.value;
  }

  get isAlive(): boolean {
    return this.created.completed !== NEVER && this.deleted === null;
  }

  /** True when no such range overlaps [from, to). */
  isFree(from: number, to: number): boolean {
    for (const [a, b] of this.busy) if (from < b && a < to) return false;
    return true;
  }

  /** Notes a change of sectors [from, to). */
  change(version: Version, from: number, to: number): void {
    this.#recent.push(version);
    for (let sector = from; sector < to; sector++) {
      const history = this.#history.get(sector);
      if (history === undefined) this.#history.set(sector, [version]);
      else history.push(version);
    }
  }

  /** A flush submitted and completed at these moments has ended well. */
  flushed(submitted: number, completed: number): void {
    for (const version of this.#recent) {
      if (version.completed < submitted) version.durable = Math.min(version.durable, completed);
    }
  }

  /** True when the sector may hold version `number` of this device (0: zeroes) after a crash. */
  mayHold(sector: number, number: number, moment: number): boolean {
    return this.#mayHold(sector, number, moment, "durable");
  }

  /** True when a read at `moment`, without a crash, may find it. */
  mayRead(sector: number, number: number, moment: number): boolean {
    return this.#mayHold(sector, number, moment, "completed");
  }

  /** True when the sector may have held the version at some time from `since` on. */
  wasEver(sector: number, number: number, since: number): boolean {
    const history = this.#history.get(sector) ?? [];
    return history.some((version) => contentOf(version) === number && version.ended >= since);
  }

  /**
   * A version is possible unless another one that began after it had ended is settled. Versions that
   * overlap in time may end up in either order.
   */
  #mayHold(
    sector: number,
    number: number,
    moment: number,
    settled: "durable" | "completed",
  ): boolean {
    const history = this.#history.get(sector) ?? [];
    let newest = -1;
    for (const version of history) {
      if (version[settled] <= moment) newest = Math.max(newest, version.submitted);
    }
    for (const version of history) {
      const isPossible = version.submitted <= moment && version.ended >= newest;
      if (isPossible && contentOf(version) === number) return true;
    }
    return newest < 0 && (this.baseline[sector] ?? 0) === number;
  }

  intentEvents(region: number): Event<boolean>[] {
    let events = this.intents.get(region);
    if (events === undefined) {
      events = [{ value: false, submitted: 0, completed: 0 }];
      this.intents.set(region, events);
    }
    return events;
  }
}

/** The number found in the sectors of a version. */
function contentOf(version: Version): number {
  return version.isZero ? 0 : version.number;
}

/** Fills sectors [from, from + count) with the content of a version of a family. */
export function fillSectors(
  bytes: Uint8Array,
  family: number,
  version: number,
  from: number,
  count: number,
): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, (count * SECTOR_BYTES) / 4);
  for (let s = 0; s < count; s++) {
    for (let w = 0; w < WORDS; w += 4) {
      const at = s * WORDS + w;
      words[at] = family;
      words[at + 1] = from + s;
      words[at + 2] = version;
      words[at + 3] = (family ^ (from + s) ^ version ^ 0x5aa5c33c) >>> 0;
    }
  }
}

/** The version in a sector, 0 for zeroes, or -1 for anything that does not belong there. */
export function versionIn(words: Uint32Array, at: number, family: number, sector: number): number {
  const version = words[at + 2]!;
  const isZero = words[at] === 0;
  const expected = isZero
    ? [0, 0, 0, 0]
    : [family, sector, version, (family ^ sector ^ version ^ 0x5aa5c33c) >>> 0];
  for (let w = 0; w < WORDS; w++) if (words[at + w] !== expected[w & 3]) return -1;
  return isZero ? 0 : version;
}
