/** Tells the cluster which paths to volumes this host has lost, as long as they are. */
import type { PathReportBody } from "../client/types.ts";
import { controllersOf, type KernelView } from "./kernel-view.ts";
import { REPORT_AGAIN_MS, REPORT_RETRY_MS } from "./limits.ts";
import { type DesiredVolume, leadsTo } from "./plan.ts";

type ReportedVolume = PathReportBody["volumes"][number];

/** The volumes of which a path is lost, with all their paths: those that are named, and those that are there. */
export function lostPaths(volumes: readonly DesiredVolume[], view: KernelView): ReportedVolume[] {
  return volumes.flatMap(({ wanted, paths }) => {
    const own = controllersOf(view, wanted.nqn);
    const named = paths.filter(({ isPending }) => !isPending);
    const further = own.filter((one) => !named.some((path) => leadsTo(one, path)));
    const all = [...named, ...further].map(({ address, port }) => {
      const isLive = own.some((one) => leadsTo(one, { address, port }) && one.state === "live");
      return { address, port, state: isLive ? ("live" as const) : ("lost" as const) };
    });
    if (!all.some(({ state }) => state === "lost")) return [];
    return [{ volume: wanted.volumeUuid, paths: all }];
  });
}

export interface ReporterOptions {
  readonly hostName: string;
  readonly send: (report: PathReportBody) => Promise<void>;
  readonly failed: (error: unknown) => void;
  /** Milliseconds by a clock that never jumps. Default: that of the process. */
  readonly nowMs?: () => number;
}

/** What was last told of one host NQN. */
interface Told {
  text: string;
  atMs: number;
  isSending: boolean;
}

/** Sends what is new at once, what stays so again and again, and that all is well once. */
export class PathReporter {
  readonly #options: ReporterOptions;
  readonly #told = new Map<string, Told>();

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  get #nowMs(): number {
    return this.#options.nowMs?.() ?? performance.now();
  }

  /** To be called whenever something may have changed, and every few seconds. */
  observe(volumes: readonly DesiredVolume[], view: KernelView): void {
    const nqns = new Set(volumes.map(({ wanted }) => wanted.hostNqn));
    for (const nqn of [...nqns, ...this.#told.keys()]) {
      const own = volumes.filter(({ wanted }) => wanted.hostNqn === nqn);
      this.#tell(nqn, lostPaths(own, view));
    }
  }

  #tell(host: string, volumes: readonly ReportedVolume[]): void {
    const text = JSON.stringify(volumes);
    const told = this.#told.get(host);
    if (told?.isSending === true || (told === undefined && volumes.length === 0)) return;
    const ageMs = told === undefined ? Number.POSITIVE_INFINITY : this.#nowMs - told.atMs;
    if (told?.text === text && ageMs < REPORT_AGAIN_MS) return;
    if (told?.text !== text && ageMs < REPORT_RETRY_MS) return;
    void this.#send(host, volumes, text);
  }

  async #send(host: string, volumes: readonly ReportedVolume[], text: string): Promise<void> {
    const told: Told = { text, atMs: this.#nowMs, isSending: true };
    this.#told.set(host, told);
    try {
      await this.#options.send({ host, name: this.#options.hostName, volumes });
      if (volumes.length === 0) this.#told.delete(host);
    } catch (error) {
      // It is as if nothing had been told; the next look tries again.
      told.text = "";
      this.#options.failed(error);
    } finally {
      told.isSending = false;
    }
  }
}
