/**
 * Whether background work disturbs hosts, judged by their latency: the mean of the requests that ended
 * lately against that of times in which the background work was quiet. Pure; time comes in.
 *
 * It begins with a quiet window and has one again every `PRESSURE_LEARN_MS`. A host that is slow of
 * itself is slow in quiet windows too, and nothing gives way for that.
 */
import {
  PRESSURE_FACTOR,
  PRESSURE_LEARN_MS,
  PRESSURE_PAUSE_MAX_MS,
  PRESSURE_PAUSE_MIN_MS,
  PRESSURE_REQUESTS_MIN,
  PRESSURE_SLACK_NS,
  PRESSURE_WINDOW_MS,
} from "./limits.ts";

export class HostPressure {
  /** Mean latency of quiet times; undefined while too few requests were seen in them. */
  #quietNs: number | undefined;
  /** End of the quiet window; null while the background work is at it. */
  #quietUntilNs: number | null = null;
  #windowNs = Number.NEGATIVE_INFINITY;
  #requests = 0;
  #latencyNs = 0;
  #pauseMs = PRESSURE_PAUSE_MIN_MS;
  #learnAtNs = Number.NEGATIVE_INFINITY;
  /** It gives way to hosts at present, rather than learning. */
  isYielding = false;

  /**
   * How many ms to stay quiet from now on, 0: none. `requests` and `latencyNs` are sums over all host
   * requests that ever ended and may fall back when children come and go.
   */
  pauseMs(nowNs: number, requests: number, latencyNs: number): number {
    if (this.#quietUntilNs !== null) {
      if (nowNs < this.#quietUntilNs) return (this.#quietUntilNs - nowNs) / 1e6;
      const quietNs = this.#mean(requests, latencyNs);
      if (quietNs !== undefined) {
        this.#quietNs = this.#quietNs === undefined ? quietNs : (this.#quietNs + quietNs) / 2;
      }
      this.#quietUntilNs = null;
      this.#learnAtNs = nowNs + PRESSURE_LEARN_MS * 1e6;
      this.isYielding = false;
      this.#begin(nowNs, requests, latencyNs);
      return 0;
    }
    if (nowNs < this.#windowNs + PRESSURE_WINDOW_MS * 1e6) return 0;
    const meanNs = this.#mean(requests, latencyNs);
    const isHigh =
      meanNs !== undefined &&
      this.#quietNs !== undefined &&
      meanNs > this.#quietNs * PRESSURE_FACTOR + PRESSURE_SLACK_NS;
    if (isHigh) {
      this.isYielding = true;
      const pauseMs = this.#pauseMs;
      this.#pauseMs = Math.min(PRESSURE_PAUSE_MAX_MS, pauseMs * 2);
      return this.#stayQuiet(pauseMs, nowNs, requests, latencyNs);
    }
    if (meanNs !== undefined) this.#pauseMs = PRESSURE_PAUSE_MIN_MS;
    if (nowNs >= this.#learnAtNs) {
      return this.#stayQuiet(PRESSURE_WINDOW_MS, nowNs, requests, latencyNs);
    }
    this.#begin(nowNs, requests, latencyNs);
    return 0;
  }

  #stayQuiet(ms: number, nowNs: number, requests: number, latencyNs: number): number {
    this.#quietUntilNs = nowNs + ms * 1e6;
    this.#begin(nowNs, requests, latencyNs);
    return ms;
  }

  #begin(nowNs: number, requests: number, latencyNs: number): void {
    this.#windowNs = nowNs;
    this.#requests = requests;
    this.#latencyNs = latencyNs;
  }

  #mean(requests: number, latencyNs: number): number | undefined {
    const ended = requests - this.#requests;
    const tookNs = latencyNs - this.#latencyNs;
    return ended < PRESSURE_REQUESTS_MIN || tookNs < 0 ? undefined : tookNs / ended;
  }
}
