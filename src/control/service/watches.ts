/**
 * Watches: an HTTP call to whoever asked for it when something about a volume has changed. Called by
 * the leader, once per change or once for several in a row; a call that fails is not repeated, and one
 * that was due when the leader fell is lost.
 */
import type { Log } from "../../ops/log.ts";
import type { StoreView } from "../cluster-state.ts";
import type { Uuid, WatchRecord } from "../model.ts";
import type { Store } from "../store/store.ts";
import { WATCH_CALL_MS, WATCH_CALLS_AT_ONCE } from "./limits.ts";

export interface WatchesOptions {
  readonly store: Store;
  readonly log: Log;
  /** Default: `fetch`. */
  readonly call?: (url: string, body: string, signal: AbortSignal) => Promise<void>;
}

/** The volume that a touched record is about, as far as the view still tells. */
function volumeOf(name: string, view: StoreView): Uuid | null {
  const slash = name.indexOf("/");
  const key = name.slice(slash + 1);
  switch (name.slice(0, slash)) {
    case "volumes":
      return key;
    case "replicas":
      return view.replicas.get(key)?.volumeUuid ?? null;
    case "nexuses":
      return view.nexuses.get(key)?.volumeUuid ?? null;
    case "snapshots":
      return view.snapshots.get(key)?.volumeUuid ?? null;
    default:
      return null;
  }
}

async function callByHttp(url: string, body: string, signal: AbortSignal): Promise<void> {
  const response = await fetch(url, {
    method: "PUT",
    body,
    headers: { "content-type": "application/json" },
    redirect: "manual",
    signal,
  });
  await response.arrayBuffer();
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
}

/** Calls watches from now on, until the returned function is called. */
export function runWatches(options: WatchesOptions): () => void {
  const { store, log } = options;
  const call = options.call ?? callByHttp;
  /** What is to be called, by id of its watch. */
  const due = new Map<string, WatchRecord>();
  const calling = new Set<string>();
  const stop = new AbortController();

  const begin = () => {
    for (const [id, { volumeUuid, callback }] of due) {
      if (calling.size >= WATCH_CALLS_AT_ONCE || stop.signal.aborted) return;
      if (calling.has(id)) continue;
      due.delete(id);
      calling.add(id);
      const volume = store.view().volumes.get(volumeUuid);
      const body = JSON.stringify({
        resource: `volumes/${volumeUuid}`,
        revision: volume?.revision ?? null,
        deleted: volume === undefined,
      });
      const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(WATCH_CALL_MS)]);
      void call(callback, body, signal)
        .catch((error: unknown) => {
          if (stop.signal.aborted) return;
          log("warn", "a watch could not be called", { volume: volumeUuid, callback, error });
        })
        .finally(() => {
          calling.delete(id);
          begin();
        });
    }
  };

  // The view before is kept: a volume's watches go with it, and are to hear of that.
  let before = store.view();
  const forget = store.subscribe((touched, view) => {
    const former = before;
    before = view;
    if ((view.watches.size === 0 && former.watches.size === 0) || !store.isLeader()) return;
    const volumes = new Set<Uuid>();
    for (const name of touched) {
      const volume = volumeOf(name, view) ?? volumeOf(name, former);
      if (volume !== null) volumes.add(volume);
    }
    if (volumes.size === 0) return;
    for (const watch of view.watches.values()) {
      if (volumes.has(watch.volumeUuid)) due.set(watch.id, watch);
    }
    for (const volume of volumes) {
      if (view.volumes.has(volume) || !former.volumes.has(volume)) continue;
      for (const watch of former.watches.values()) {
        if (watch.volumeUuid === volume) due.set(watch.id, watch);
      }
    }
    begin();
  });
  return () => {
    forget();
    stop.abort();
    due.clear();
  };
}
