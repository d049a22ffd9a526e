/**
 * Ids of volumes and snapshots from the names that Kubernetes gives them: `pvc-<uuid>` and
 * `snapshot-<uuid>` carry theirs, as with Mayastor; any other name always gives the same one.
 */
import { createHash } from "node:crypto";
import { TrilithError } from "../../errors.ts";
import { NAME_BYTES_MAX } from "../limits.ts";

/** Namespaces of name-based UUIDs (RFC 9562, 5.5), one for each kind of name. */
const NAMESPACES = {
  pvc: "3d3d86b5-7f0c-4a55-9e38-6f9f1e4b8c11",
  snapshot: "f1a0a5a0-8f5c-4f0e-b1f6-0c2d7a6e9d42",
} as const;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Version 5: SHA-1 of the namespace's bytes and the name. */
function nameBasedUuid(namespace: string, name: string): string {
  const bytes = createHash("sha1")
    .update(Buffer.from(namespace.replaceAll("-", ""), "hex"))
    .update(name)
    .digest()
    .subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x50;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function uuidOfName(kind: keyof typeof NAMESPACES, name: string): string {
  if (name === "") throw new TrilithError("InvalidArgument", "the request has no name");
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new TrilithError(
      "InvalidArgument",
      `the name has ${Buffer.byteLength(name)} bytes, ${NAME_BYTES_MAX} are allowed`,
    );
  }
  const own = name.startsWith(`${kind}-`) ? name.slice(kind.length + 1).toLowerCase() : "";
  return UUID.test(own) ? own : nameBasedUuid(NAMESPACES[kind], name);
}

/** The id of the volume of this name. Throws `InvalidArgument` without a name. */
export function volumeIdOf(name: string): string {
  return uuidOfName("pvc", name);
}

/** The id of the snapshot of this name. Throws `InvalidArgument` without a name. */
export function snapshotIdOf(name: string): string {
  return uuidOfName("snapshot", name);
}

/** True when it can be the id of something of ours; what cannot does not exist. */
export function isId(text: string): boolean {
  return UUID.test(text);
}

/** The id, when it is given at all. Throws `InvalidArgument`. */
export function requiredId(what: string, text: string): string {
  if (text !== "") return text;
  throw new TrilithError("InvalidArgument", `the request has no ${what}`);
}

/** The error for an id that nothing has. */
export function noSuch(what: string, id: string): TrilithError {
  return new TrilithError("NotFound", `there is no ${what} "${id}"`);
}
