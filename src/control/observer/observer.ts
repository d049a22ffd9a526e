/**
 * What the leader knows of the engines. Keeps one immutable `ObservedNode` per node and tells what
 * changed. Imports the engine's client and types of the control plane.
 */
import type { EngineClient } from "../../engine/rpc/client.ts";
import type { EngineEvent } from "../../engine/rpc/info.ts";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import type { ObservedNode } from "../cluster-state.ts";
import type { NodeId, NodeRecord } from "../model.ts";
import type { Observation } from "../service/ports.ts";
import { READS_MAX, SILENCE_CHECK_MS } from "./limits.ts";
import { NodeWatch } from "./node-watch.ts";
import { type EngineReading, type ReadingChange, takeOver } from "./read-engine.ts";
import { Semaphore } from "./semaphore.ts";

/** Something about one node is other than before. */
export interface NodeChange {
  readonly nodeId: NodeId;
  /** It, or a pool of it, came or went, or its engine restarted: anything about it may be other. */
  readonly isWhole: boolean;
  readonly pools: readonly string[];
  readonly replicas: readonly string[];
  readonly snapshots: readonly string[];
  readonly nexuses: readonly string[];
  /** Volumes whose standbys are other than before. */
  readonly standbys: readonly string[];
}

/** `isNew`: it happened since the node is watched; others are what the engine still knew. */
export type EngineEventListener = (nodeId: NodeId, event: EngineEvent, isNew: boolean) => void;

export interface ObserverOptions {
  /** The client for a node's engine, with whatever it needs to be let in. */
  readonly clientOf: (node: NodeRecord) => EngineClient;
  /** How long an engine may be silent before its node is Offline. */
  readonly nodeDeadlineMs: () => number;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** Milliseconds by a clock that never jumps. Default: that of the process. */
  readonly monotonicMs?: () => number;
}

interface Watched {
  readonly record: NodeRecord;
  readonly client: EngineClient;
  readonly watch: NodeWatch;
  /** Monotonic time of its last answer, at first of the beginning. */
  aliveMs: number;
  /** Monotonic time since when nobody listens there; null: somebody does, as far as is known. */
  refusedMs: number | null;
  /** A full read is in since the engine was last heard of again. */
  isRead: boolean;
}

function blank(id: NodeId): ObservedNode {
  return {
    id,
    status: "Unknown",
    lastSeenMs: null,
    offlineSinceMs: null,
    info: null,
    pools: new Map(),
    replicas: new Map(),
    snapshots: new Map(),
    nexuses: new Map(),
  };
}

const nothing = { pools: [], replicas: [], snapshots: [], nexuses: [], standbys: [] } as const;

export class Observer implements Observation {
  readonly #options: ObserverOptions;
  readonly #monotonicMs: () => number;
  readonly #reads = new Semaphore(READS_MAX);
  readonly #watched = new Map<NodeId, Watched>();
  readonly #listeners = new Set<() => void>();
  readonly #changeListeners = new Set<(change: NodeChange) => void>();
  readonly #eventListeners = new Set<EngineEventListener>();
  #observation: ReadonlyMap<NodeId, ObservedNode> = new Map();
  #timer: ReturnType<typeof setInterval> | null = null;
  /** Monotonic time of the last look for silent nodes. */
  #checkedMs: number | null = null;

  constructor(options: ObserverOptions) {
    this.#options = options;
    this.#monotonicMs = options.monotonicMs ?? (() => performance.now());
  }

  // ---------------------------------------------------------------------------- what others ask

