/**
 * What hosts say of paths that they have lost. Kept in the leader's memory and for a while only: a host
 * repeats what stays so, to whoever leads then; and one that says nothing more is not believed for long.
 */
import type { HostPath, HostPaths } from "./cluster-state.ts";
import type { PathReport } from "./control.ts";
import type { Uuid } from "./model.ts";

/** A report is believed for so long; agents repeat theirs every 10 s. */
export const REPORT_VALID_MS = 35_000;
/** Hosts that are remembered; what further ones say is dropped until earlier ones are silent. */
export const REPORTING_HOSTS_MAX = 10_000;

interface Remembered {
  readonly hostName: string;
  readonly atMs: number;
  readonly volumes: ReadonlyMap<Uuid, readonly HostPath[]>;
}

type ByVolume = ReadonlyMap<Uuid, readonly HostPaths[]>;

export class PathReports {
  readonly #hosts = new Map<string, Remembered>();
  /** Null: to be arranged when it is asked for. */
  #current: ByVolume | null = new Map();

  /** Takes a report in place of the host's former one. Returns the volumes about which something is new. */
  report(report: PathReport, nowMs: number): Uuid[] {
    const former = this.#hosts.get(report.hostNqn);
    if (former === undefined && this.#hosts.size >= REPORTING_HOSTS_MAX) return [];
    const volumes = new Map<Uuid, readonly HostPath[]>();
    for (const { uuid, paths } of report.volumes) {
      const before = former?.volumes.get(uuid) ?? [];
      volumes.set(
        uuid,
        paths.map(({ address, port, isLost }) => {
          const known = before.find((path) => path.address === address && path.port === port);
          const lostSinceMs = isLost ? (known?.lostSinceMs ?? nowMs) : null;
          return { address, port, lostSinceMs };
        }),
      );
    }
    const { hostNqn, hostName } = report;
    if (volumes.size === 0) this.#hosts.delete(hostNqn);
    else this.#hosts.set(hostNqn, { hostName, atMs: nowMs, volumes });
    this.#current = null;
    const touched = new Set([...volumes.keys(), ...(former?.volumes.keys() ?? [])]);
    const text = (paths: readonly HostPath[] | undefined): string => JSON.stringify(paths);
    return [...touched].filter(
      (uuid) => text(volumes.get(uuid)) !== text(former?.volumes.get(uuid)),
    );
  }

  /** What is to be believed now, by volume. The same map as long as nothing changes. */
  current(nowMs: number): ByVolume {
    for (const [hostNqn, { atMs }] of this.#hosts) {
      if (nowMs - atMs < REPORT_VALID_MS) continue;
      this.#hosts.delete(hostNqn);
      this.#current = null;
    }
    this.#current ??= this.#arranged();
    return this.#current;
  }

  #arranged(): ByVolume {
    const byVolume = new Map<Uuid, HostPaths[]>();
    for (const [hostNqn, { hostName, volumes }] of this.#hosts) {
      for (const [uuid, paths] of volumes) {
        const one = { hostNqn, hostName, paths };
        const list = byVolume.get(uuid);
        if (list === undefined) byVolume.set(uuid, [one]);
        else list.push(one);
      }
    }
    return byVolume;
  }
}
