/**
 * Keeps a copy of all objects of a resource up to date: lists, then watches from where the list
 * ended; a watch that ends goes on where it was, one whose history is no longer kept (410) lists
 * anew. What changed while nobody watched is found by comparing with the new list.
 */
import { type Log, logWith } from "../../ops/log.ts";
import type { KubeClient } from "./client.ts";
import { isExpired, isNotFound } from "./errors.ts";
import { WATCH_SILENCE_MS } from "./limits.ts";
import { type KubeObject, keyOf, type Resource } from "./objects.ts";
import { pauseMs } from "./pause.ts";
import { lineSplitter, watchEventOf } from "./watch-stream.ts";

export interface ReflectorOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly resource: Resource;
  readonly log: Log;
  /** Something is there, different, or gone (`object` undefined; `last` as it was seen last). */
  readonly changed: (key: string, object: T | undefined, last: T | undefined) => void;
  /** The API server has told that it was deleted; not called for what merely is no longer listed. */
  readonly deleted?: (object: T) => void;
  readonly random?: () => number;
}

export interface Reflector<T extends KubeObject> {
  /** By `namespace/name`. */
  readonly objects: ReadonlyMap<string, T>;
  /** A list has been read; never true while the API server has no such resource. */
  readonly isSynced: boolean;
  /** Lists and watches begun, for tests and diagnosis. */
  readonly counts: { readonly lists: number; readonly watches: number };
  stop(): Promise<void>;
}

/** Begins to follow a resource. */
export function startReflector<T extends KubeObject>(options: ReflectorOptions<T>): Reflector<T> {
  const { client, resource } = options;
  const log = logWith(options.log, { resource: resource.plural });
  const random = options.random ?? Math.random;
  const objects = new Map<string, T>();
  const ending = new AbortController();
  const counts = { lists: 0, watches: 0 };
  let isSynced = false;
  /** Where to go on; empty: list. */
  let version = "";

  function take(object: T): void {
    const key = keyOf(object);
    const last = objects.get(key);
    objects.set(key, object);
    if (last?.metadata.resourceVersion !== object.metadata.resourceVersion) {
      options.changed(key, object, last);
    }
  }

  function drop(key: string, last: T | undefined): void {
    if (objects.delete(key)) options.changed(key, undefined, last);
  }

  async function relist(): Promise<void> {
    counts.lists++;
    const listed = await client.list<T>(resource);
    const present = new Set(listed.items.map(keyOf));
    for (const [key, last] of [...objects]) if (!present.has(key)) drop(key, last);
    for (const object of listed.items) take(object);
    version = listed.resourceVersion;
    isSynced = true;
  }

  function takeLine(line: string): void {
    const event = watchEventOf<T>(line);
    if (event === null) return;
    if (event.type === "bookmark") {
      version = event.resourceVersion;
      return;
    }
    if (event.type === "deleted") {
      drop(keyOf(event.object), event.object);
      options.deleted?.(event.object);
    } else take(event.object);
    version = event.object.metadata.resourceVersion ?? version;
  }

  /** Watches until the stream ends; true when it brought anything. */
  async function watchOnce(): Promise<boolean> {
    counts.watches++;
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), WATCH_SILENCE_MS);
    let lines = 0;
    try {
      const signal = AbortSignal.any([ending.signal, silence.signal]);
      const body = await client.watch(resource, version, signal);
      const split = lineSplitter();
      const decoder = new TextDecoder();
      for await (const chunk of body) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), WATCH_SILENCE_MS);
        for (const line of split(decoder.decode(chunk, { stream: true }))) {
          lines++;
          takeLine(line);
        }
      }
    } finally {
      clearTimeout(timer);
    }
    return lines > 0;
  }

  async function pause(failures: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, pauseMs(failures, random()));
    const end = () => resolve();
    ending.signal.addEventListener("abort", end);
    await promise;
    clearTimeout(timer);
    ending.signal.removeEventListener("abort", end);
  }

  function failed(error: unknown, failures: number): void {
    if (isExpired(error)) {
      log("debug", "the watch's history is no longer kept: the list is read anew");
      version = "";
      return;
    }
    if (isNotFound(error)) {
      // The resource is not defined (any more): whatever there was of it is gone.
      version = "";
      isSynced = false;
      for (const [key, last] of [...objects]) drop(key, last);
    }
    // The first failure may be a restart of the API server; more are worth a line.
    log(failures === 1 ? "warn" : "debug", "Kubernetes cannot be watched", { error });
  }

  async function follow(): Promise<void> {
    let failures = 0;
    while (!ending.signal.aborted) {
      try {
        if (version === "") await relist();
        if (ending.signal.aborted) return;
        // A stream that ends at once, again and again, is a failure too.
        failures = (await watchOnce()) ? 0 : failures + 1;
      } catch (error) {
        if (ending.signal.aborted) return;
        failures++;
        failed(error, failures);
      }
      if (failures > 0) await pause(failures - 1);
    }
  }

  const ended = follow();
  return {
    objects,
    get isSynced() {
      return isSynced;
    },
    counts,
    async stop() {
      ending.abort();
      await ended;
    },
  };
}
