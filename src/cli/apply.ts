/**
 * `trilith apply -f`: makes the cluster be as manifests say, without Kubernetes.
 *
 * A StorageClass is not kept: it says what the claims in the same files are to be. A claim is a
 * volume whose id is the claim's UID, or is made of its namespace and name, so that applying the same
 * files again finds it.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { facesOf, TrilithError } from "../errors.ts";
import { MANIFEST_BYTES_MAX, type Manifest, parseManifests } from "../kube/manifest-file.ts";
import {
  type Wanted,
  type WantedPool,
  type WantedSnapshot,
  type WantedVolume,
  wantedBy,
} from "./apply/wanted.ts";
import { countArgument } from "./arguments.ts";
import type { CliContext } from "./context.ts";
import { humanSize } from "./output/size.ts";
import { printObjects, type Session, withSession } from "./session.ts";

interface ApplyOptions {
  readonly filename: readonly string[];
  readonly replicas?: number;
  readonly dryRun?: boolean;
}

/** What became of one manifest. */
interface Result {
  readonly object: string;
  readonly result: "created" | "configured" | "unchanged" | "skipped" | "failed";
  readonly id?: string;
  readonly message?: string;
  readonly remedy?: string;
}

function textOf(path: string): string {
  const { size } = statSync(path);
  if (size > MANIFEST_BYTES_MAX) {
    throw new TrilithError(
      "InvalidArgument",
      `${path} is ${humanSize(size)} large; manifests have up to ${humanSize(MANIFEST_BYTES_MAX)}`,
    );
  }
  return readFileSync(path, "utf8");
}

/** The manifests of files, of all such files in a folder, and of standard input (`-`). */
async function readManifests(context: CliContext, names: readonly string[]): Promise<Manifest[]> {
  const found: Manifest[] = [];
  for (const name of names) {
    if (name === "-") {
      found.push(...parseManifests((await context.readInput?.()) ?? "", "standard input"));
    } else if (statSync(name).isDirectory()) {
      const files = readdirSync(name).filter((file) => /\.(ya?ml|json)$/.test(file));
      for (const file of files.sort()) {
        found.push(...parseManifests(textOf(join(name, file)), join(name, file)));
      }
    } else found.push(...parseManifests(textOf(name), name));
  }
  if (found.length === 0) {
    throw new TrilithError("InvalidArgument", `there is no manifest in ${names.join(", ")}`);
  }
  return found;
}

/** What is there, or null. */
async function existing<T>(look: Promise<T>): Promise<T | null> {
  try {
    return await look;
  } catch (error) {
    if (error instanceof TrilithError && error.code === "NotFound") return null;
    throw error;
  }
}

async function applyPool(session: Session, wanted: WantedPool, dry: boolean): Promise<Result> {
  const { client } = session;
  const found = await existing(client.pool(wanted.id));
  const base = { object: wanted.title, id: wanted.id };
  if (found === null) {
    if (!dry) await client.createPool(wanted.node, wanted.id, wanted.body);
    return { ...base, result: "created" };
  }
  const labels = Object.entries(wanted.body.labels ?? {}).filter(
    ([key, value]) => found.spec?.labels?.[key] !== value,
  );
  if (!dry) {
    // It confirms that node and disk are the same, or says that they are not.
    await client.createPool(wanted.node, wanted.id, {
      ...wanted.body,
      ...(found.spec?.labels ? { labels: found.spec.labels } : {}),
    });
    for (const [key, value] of labels) await client.labelPool(wanted.id, key, value, true);
  }
  return { ...base, result: labels.length === 0 ? "unchanged" : "configured" };
}

