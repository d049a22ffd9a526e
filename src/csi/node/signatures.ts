/**
 * What a device holds, as far as signatures tell: blkid's low-level probe (`blkid -p`, which does not
 * trust a cache), and the bytes at the beginning, because what has no signature is not therefore blank.
 */
import { open } from "node:fs/promises";
import { TrilithError } from "../../errors.ts";
import { commandFailed, type RunCommand } from "./command.ts";
import { BLANK_HEAD_BYTES, PROBE_LIMIT_MS } from "./limits.ts";

/** What was found on a device. */
export type Content =
  | { readonly kind: "blank" }
  | { readonly kind: "file system"; readonly type: string; readonly uuid: string }
  /** Anything else, in words: `a partition table (gpt)`, `LVM2_member`. */
  | { readonly kind: "other"; readonly what: string };

/** Status of blkid when it finds nothing, and when signatures contradict each other. */
const NOTHING_FOUND = 2;
const AMBIVALENT = 8;

/** Reads `blkid -p -o export`: one value per line. */
export function parseProbe(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const at = line.indexOf("=");
    // Blanks and the like are escaped by a backslash.
    if (at > 0) values.set(line.slice(0, at), line.slice(at + 1).replace(/\\(.)/g, "$1"));
  }
  return values;
}

/** What blkid's values stand for; null when it names nothing. */
export function contentOf(values: ReadonlyMap<string, string>): Content | null {
  const type = values.get("TYPE");
  const table = values.get("PTTYPE");
  if (type !== undefined && values.get("USAGE") === "filesystem") {
    return { kind: "file system", type, uuid: values.get("UUID") ?? "" };
  }
  if (type !== undefined) return { kind: "other", what: `${type} (${values.get("USAGE") ?? "?"})` };
  if (table !== undefined) return { kind: "other", what: `a partition table (${table})` };
  return null;
}

/** Offset of the first byte that is not zero, or -1. */
function firstNonZero(bytes: Uint8Array): number {
  return bytes.findIndex((byte) => byte !== 0);
}

/** Reads the beginning of a device, as much as there is of `BLANK_HEAD_BYTES`. */
async function readHead(device: string): Promise<Uint8Array> {
  const handle = await open(device, "r");
  try {
    const bytes = Buffer.alloc(BLANK_HEAD_BYTES);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/**
 * Says what a device holds. Blank is a device without any signature whose first MiB is zeroes, as every
 * new volume is. Errors: those of running a command.
 */
export async function probeDevice(
  run: RunCommand,
  device: string,
  signal?: AbortSignal,
): Promise<Content> {
  const command = ["blkid", "-p", "-o", "export", device];
  const result = await run(command, { limitMs: PROBE_LIMIT_MS, signal });
  if (result.status === AMBIVALENT) {
    return { kind: "other", what: "signatures of several kinds, which contradict each other" };
  }
  if (result.status !== 0 && result.status !== NOTHING_FOUND) {
    throw commandFailed(command, result, "look at the kernel's log for errors of the device");
  }
  const content = result.status === 0 ? contentOf(parseProbe(result.stdout)) : null;
  if (content !== null) return content;
  const at = firstNonZero(await readHead(device));
  if (at === -1) return { kind: "blank" };
  return { kind: "other", what: `data without a known signature (first at byte ${at})` };
}

/** The error for a device that holds something else than is asked for: nothing of it is touched. */
export function foreignContent(device: string, content: Content, wanted: string): TrilithError {
  const found =
    content.kind === "file system"
      ? `the file system ${content.type} (UUID ${content.uuid === "" ? "none" : content.uuid})`
      : content.kind === "other"
        ? content.what
        : "nothing";
  const remedy =
    content.kind === "file system"
      ? `use a StorageClass or PersistentVolume with fsType ${content.type}, or, if the data is not needed, delete the volume and make a new one`
      : "if the data is needed, attach the volume in raw block mode; if it is not, delete the volume and make a new one";
  return new TrilithError(
    "ForeignDisk",
    `${device} is to hold ${wanted} and holds ${found}; it is left as it is`,
    remedy,
  );
}
