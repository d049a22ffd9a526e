/**
 * Watches one engine: heartbeats, full reads when something happened or may have, and its events.
 * Each node has a watch of its own, so that a slow engine delays nobody else.
 */
import type { EngineClient } from "../../engine/rpc/client.ts";
import type { EngineEvent } from "../../engine/rpc/info.ts";
import { wasRefused } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { NodeId } from "../model.ts";
import {
  EVENTS_LIMIT,
  EVENTS_RETRY_MS,
  EVENTS_WAIT_MS,
  FULL_READ_MS,
  HEARTBEAT_MS,
  HEARTBEAT_TIMEOUT_MS,
} from "./limits.ts";
import { type EngineReading, readEngine } from "./read-engine.ts";
import type { Semaphore } from "./semaphore.ts";

/** What a watch tells. */
export interface WatchListener {
  /** The engine answered. */
  seen(): void;
  /** Nobody listens where the engine should be. */
  refused(): void;
  /** Everything was read, by a read that was begun `startedMs` (monotonic). */
  read(reading: EngineReading): void;
  /** `isNew`: it happened since the watch began. */
  event(event: EngineEvent, isNew: boolean): void;
}

export interface WatchOptions {
  readonly nodeId: NodeId;
  readonly client: EngineClient;
  readonly listener: WatchListener;
  readonly reads: Semaphore;
  readonly log: Log;
  /** Milliseconds by a clock that never jumps. */
  readonly monotonicMs: () => number;
}

/** Resolves after `ms`, or at once when the signal fires. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}

interface ReadRequest {
  readonly resolve: (isRead: boolean) => void;
}

export class NodeWatch {
  readonly #options: WatchOptions;
  readonly #end = new AbortController();
  #instanceUuid = "";
  #lastReadMs = Number.NEGATIVE_INFINITY;
  #isReading = false;
  #waiting: ReadRequest[] = [];

  constructor(options: WatchOptions) {
    this.#options = options;
    void this.#heartbeats();
    void this.#events();
  }

  /** Ends it; nothing is told any more. */
  stop(): void {
    this.#end.abort();
    for (const { resolve } of this.#waiting.splice(0)) resolve(false);
  }

  /** Reads everything anew. True: a read that was begun after this call is in. */
  refresh(): Promise<boolean> {
    if (this.#end.signal.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      this.#waiting.push({ resolve });
      if (!this.#isReading) void this.#readAll();
    });
  }

  async #heartbeats(): Promise<void> {
    const { client, listener, monotonicMs } = this.#options;
    const { signal } = this.#end;
    while (!signal.aborted) {
      const startedMs = monotonicMs();
      try {
        const info = await client.getInfo({}, { signal, timeoutMs: HEARTBEAT_TIMEOUT_MS });
        if (signal.aborted) return;
        listener.seen();
        const isDue = monotonicMs() - this.#lastReadMs >= FULL_READ_MS;
        if ((info.instanceUuid !== this.#instanceUuid || isDue) && !this.#isReading) {
          void this.#readAll();
        }
      } catch (error) {
        if (signal.aborted) return;
        if (wasRefused(error)) listener.refused();
        const reason = error instanceof Error ? error.message : String(error);
        this.#options.log("debug", "no heartbeat", { node: this.#options.nodeId, reason });
      }
      await pause(Math.max(10, HEARTBEAT_MS - (monotonicMs() - startedMs)), signal);
    }
  }

  /** Reads for everybody who waits; whoever comes meanwhile is read for afterwards. */
  async #readAll(): Promise<void> {
    const { client, listener, reads, monotonicMs, nodeId, log } = this.#options;
    this.#isReading = true;
    do {
      const asked = this.#waiting.splice(0);
      let isRead = false;
      try {
        const reading = await reads.run(() => readEngine(client, this.#end.signal));
        if (!this.#end.signal.aborted) {
          this.#instanceUuid = reading.info.instanceUuid;
          this.#lastReadMs = monotonicMs();
          isRead = true;
          listener.seen();
          listener.read(reading);
        }
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (!this.#end.signal.aborted) log("debug", "cannot read engine", { node: nodeId, reason });
      }
      for (const { resolve } of asked) resolve(isRead);
    } while (this.#waiting.length > 0 && !this.#end.signal.aborted);
    this.#isReading = false;
  }

  async #events(): Promise<void> {
    const { client, listener } = this.#options;
    const { signal } = this.#end;
    let since = 0;
    let instanceUuid = "";
    let isNew = false;
    while (!signal.aborted) {
      try {
        const answer = await client.listEvents(
          { since, waitMs: EVENTS_WAIT_MS, limit: EVENTS_LIMIT },
          { signal, timeoutMs: EVENTS_WAIT_MS * 2 },
        );
        if (signal.aborted) return;
        const isOther = answer.instanceUuid !== instanceUuid;
        if (isOther && instanceUuid !== "") {
          // Another process answers: its events begin anew, and all of them are news.
          instanceUuid = answer.instanceUuid;
          isNew = true;
          since = 0;
          continue;
        }
        instanceUuid = answer.instanceUuid;
        since = answer.next;
        const isCaughtUp = answer.events.length < EVENTS_LIMIT;
        for (const event of answer.events) listener.event(event, isNew);
        isNew ||= isCaughtUp;
        if (answer.events.length === 0 && answer.lost === 0) continue;
        await this.refresh();
      } catch {
        // The heartbeat says whether the engine is there; events are asked for again.
        await pause(EVENTS_RETRY_MS, signal);
      }
    }
  }
}