async function applyVolume(session: Session, wanted: WantedVolume, dry: boolean): Promise<Result> {
  const { client } = session;
  const { id, body } = wanted;
  const found = await existing(client.volume(id));
  const base = { object: wanted.title, id };
  if (found === null) {
    if (!dry) {
      if (wanted.snapshot === null) await client.createVolume(id, body);
      else await client.restoreVolume(wanted.snapshot, id, body);
    }
    return { ...base, result: "created", message: `volume ${id}` };
  }
  const { spec } = found;
  if (spec.thin !== body.thin) {
    throw new TrilithError(
      "Conflict",
      `volume ${id} is ${spec.thin ? "thin" : "thick"}; that cannot be changed`,
      "make another claim and copy the data",
    );
  }
  if (body.size < spec.size) {
    throw new TrilithError(
      "NotAcceptable",
      `volume ${id} has ${humanSize(spec.size)}; it cannot be made smaller (${humanSize(body.size)})`,
    );
  }
  const changes: string[] = [];
  if (body.size > spec.size) {
    changes.push(`size ${humanSize(body.size)}`);
    if (!dry) await client.resizeVolume(id, body.size);
  }
  const step = Math.sign(body.replicas - spec.num_replicas);
  if (step !== 0) changes.push(`${body.replicas} replicas`);
  for (let count = spec.num_replicas; count !== body.replicas && !dry; ) {
    count += step;
    await client.setReplicaCount(id, count);
  }
  const limit = body.max_snapshots;
  if (limit !== undefined && limit !== (spec.max_snapshots ?? undefined)) {
    changes.push(`at most ${limit} snapshots`);
    if (!dry) await client.setMaxSnapshots(id, limit);
  }
  if (changes.length === 0) return { ...base, result: "unchanged", message: `volume ${id}` };
  return { ...base, result: "configured", message: `volume ${id}: ${changes.join(", ")}` };
}

async function applySnapshot(
  session: Session,
  wanted: WantedSnapshot,
  dry: boolean,
): Promise<Result> {
  const { client } = session;
  const base = { object: wanted.title, id: wanted.id, message: `snapshot ${wanted.id}` };
  const [found] = await client.snapshots({ snapshot: wanted.id });
  if (found !== undefined) return { ...base, result: "unchanged" };
  if (!dry) await client.createSnapshot(wanted.volume, wanted.id);
  return { ...base, result: "created" };
}

async function applyOne(session: Session, wanted: Wanted, dry: boolean): Promise<Result> {
  switch (wanted.kind) {
    case "pool":
      return await applyPool(session, wanted, dry);
    case "volume":
      return await applyVolume(session, wanted, dry);
    case "snapshot":
      return await applySnapshot(session, wanted, dry);
    case "remark":
      if (wanted.error !== undefined) throw wanted.error;
      return { object: wanted.title, result: "skipped", message: wanted.text };
  }
}

function resultLine({ object, result, message }: Result, dry: boolean): string {
  const suffix = dry && result !== "skipped" ? " (dry run)" : "";
  return `${object} ${result}${message === undefined ? "" : `: ${message}`}${suffix}`;
}

/** Carries out all that can be; the exit status is that of the first that failed. */
async function apply(session: Session, options: ApplyOptions): Promise<void> {
  const { context } = session;
  const dry = options.dryRun === true;
  const manifests = await readManifests(context, options.filename);
  const results: Result[] = [];
  for (const wanted of wantedBy(manifests, options.replicas)) {
    try {
      const result = await applyOne(session, wanted, dry);
      results.push(result);
      if (session.output === "none") context.print(resultLine(result, dry));
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      const { message, remedy, code } = error;
      results.push({ object: wanted.title, result: "failed", message, remedy });
      context.printError(`error: ${wanted.title}: ${message}`);
      if (remedy !== "") context.printError(`  ${remedy}`);
      context.exitStatus ??= facesOf(code).exit;
    }
  }
  printObjects(session, results);
}

/** The `apply` verb. */
export function applyCommand(context: CliContext): Command {
  return new Command("apply")
    .description(
      "Makes the cluster be as manifests say, without Kubernetes: DiskPool and MayastorPool\n" +
        "(openebs.io), PersistentVolumeClaim, VolumeSnapshot. A StorageClass is not kept: it says\n" +
        "what the claims in the same files are to be. Applying again changes what differs.",
    )
    .requiredOption(
      "-f, --filename <path>",
      "file, folder, or - for standard input; may be given more than once",
      (path: string, former: readonly string[] | undefined) => [...(former ?? []), path],
    )
    .option(
      "--replicas <n>",
      "copies of volumes, instead of what the StorageClass says",
      countArgument(1, 255),
    )
    .option("--dry-run", "only say what would be done")
    .action(
      withSession<[], ApplyOptions>(context, (session, _args, options) => apply(session, options)),
    );
}
