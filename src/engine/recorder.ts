/**
 * The record of which children of a volume are healthy (DESIGN 6.2), for as long as there is no
 * control plane to keep it: a small SQLite file, durable when `record` resolves. It stands in an
 * engine's own data directory, or behind HTTP for several engines that serve the same volumes.
 */
import { Database } from "bun:sqlite";
import * as v from "valibot";
import { TrilithError } from "../errors.ts";
import type { FaultRecorder, NexusRecord } from "./nexus/recorder.ts";
import { httpClient } from "./rpc/client.ts";
import {
  RecordedChild,
  type RecorderHandlers,
  recorderContract,
  type VolumeRecord,
  vacationContract,
} from "./rpc/records.ts";

/** A recorder that can also be read. */
export interface Recorder extends FaultRecorder {
  list(): Promise<VolumeRecord[]>;
  /** `NotFound` when nothing is recorded of the volume. */
  get(volumeUuid: string): Promise<VolumeRecord>;
  /** `NotFound` when nothing is recorded of the volume. */
  forget(volumeUuid: string): Promise<void>;
  close(): void;
}

const SCHEMA_VERSION = 1;

const schema = `
  CREATE TABLE IF NOT EXISTS volume_record (
    volume_uuid TEXT PRIMARY KEY,
    nexus_uuid TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    children TEXT NOT NULL,
    clean_shutdown INTEGER NOT NULL,
    recorded_at TEXT NOT NULL
  ) STRICT`;

interface Row {
  readonly volume_uuid: string;
  readonly nexus_uuid: string;
  readonly epoch: number;
  readonly children: string;
  readonly clean_shutdown: number;
  readonly recorded_at: string;
}

function recordOf(row: Row): VolumeRecord {
  return {
    volumeUuid: row.volume_uuid,
    nexusUuid: row.nexus_uuid,
    epoch: row.epoch,
    children: v.parse(v.array(RecordedChild), JSON.parse(row.children)),
    cleanShutdown: row.clean_shutdown === 1,
    recordedAt: row.recorded_at,
  };
}

function unknown(volumeUuid: string): TrilithError {
  return new TrilithError("NotFound", `nothing is recorded of volume ${volumeUuid}`);
}

/**
 * Throws unless `next` may follow `before`: an older epoch, and another nexus of the same epoch, are
 * superseded; a record without a healthy child would make the volume's data unfindable.
 */
export function checkSuccession(before: VolumeRecord | undefined, next: NexusRecord): void {
  if (!next.children.some(({ healthy }) => healthy)) {
    throw new TrilithError(
      "InvalidArgument",
      `volume ${next.volumeUuid}: the last healthy child is never recorded as lost`,
    );
  }
  if (before === undefined || next.epoch > before.epoch) return;
  if (next.epoch < before.epoch || next.nexusUuid !== before.nexusUuid) {
    throw new TrilithError(
      "Superseded",
      `volume ${next.volumeUuid}: nexus ${next.nexusUuid} of epoch ${next.epoch} is superseded by ` +
        `nexus ${before.nexusUuid} of epoch ${before.epoch}`,
      "publish the volume again with a higher epoch",
    );
  }
}

/** Opens the recorder in a file, which is made when it is not there. */
export function openFileRecorder(path: string, now: () => Date): Recorder {
  const db = new Database(path, { create: true, strict: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run("PRAGMA synchronous = FULL");
  db.run(schema);
  const version = db.query<{ user_version: number }, []>("PRAGMA user_version").get()!.user_version;
  if (version > SCHEMA_VERSION) {
    db.close();
    throw new TrilithError(
      "Corrupted",
      `${path} was written by a newer version (${version}, known is ${SCHEMA_VERSION})`,
      "run the version that wrote it",
    );
  }
  db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  const byVolume = db.query<Row, [string]>("SELECT * FROM volume_record WHERE volume_uuid = ?");
  const all = db.query<Row, []>("SELECT * FROM volume_record ORDER BY volume_uuid");
  const put = db.query<null, [string, string, number, string, number, string]>(
    "INSERT OR REPLACE INTO volume_record VALUES (?, ?, ?, ?, ?, ?)",
  );
  const remove = db.query<null, [string]>("DELETE FROM volume_record WHERE volume_uuid = ?");
  const find = (volumeUuid: string): VolumeRecord | undefined => {
    const row = byVolume.get(volumeUuid);
    return row === null ? undefined : recordOf(row);
  };

  return {
    async record(next) {
      db.transaction(() => {
        checkSuccession(find(next.volumeUuid), next);
        put.run(
          next.volumeUuid,
          next.nexusUuid,
          next.epoch,
          JSON.stringify(next.children),
          next.cleanShutdown ? 1 : 0,
          now().toISOString(),
        );
      }).immediate();
    },
    list: async () => all.all().map(recordOf),
    async get(volumeUuid) {
      const found = find(volumeUuid);
      if (found === undefined) throw unknown(volumeUuid);
      return found;
    },
    async forget(volumeUuid) {
      if (remove.run(volumeUuid).changes === 0) throw unknown(volumeUuid);
    },
    close: () => db.close(),
  };
}

/** The recorder that `trilith server` keeps for several engines, at a base URL. */
export function openHttpRecorder(baseUrl: string, timeoutMs: number): Recorder {
  const client = httpClient(recorderContract, baseUrl, { timeoutMs });
  return {
    async record({ volumeUuid, nexusUuid, epoch, children, cleanShutdown }) {
      const plain = children.map(({ uri, healthy }) => ({ uri, healthy }));
      await client.putRecord({ volumeUuid, nexusUuid, epoch, children: plain, cleanShutdown });
    },
    list: () => client.listRecords(),
    get: (volumeUuid) => client.getRecord({ volumeUuid }),
    async forget(volumeUuid) {
      await client.deleteRecord({ volumeUuid });
    },
    close: () => {},
  };
}

/**
 * Asks the control process behind a recorder's base URL to move the targets of this engine, which is
 * about to stop. Resolves with false when some that could leave have not by then. Rejects when there is
 * nobody to ask.
 */
export async function askForVacation(
  baseUrl: string,
  instanceUuid: string,
  timeoutMs: number,
): Promise<boolean> {
  const client = httpClient(vacationContract, baseUrl, { timeoutMs: timeoutMs + 2_000 });
  return (await client.vacate({ instanceUuid, timeoutMs })).isVacant;
}

/** The recorder's API over a recorder. */
export function recorderHandlers(recorder: Recorder): RecorderHandlers {
  return {
    listRecords: () => recorder.list(),
    getRecord: ({ volumeUuid }) => recorder.get(volumeUuid),
    deleteRecord: async ({ volumeUuid }) => {
      await recorder.forget(volumeUuid);
      return undefined;
    },
    putRecord: async (record) => {
      await recorder.record(record);
      return recorder.get(record.volumeUuid);
    },
  };
}
