/**
 * The leader brings the tables to the newest version that every member knows. While one of them runs an
 * older version of Trilith the tables stay as that one knows them.
 */
import type { Log } from "../../ops/log.ts";
import { MIGRATION_RETRY_MS } from "./limits.ts";
import type { ReplicatedStore } from "./replicated-store.ts";

export interface UpgradeOptions {
  readonly store: ReplicatedStore;
  /** The newest version that this executable knows. */
  readonly knownVersion: number;
  /**
   * The newest version of the tables that each member knows, by raft id, learners included. A member
   * that cannot be asked is left out, or the whole rejects.
   */
  readonly memberVersions: () => Promise<ReadonlyMap<string, number>>;
  readonly log: Log;
}

/** The version to go to now; the present one while a member does not know a newer, or is silent. */
export function versionForAll(
  present: number,
  members: readonly string[],
  versions: ReadonlyMap<string, number>,
): number {
  const known = members.map((raftId) => versions.get(raftId) ?? present);
  return Math.max(present, Math.min(...known));
}

/** Tries once; resolves with true when nothing is left to do for this executable. */
export async function upgradeOnce(options: UpgradeOptions): Promise<boolean> {
  const { store, log } = options;
  const present = store.schemaVersion();
  if (present >= options.knownVersion) return true;
  const versions = await options.memberVersions();
  const members = store.status().members.map(({ raftId }) => raftId);
  const next = versionForAll(present, members, versions);
  if (next > present) {
    await store.migrate(next);
    log("info", "the store's tables are of a newer version", { from: present, to: next });
  }
  return next >= options.knownVersion;
}

/** Goes on trying while this node leads. Returns what ends it. */
export function keepUpgraded(options: UpgradeOptions): () => void {
  const { store, log } = options;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let leads = 0;
  const attempt = async (leadership: number): Promise<void> => {
    let isDone = false;
    try {
      isDone = await upgradeOnce(options);
    } catch (error) {
      log("warn", "the store's tables could not be upgraded yet", { error });
    }
    if (isDone || leadership !== leads) return;
    timer = setTimeout(() => void attempt(leadership), MIGRATION_RETRY_MS);
  };
  const forget = store.onLeadership((term) => {
    clearTimeout(timer);
    leads++;
    if (term !== null) void attempt(leads);
  });
  if (store.isLeader()) void attempt(leads);
  return () => {
    forget();
    clearTimeout(timer);
    leads++;
  };
}
