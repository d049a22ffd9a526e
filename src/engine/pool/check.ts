/**
 * Verifies a pool without opening it: reads every structure, replays the journal, checks every
 * reference. Writes nothing. The disk must not be in use by an engine.
 *
 * Data clusters carry no checksums, so damage inside them cannot be seen here: a rebuild or a
 * comparison of the copies of a volume finds it.
 */
import { facesOf, TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import { openFileBdev } from "../bdev/file.ts";
import { parseBdevUri } from "../bdev/uri.ts";
import { ARENA_BYTES_MIN } from "../reactor/limits.ts";
import { Reactor } from "../reactor/reactor.ts";
import { decodeAttributeMap } from "./attributes.ts";
import { PoolDevice } from "./device.ts";
import { CHECK_ERRORS_MAX } from "./limits.ts";
import { type LoadedPool, loadPool, readSuperblocks } from "./load.ts";
import { probeDisk } from "./probe.ts";
import { KIND_SNAPSHOT } from "./records.ts";
import type { PoolObject } from "./state.ts";
import { metadataClusters, type Superblock, type SuperblockCopy } from "./superblock.ts";
import { type Verification, verifyState } from "./verify.ts";

/**
 * What a check comes to. Sound: all is well. Degraded: all data is there, a redundant copy of
 * metadata is damaged; the next import repairs it. Damaged: import would refuse. Absent: no pool.
 */
export type CheckVerdict = "sound" | "degraded" | "damaged" | "absent";

/** One structure of the disk. */
export interface CheckedStructure {
  readonly name: string;
  readonly state: "good" | "unused" | "stale" | "damaged";
  readonly detail: string;
}

/** One replica or snapshot. */
export interface CheckedReplica {
  readonly uuid: string;
  readonly name: string;
  readonly kind: "replica" | "snapshot" | "clone";
  readonly sizeBytes: number;
  readonly thin: boolean;
  readonly allocatedBytes: number;
  readonly sharedBytes: number;
  readonly dirtyRegions: number;
  readonly volumeUuid: string;
  readonly epoch: number;
  readonly healthGeneration: number;
  readonly clean: boolean;
}

export interface PoolReport {
  readonly disk: string;
  readonly verdict: CheckVerdict;
  readonly name: string;
  readonly uuid: string;
  readonly clusterBytes: number;
  readonly clusters: number;
  readonly metadataClusters: number;
  readonly usedClusters: number;
  readonly freeClusters: number;
  readonly reservedClusters: number;
  readonly structures: readonly CheckedStructure[];
  readonly replicas: readonly CheckedReplica[];
  readonly errors: readonly string[];
  readonly warnings: readonly string[];
}

/** Exit statuses of `trilith pool check` beyond those of its errors. */
const EXIT_DEGRADED = 3;

const nothing = {
  name: "",
  uuid: "",
  clusterBytes: 0,
  clusters: 0,
  metadataClusters: 0,
  usedClusters: 0,
  freeClusters: 0,
  reservedClusters: 0,
  structures: [],
  replicas: [],
  errors: [],
  warnings: [],
};

/** Verifies the pool on a device. Throws only the device's own errors. */
export async function checkPool(bdev: Bdev): Promise<PoolReport> {
  const device = new PoolDevice(bdev);
  try {
    const copies = await readSuperblocks(device);
    const structures = superblockStructures(copies);
    try {
      const loaded = await loadPool(device);
      return report(bdev, structures, loaded);
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      if (error.code === "NotFound") {
        const content = await probeDisk(device);
        const what = content.kind === "foreign" ? content.what : "nothing";
        const errors = [`${error.message}; it holds ${what}`];
        return { ...nothing, disk: bdev.name, verdict: "absent", errors };
      }
      if (error.code !== "Corrupted" && error.code !== "FailedPrecondition") throw error;
      const identity = identityOf(copies);
      const verdict = "damaged";
      return {
        ...nothing,
        ...identity,
        disk: bdev.name,
        verdict,
        structures,
        errors: [error.message],
      };
    }
  } finally {
    device.release();
  }
}

function identityOf(copies: readonly SuperblockCopy[]): Partial<PoolReport> {
  for (const copy of copies) {
    if (copy.kind !== "valid") continue;
    const { name, uuid, clusterBytes, clusterCount } = copy.superblock;
    const metadata = metadataClusters(copy.superblock).length;
    return { name, uuid, clusterBytes, clusters: clusterCount, metadataClusters: metadata };
  }
  return {};
}

function superblockStructures(copies: readonly SuperblockCopy[]): CheckedStructure[] {
  const generations = copies.map((copy) =>
    copy.kind === "valid" ? copy.superblock.generation : 0,
  );
  const newest = Math.max(...generations);
  return copies.map((copy, i): CheckedStructure => {
    const name = `superblock ${"AB"[i]}`;
    if (copy.kind === "valid") {
      const { generation } = copy.superblock;
      const state = generation === newest ? "good" : "stale";
      return { name, state, detail: `generation ${generation}` };
    }
    const detail = copy.kind === "absent" ? "there is none" : copy.why;
    return { name, state: "damaged", detail };
  });
}

function slotStructures(loaded: LoadedPool): CheckedStructure[] {
  return loaded.slots.map((slot, i): CheckedStructure => {
    const name = `checkpoint slot ${"XY"[i]}`;
    if (slot.header === null) {
      const isUnused = slot.why === "";
      return { name, state: isUnused ? "unused" : "damaged", detail: slot.why || "never written" };
    }
    const { number, position } = slot.header;
    const detail = `checkpoint ${number} before journal block ${position.seq}, ${slot.pages} pages`;
    return { name, state: i === loaded.slot ? "good" : "stale", detail };
  });
}

function journalStructures(loaded: LoadedPool): CheckedStructure[] {
  const from = loaded.slots[loaded.slot].header!.position.seq;
  const range = `blocks ${from} to ${loaded.end.seq - 1}, ${loaded.commits} commits`;
  return ["journal ring", "journal mirror"].map((name, copy): CheckedStructure => {
    const bad = loaded.damaged.filter(({ good }) => good !== copy).length;
    if (bad === 0) return { name, state: "good", detail: range };
    return { name, state: "damaged", detail: `${range}; ${bad} only in the other copy` };
  });
}

function checkedReplica(object: PoolObject, loaded: LoadedPool, verified: Verification) {
  const { clusterBytes } = loaded.superblock;
  const attributes = decodeAttributeMap(object.attributes);
  let mapped = 0;
  let shared = 0;
  for (const cluster of object.map) {
    if (cluster < 0) continue;
    mapped++;
    if ((verified.references[cluster] ?? 0) > 1) shared++;
  }
  let dirtyRegions = 0;
  for (let byte of object.intents) for (; byte !== 0; byte &= byte - 1) dirtyRegions++;
  const isSnapshot = object.kind === KIND_SNAPSHOT;
  const kind = isSnapshot ? "snapshot" : object.origin === 0 ? "replica" : "clone";
  const { name, volumeUuid, epoch, healthGeneration, clean } = attributes;
  const checked: CheckedReplica = {
    uuid: object.uuid,
    name,
    kind,
    sizeBytes: object.sizeBytes,
    thin: object.thin,
    allocatedBytes: mapped * clusterBytes,
    sharedBytes: shared * clusterBytes,
    dirtyRegions,
    volumeUuid,
    epoch,
    healthGeneration,
    clean,
  };
  return checked;
}

function report(
  bdev: Bdev,
  superblocks: readonly CheckedStructure[],
  loaded: LoadedPool,
): PoolReport {
  const { superblock, state } = loaded;
  const verified = verifyState(state, superblock, CHECK_ERRORS_MAX);
  const errors = [...verified.errors];
  const replicas: CheckedReplica[] = [];
  for (const object of state.objects.values()) {
    try {
      replicas.push(checkedReplica(object, loaded, verified));
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      errors.push(`object ${object.uuid}: ${error.message}`);
    }
  }
  const structures = [...superblocks, ...slotStructures(loaded), ...journalStructures(loaded)];
  const warnings = structures
    .filter((s) => s.state === "damaged" || (s.state === "stale" && s.name.startsWith("super")))
    .map((s) => `${s.name}: ${s.detail}`);
  const verdict = errors.length > 0 ? "damaged" : warnings.length > 0 ? "degraded" : "sound";
  return {
    disk: bdev.name,
    verdict,
    ...figures(superblock, verified),
    structures,
    replicas,
    errors,
    warnings,
  };
}

function figures(superblock: Superblock, verified: Verification) {
  return {
    name: superblock.name,
    uuid: superblock.uuid,
    clusterBytes: superblock.clusterBytes,
    clusters: superblock.clusterCount,
    metadataClusters: verified.metadata.length,
    usedClusters: verified.used,
    freeClusters: verified.free,
    reservedClusters: verified.reserved,
  };
}

/**
 * The exit status that a report means: 0 sound, 3 degraded (all data is there, the next import
 * restores the redundancy), 7 damaged, 4 no pool on the disk.
 */
export function checkExitStatus(report: PoolReport): number {
  const statuses: Record<CheckVerdict, number> = {
    sound: 0,
    degraded: EXIT_DEGRADED,
    damaged: facesOf("Corrupted").exit,
    absent: facesOf("NotFound").exit,
  };
  return statuses[report.verdict];
}

/** A report as lines of text. */
export function formatReport(report: PoolReport): string[] {
  const lines: string[] = [];
  if (report.name !== "") {
    lines.push(`pool ${report.name} (${report.uuid}) on ${report.disk}`);
    lines.push(
      `  ${report.clusters} clusters of ${report.clusterBytes} bytes: ${report.usedClusters} used, ` +
        `${report.freeClusters} free (${report.reservedClusters} reserved), ` +
        `${report.metadataClusters} metadata`,
    );
  }
  for (const { name, state, detail } of report.structures) {
    lines.push(`  ${name.padEnd(18)} ${state.padEnd(8)} ${detail}`);
  }
  for (const replica of report.replicas) {
    const { kind, name, uuid, sizeBytes, thin, allocatedBytes, sharedBytes } = replica;
    lines.push(
      `  ${kind.padEnd(9)}${name} (${uuid}): ${sizeBytes} bytes, ${thin ? "thin" : "thick"}, ` +
        `${allocatedBytes} allocated, ${sharedBytes} of them shared, ` +
        `${replica.dirtyRegions} dirty regions`,
    );
  }
  for (const warning of report.warnings) lines.push(`warning: ${warning}`);
  for (const error of report.errors) lines.push(`error: ${error}`);
  lines.push(`${report.disk}: ${report.verdict}`);
  return lines;
}

/**
 * The body of `trilith pool check <device>`: checks the pool on a disk or file and prints the report
 * (`json`: as one object). Returns the exit status of `checkExitStatus`; throws the errors of opening
 * the device (in use by an engine: `InUse`).
 */
export function runPoolCheck(
  device: string,
  options: { readonly json: boolean; readonly print: (line: string) => void },
): number {
  const uri = parseBdevUri(device);
  if (uri.driver !== "uring" && uri.driver !== "aio") {
    throw new TrilithError("InvalidArgument", `${device} is not a disk or file`, "e.g. /dev/sdb");
  }
  const reactor = new Reactor({ index: 0, arenaBytes: ARENA_BYTES_MIN });
  const run = async () => {
    const bdev = openFileBdev(reactor, uri);
    try {
      return await checkPool(bdev);
    } finally {
      await bdev.close();
    }
  };
  try {
    const result = reactor.runUntil(run());
    if (options.json) options.print(JSON.stringify(result, null, 2));
    else for (const line of formatReport(result)) options.print(line);
    return checkExitStatus(result);
  } finally {
    reactor.close();
  }
}
