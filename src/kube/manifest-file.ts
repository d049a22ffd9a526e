/** Kubernetes manifests as `trilith apply` reads them: YAML or JSON, any number in one file. */
import { TrilithError } from "../errors.ts";

/** Largest file that is read. */
export const MANIFEST_BYTES_MAX = 4 << 20;

/** One object of a file, with where it stood. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace: string;
  readonly metadata: Fields;
  /** The whole object. */
  readonly fields: Fields;
  /** `disks.yaml, document 2`. */
  readonly where: string;
}

export type Fields = Readonly<Record<string, unknown>>;

/** An object of a manifest, or none; `InvalidArgument` for anything else. */
export function objectAt(value: unknown, where: string): Fields {
  if (value === undefined || value === null) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Fields;
  throw new TrilithError("InvalidArgument", `${where} has to be a mapping`);
}

/** A text (or a number or truth value written without quotes), or undefined when it is absent. */
export function textAt(value: unknown, where: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "object") {
    throw new TrilithError("InvalidArgument", `${where} has to be a text`);
  }
  return String(value);
}

/** Names and texts, e.g. labels. */
export function textsAt(value: unknown, where: string): Readonly<Record<string, string>> {
  const fields = objectAt(value, where);
  return Object.fromEntries(
    Object.entries(fields).map(([key, one]) => [key, textAt(one, `${where}.${key}`) ?? ""]),
  );
}

/** One object of a manifest. Throws `InvalidArgument`. */
export function manifestOf(value: unknown, where: string): Manifest {
  const fields = objectAt(value, where);
  const metadata = objectAt(fields.metadata, `${where}: metadata`);
  const apiVersion = textAt(fields.apiVersion, `${where}: apiVersion`);
  const kind = textAt(fields.kind, `${where}: kind`);
  const name = textAt(metadata.name, `${where}: metadata.name`);
  if (apiVersion === undefined || kind === undefined || name === undefined || name === "") {
    throw new TrilithError(
      "InvalidArgument",
      `${where} is no manifest: it needs apiVersion, kind and metadata.name`,
    );
  }
  if (/^INSERT_|_HERE$/.test(name)) {
    throw new TrilithError("InvalidArgument", `${where}: put a name in the place of "${name}"`);
  }
  const namespace = textAt(metadata.namespace, `${where}: metadata.namespace`) ?? "default";
  return { apiVersion, kind, name, namespace, metadata, fields, where };
}

/** All manifests in a file; those inside a `List` too. Throws `InvalidArgument`. */
export function parseManifests(text: string, file: string): Manifest[] {
  let parsed: unknown;
  try {
    parsed = Bun.YAML.parse(text);
  } catch (error) {
    throw new TrilithError(
      "InvalidArgument",
      `${file} is neither YAML nor JSON: ${(error as Error).message}`,
    );
  }
  const documents = Array.isArray(parsed) ? parsed : [parsed];
  return documents.flatMap((document, index) => {
    if (document === null || document === undefined) return [];
    const where = documents.length === 1 ? file : `${file}, document ${index + 1}`;
    const fields = objectAt(document, where);
    if (fields.kind === "List" && Array.isArray(fields.items)) {
      return fields.items.map((item, at) => manifestOf(item, `${where}, item ${at + 1}`));
    }
    return [manifestOf(document, where)];
  });
}
