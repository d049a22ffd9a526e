/**
 * Snapshots of a node: those it sends, made when they are needed and shared by all who need one then,
 * and those that come in. Files lie in the node's folder and are nothing worth after a restart.
 */
import type { Database } from "bun:sqlite";
import { copyFileSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { TrilithError } from "../../errors.ts";
import { type ConfState, Message, Snapshot } from "./engine.ts";
import type { LogStore, Members } from "./log-store.ts";
import { type FileDigest, verifySnapshotFile, writeSnapshotFile } from "./snapshot-file.ts";

const PREFIX = "raft-snapshot-";

/** What goes with a snapshot besides the tables. */
interface Cargo extends FileDigest {
  readonly contexts: readonly (readonly [string, string])[];
  readonly removed: readonly string[];
}

interface Outgoing {
  readonly path: string;
  readonly snapshot: Snapshot;
  /** Members that it is being sent to. */
  users: number;
}

function badCargo(): TrilithError {
  return new TrilithError("InvalidArgument", "a snapshot without its description");
}

/** Reads what goes with a snapshot. Throws `InvalidArgument`. */
function cargoOf(snapshot: Snapshot): Cargo {
  const text: unknown = snapshot.data;
  if (typeof text !== "string") throw badCargo();
  let cargo: Partial<Cargo> | null;
  try {
    cargo = JSON.parse(text) as Partial<Cargo> | null;
  } catch {
    throw badCargo();
  }
  const isText = (value: unknown): value is string => typeof value === "string";
  const { sizeBytes, sha256, contexts, removed } = cargo ?? {};
  const isWhole =
    Number.isSafeInteger(sizeBytes) &&
    isText(sha256) &&
    Array.isArray(contexts) &&
    contexts.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isText)) &&
    Array.isArray(removed) &&
    removed.every(isText);
  if (!isWhole) throw badCargo();
  return cargo as Cargo;
}

/** Size and checksum of the file that belongs to a message. Throws `InvalidArgument`. */
export function digestInMessage(message: Message): FileDigest {
  return cargoOf(message.snapshot);
}

/** The members as a snapshot has them. */
export function membersOf(snapshot: Snapshot): Members {
  const cargo = cargoOf(snapshot);
  return {
    conf: snapshot.metadata.confState,
    contexts: new Map(cargo.contexts),
    removed: new Set(cargo.removed),
  };
}

function hasMember(conf: ConfState, raftId: string): boolean {
  return conf.voters.includes(raftId) || conf.learners.includes(raftId);
}

export class Snapshots {
  readonly #db: Database;
  readonly #log: LogStore;
  readonly #folder: string;
  /** Those that are being sent; the last one may be of use to another member. */
  readonly #outgoing: Outgoing[] = [];
  #sequence = 0;

  /** Throws away what an earlier life has left in the folder. */
  constructor(db: Database, log: LogStore, folder: string) {
    this.#db = db;
    this.#log = log;
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
    for (const name of readdirSync(folder)) {
      if (name.startsWith(PREFIX)) rmSync(join(folder, name));
    }
  }

  get sendingCount(): number {
    return this.#outgoing.reduce((sum, { users }) => sum + users, 0);
  }

  /** The lowest index that a log must go on from to be of use to a snapshot that is being sent. */
  get lowestIndexSent(): number {
    return Math.min(...this.#outgoing.map(({ snapshot }) => snapshot.metadata.index));
  }

  /** A snapshot's description for the engine: of now. The file is made when it is sent. */
  describe(): Snapshot {
    const { applied, members } = this.#log;
    const term = this.#log.termOf(applied);
    return new Snapshot({ metadata: { index: applied, term, confState: members.conf }, data: "" });
  }

  #path(): string {
    return join(this.#folder, `${PREFIX}${this.#log.incarnation}-${++this.#sequence}.db`);
  }

  #fresh(to: string): Outgoing {
    const last = this.#outgoing.at(-1);
    if (last !== undefined) {
      const { index, confState } = last.snapshot.metadata;
      // One in which the member does not occur is ignored by it, for ever.
      if (index + 1 >= this.#log.firstIndex && hasMember(confState, to)) return last;
    }
    const path = this.#path();
    const digest = writeSnapshotFile(this.#db, path);
    const { contexts, removed } = this.#log.members;
    const cargo: Cargo = { ...digest, contexts: [...contexts], removed: [...removed] };
    const { metadata } = this.describe();
    const made = {
      path,
      snapshot: new Snapshot({ metadata, data: JSON.stringify(cargo) }),
      users: 0,
    };
    this.#outgoing.push(made);
    return made;
  }

  /**
   * The file for a message of the engine, and the message with the description of just this file.
   * `release` is to be called when it is no longer read.
   */
  take(message: Message): { message: Message; path: string; release: () => void } {
    const outgoing = this.#fresh(message.to);
    outgoing.users++;
    const filled = new Message({ ...message, snapshot: outgoing.snapshot });
    const release = () => {
      if (--outgoing.users > 0) return;
      this.#outgoing.splice(this.#outgoing.indexOf(outgoing), 1);
      rmSync(outgoing.path, { force: true });
    };
    return { message: filled, path: outgoing.path, release };
  }

  /** Checks a file that came, and moves it into the node's folder; returns where it is. */
  accept(message: Message, path: string): string {
    verifySnapshotFile(path, digestInMessage(message));
    membersOf(message.snapshot);
    const target = this.#path();
    try {
      renameSync(path, target);
    } catch {
      // Another file system.
      copyFileSync(path, target);
      rmSync(path, { force: true });
    }
    return target;
  }
}
