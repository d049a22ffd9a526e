/**
 * What is known of volumes' paths: those that a volume was connected with, until the cluster has been asked.
 * It is asked from time to time, more often while paths are in trouble, and at once upon its events.
 */
import type { TrilithError } from "../errors.ts";
import type { VolumePath } from "./host.ts";
import { PATHS_REFRESH_MS, PATHS_REFRESH_TROUBLED_MS } from "./limits.ts";
import type { DesiredVolume, KnownPath } from "./plan.ts";
import type { WantedVolume } from "./state-file.ts";

/** Who knows volumes' paths: the cluster. */
export interface PathSource {
  /** The present paths of a volume; none while it is not published. Rejects when it cannot be told. */
  ask(volumeUuid: string): Promise<readonly KnownPath[]>;
  /** Calls `changed` when paths of a volume (null: of any) may have changed, until `signal`. */
  follow(signal: AbortSignal, changed: (volumeUuid: string | null) => void): void;
}

interface Entry {
  paths: readonly KnownPath[];
  isConfirmed: boolean;
  isAsking: boolean;
  askedAtMs: number;
}

export class PathBook {
  readonly #source: PathSource | null;
  readonly #changed: () => void;
  readonly #entries = new Map<string, Entry>();
  readonly #ending = new AbortController();

  constructor(source: PathSource | null, changed: () => void) {
    this.#source = source;
    this.#changed = changed;
  }

  /** These are a volume's paths as of now, by what it was published with. */
  expect(volumeUuid: string, paths: readonly VolumePath[]): void {
    this.#entries.set(volumeUuid, {
      paths: paths.map(({ address, port }) => ({ address, port, isPending: false })),
      isConfirmed: false,
      isAsking: false,
      askedAtMs: Number.NEGATIVE_INFINITY,
    });
  }

  drop(volumeUuid: string): void {
    this.#entries.delete(volumeUuid);
  }

  #entry(wanted: WantedVolume): Entry {
    if (!this.#entries.has(wanted.volumeUuid)) this.expect(wanted.volumeUuid, wanted.paths);
    return this.#entries.get(wanted.volumeUuid)!;
  }

  desired(wanted: WantedVolume): DesiredVolume {
    const { paths, isConfirmed } = this.#entry(wanted);
    return { wanted, paths, isConfirmed };
  }

  /** Asks for what has become old. */
  refresh(volumes: readonly DesiredVolume[], troubled: ReadonlyMap<string, TrilithError>): void {
    for (const { wanted, paths } of volumes) {
      const entry = this.#entry(wanted);
      // Paths that are being made come soon, and no event tells of it.
      const isTroubled = troubled.has(wanted.volumeUuid) || paths.some((path) => path.isPending);
      const everyMs = isTroubled ? PATHS_REFRESH_TROUBLED_MS : PATHS_REFRESH_MS;
      if (entry.isAsking || performance.now() - entry.askedAtMs < everyMs) continue;
      void this.#ask(wanted.volumeUuid, entry);
    }
  }

  async #ask(volumeUuid: string, entry: Entry): Promise<void> {
    if (this.#source === null) return;
    entry.isAsking = true;
    entry.askedAtMs = performance.now();
    try {
      const paths = await this.#source.ask(volumeUuid);
      // A volume that nobody serves at present has the paths that it had, should it come back there.
      entry.isConfirmed = paths.length > 0;
      if (paths.length > 0) entry.paths = paths;
    } catch {
      // The paths that are known stay; what the cluster last said may be old by now.
      entry.isConfirmed = false;
    } finally {
      entry.isAsking = false;
    }
    if (!this.#ending.signal.aborted) this.#changed();
  }

  /** Hears of changes from the cluster until the end. */
  follow(): void {
    this.#source?.follow(this.#ending.signal, (volumeUuid) => {
      for (const [uuid, entry] of this.#entries) {
        if (volumeUuid !== null && volumeUuid !== uuid) continue;
        entry.askedAtMs = Number.NEGATIVE_INFINITY;
        this.#changed();
      }
    });
  }

  close(): void {
    this.#ending.abort();
  }
}
