/**
 * Keeps what engines tell of, beyond their own lives: events go into the cluster's, and rebuilds that
 * ended into the history of their volume.
 */
import type { EngineClient } from "../../engine/rpc/client.ts";
import type { EngineEvent } from "../../engine/rpc/info.ts";
import type { Log } from "../../ops/log.ts";
import type { StoreView } from "../cluster-state.ts";
import type { NewEvent, NodeId, RebuildHistoryRecord, Uuid } from "../model.ts";
import type { Change } from "../planner/plan.ts";
import type { Store } from "../store/store.ts";
import { EVENTS_GATHER_MS, EVENTS_WAITING_MAX, HISTORY_PER_VOLUME_MAX } from "./limits.ts";

export interface EngineNotesOptions {
  readonly store: Store;
  readonly engine: (nodeId: NodeId) => EngineClient;
  readonly log: Log;
}

type Kind = Pick<NewEvent, "category" | "action">;

/** How the cluster's events name what engines tell of; null: it is not kept. */
const kinds: Readonly<Record<EngineEvent["kind"], Kind | null>> = {
  "engine-started": { category: "Node", action: "Start" },
  "reactor-stalled": null,
  "bdev-removed": null,
  "bdev-resized": null,
  "pool-faulted": { category: "Pool", action: "StateChange" },
  "child-faulted": { category: "Nexus", action: "StateChange" },
  "child-online": { category: "Nexus", action: "OnlineChild" },
  "nexus-state": { category: "Nexus", action: "StateChange" },
  "nexus-superseded": { category: "Nexus", action: "StateChange" },
  "rebuild-started": { category: "Nexus", action: "RebuildBegin" },
  "rebuild-ended": { category: "Nexus", action: "RebuildEnd" },
  // The volume's own events say when it began and ended.
  "scrub-started": null,
  "scrub-ended": null,
  "scrub-mismatch": { category: "Nexus", action: "ScrubMismatch" },
  "host-connected": { category: "HostInitiator", action: "NvmeConnect" },
  "host-disconnected": { category: "HostInitiator", action: "NvmeDisconnect" },
};

function textOf({ kind, message, fields }: EngineEvent): string {
  const named = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
  return [kind, message, ...named].filter((part) => part !== "").join(" ");
}

/** The engine's event as one of the cluster's. */
export function clusterEvent(nodeId: NodeId, event: EngineEvent): NewEvent | null {
  const kind = kinds[event.kind];
  if (kind === null) return null;
  return { ...kind, target: event.subject, nodeId, component: "engine", message: textOf(event) };
}

type Rebuild = Awaited<ReturnType<EngineClient["listRebuilds"]>>["history"][number];

const endedStates = { stopped: "Stopped", failed: "Failed", completed: "Completed" } as const;

/** A rebuild that ended, as it is kept; null while it has not. */
export function historyRecord(
  volumeUuid: Uuid,
  nexusUuid: Uuid,
  rebuild: Rebuild,
): RebuildHistoryRecord | null {
  const { state, endTimeMs, childUri, srcUri, startTimeMs } = rebuild;
  if (state !== "stopped" && state !== "failed" && state !== "completed") return null;
  return {
    revision: 0,
    id: `${nexusUuid} ${startTimeMs} ${childUri}`,
    volumeUuid,
    nexusUuid,
    childUri,
    sourceUri: srcUri,
    state: endedStates[state],
    blocksTotal: rebuild.blocksTotal,
    blocksRecovered: rebuild.blocksRecovered,
    blocksTransferred: rebuild.blocksTransferred,
    blocksRemaining: rebuild.blocksRemaining,
    blockSize: rebuild.blockSize,
    isPartial: rebuild.isPartial,
    startTimeMs,
    endTimeMs: endTimeMs ?? startTimeMs,
  };
}

/** Changes that add what is not kept yet, and drop the oldest beyond the bound. */
export function historyChanges(
  view: StoreView,
  volumeUuid: Uuid,
  ended: readonly RebuildHistoryRecord[],
): Change[] {
  const added = ended.filter(({ id }) => !view.rebuildHistory.has(id));
  if (added.length === 0 || !view.volumes.has(volumeUuid)) return [];
  const kept = [...view.rebuildHistory.values()].filter((one) => one.volumeUuid === volumeUuid);
  const all = [...kept, ...added].sort((a, b) => b.startTimeMs - a.startTimeMs);
  const staying = new Set(all.slice(0, HISTORY_PER_VOLUME_MAX).map(({ id }) => id));
  const changes: Change[] = [];
  for (const record of added) {
    if (staying.has(record.id)) changes.push({ table: "rebuildHistory", put: record });
  }
  for (const { id, revision } of kept) {
    if (!staying.has(id)) changes.push({ table: "rebuildHistory", remove: id, revision });
  }
  return changes;
}

export class EngineNotes {
  readonly #options: EngineNotesOptions;
  #events: NewEvent[] = [];
  readonly #ended = new Map<Uuid, NodeId>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isWriting = false;

  constructor(options: EngineNotesOptions) {
    this.#options = options;
  }

  /** `isNew`: it happened since this node watches; what is older has been noted by another leader. */
  note(nodeId: NodeId, event: EngineEvent, isNew: boolean): void {
    if (event.kind === "rebuild-ended") this.#ended.set(event.subject, nodeId);
    const own = isNew ? clusterEvent(nodeId, event) : null;
    if (own !== null && this.#events.length < EVENTS_WAITING_MAX) this.#events.push(own);
    if (own !== null || event.kind === "rebuild-ended") this.#soon();
  }

  /** Forgets what is not written yet: somebody else leads. */
  clear(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#events = [];
    this.#ended.clear();
  }

  #soon(): void {
    if (this.#isWriting) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      void this.#write();
    }, EVENTS_GATHER_MS);
  }

  async #write(): Promise<void> {
    const { store, log } = this.#options;
    this.#isWriting = true;
    const events = this.#events.splice(0);
    const ended = [...this.#ended];
    this.#ended.clear();
    try {
      if (events.length > 0) {
        await store.transact(() => ({ changes: [], events, value: undefined }));
      }
      for (const [nexusUuid, nodeId] of ended) await this.#keepHistory(nodeId, nexusUuid);
    } catch (error) {
      // They are for people to read: what cannot be written is not worth an attempt without end.
      log("warn", "events of engines were lost", { count: events.length, error: String(error) });
    } finally {
      this.#isWriting = false;
      if (this.#events.length > 0 || this.#ended.size > 0) this.#soon();
    }
  }

  async #keepHistory(nodeId: NodeId, nexusUuid: Uuid): Promise<void> {
    const { store, engine, log } = this.#options;
    const volumeUuid = store.view().nexuses.get(nexusUuid)?.volumeUuid;
    if (volumeUuid == null) return;
    try {
      const { history } = await engine(nodeId).listRebuilds({ uuid: nexusUuid });
      const records = history.flatMap((one) => historyRecord(volumeUuid, nexusUuid, one) ?? []);
      await store.transact((view) => {
        return { changes: historyChanges(view, volumeUuid, records), events: [], value: undefined };
      });
    } catch (error) {
      log("warn", "rebuild history was not kept", { nexus: nexusUuid, error: String(error) });
    }
  }
}