  observation(): ReadonlyMap<NodeId, ObservedNode> {
    return this.#observation;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls the listener with what changed, before those of `onChange`. */
  onNodeChange(listener: (change: NodeChange) => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  /** Calls the listener with each event of an engine, just before what it tells of is read. */
  onEngineEvent(listener: EngineEventListener): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  /** Has the listeners of `onChange` called; the executor does so after a failure. */
  tell(): void {
    for (const listener of this.#listeners) listener();
  }

  engine(nodeId: NodeId): EngineClient {
    const watched = this.#watched.get(nodeId);
    if (watched !== undefined) return watched.client;
    throw new TrilithError("NotFound", `node ${nodeId} is not known`, "see `trilith get nodes`");
  }

  /** Reads a node anew. True: what is known of it now was read after this call. */
  async refresh(nodeId: NodeId): Promise<boolean> {
    return (await this.#watched.get(nodeId)?.watch.refresh()) ?? false;
  }

  // ------------------------------------------------------------------------------- what is watched

  /** Watches these nodes from now on, and no others. A node with another endpoint is watched anew. */
  setNodes(nodes: ReadonlyMap<NodeId, NodeRecord>): void {
    for (const [id, watched] of this.#watched) {
      if (nodes.get(id)?.engineEndpoint === watched.record.engineEndpoint) continue;
      watched.watch.stop();
      this.#watched.delete(id);
      if (!nodes.has(id)) this.#put(id, null);
    }
    for (const [id, record] of nodes) if (!this.#watched.has(id)) this.#begin(id, record);
    this.#timer ??= setInterval(() => this.#checkSilence(), SILENCE_CHECK_MS);
  }

  /** Watches nothing any more and forgets everything. */
  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#checkedMs = null;
    for (const { watch } of this.#watched.values()) watch.stop();
    this.#watched.clear();
    this.#observation = new Map();
    this.tell();
  }

  #begin(id: NodeId, record: NodeRecord): void {
    const client = this.#options.clientOf(record);
    const watch = new NodeWatch({
      nodeId: id,
      client,
      reads: this.#reads,
      log: this.#options.log,
      monotonicMs: this.#monotonicMs,
      listener: {
        seen: () => this.#seen(id),
        refused: () => this.#refused(id),
        read: (reading) => this.#read(id, reading),
        event: (event, isNew) => {
          for (const listener of this.#eventListeners) listener(id, event, isNew);
        },
      },
    });
    const aliveMs = this.#monotonicMs();
    this.#watched.set(id, { record, client, watch, aliveMs, refusedMs: null, isRead: false });
    if (!this.#observation.has(id)) this.#put(id, blank(id));
  }

  // --------------------------------------------------------------------------------- what is heard

  #put(id: NodeId, node: ObservedNode | null): void {
    const next = new Map(this.#observation);
    if (node === null) next.delete(id);
    else next.set(id, node);
    this.#observation = next;
  }

  #announce(change: NodeChange): void {
    for (const listener of this.#changeListeners) listener(change);
    this.tell();
  }

  #seen(id: NodeId): void {
    const watched = this.#watched.get(id);
    const node = this.#observation.get(id);
    if (watched === undefined || node === undefined) return;
    watched.aliveMs = this.#monotonicMs();
    watched.refusedMs = null;
    this.#put(id, { ...node, lastSeenMs: this.#options.nowMs() });
    // A node that was away counts as Online only when it has been read: what is known of it is old.
    if (node.status !== "Online" && !watched.isRead) void watched.watch.refresh();
  }

  #refused(id: NodeId): void {
    const watched = this.#watched.get(id);
    if (watched !== undefined) watched.refusedMs ??= this.#monotonicMs();
  }

  #read(id: NodeId, reading: EngineReading): void {
    const watched = this.#watched.get(id);
    const before = this.#observation.get(id);
    if (watched === undefined || before === undefined) return;
    watched.isRead = true;
    const { node, change } = takeOver(before, reading);
    this.#put(id, { ...node, status: "Online", offlineSinceMs: null });
    const isBack = before.status !== "Online";
    if (isBack) {
      const { instanceUuid, version } = reading.info;
      this.#options.log("info", "node online", { node: id, instanceUuid, version });
    } else if (change.isRestarted) {
      this.#options.log("warn", "engine restarted", { node: id, ...reading.info });
    }
    if (isBack || hasChanged(change)) {
      const isWhole = isBack || change.isRestarted || change.havePoolsChanged;
      this.#announce({ nodeId: id, isWhole, ...change });
    }
  }

  /**
   * Nodes that have been silent for too long are Offline; when nobody listens there any more, half of
   * that is enough: an engine that starts again does so at once. Time in which this process itself stood still
   * says nothing of them: their answers may lie unread.
   */
  #checkSilence(): void {
    const deadlineMs = this.#options.nodeDeadlineMs();
    const now = this.#monotonicMs();
    const lateMs = now - (this.#checkedMs ?? now) - SILENCE_CHECK_MS;
    this.#checkedMs = now;
    if (lateMs > SILENCE_CHECK_MS) {
      for (const watched of this.#watched.values()) {
        watched.aliveMs += lateMs;
        if (watched.refusedMs !== null) watched.refusedMs += lateMs;
      }
    }
    for (const [id, watched] of this.#watched) {
      const node = this.#observation.get(id);
      if (node === undefined || node.status === "Offline") continue;
      const refusedForMs = now - (watched.refusedMs ?? now);
      if (now - watched.aliveMs <= deadlineMs && refusedForMs <= deadlineMs / 2) continue;
      watched.isRead = false;
      this.#put(id, { ...node, status: "Offline", offlineSinceMs: this.#options.nowMs() });
      this.#options.log("warn", "node offline", { node: id, silentMs: now - watched.aliveMs });
      this.#announce({ nodeId: id, isWhole: true, ...nothing });
    }
  }
}

function hasChanged(change: ReadingChange): boolean {
  const { isRestarted, pools, replicas, snapshots, nexuses, standbys } = change;
  const counts = [pools, replicas, snapshots, nexuses, standbys].map(({ length }) => length);
  return isRestarted || counts.some((count) => count > 0);
}
