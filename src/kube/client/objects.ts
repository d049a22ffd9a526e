/** Objects of Kubernetes' API, as far as they are looked into, and where they are found. */

export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Any object. */
export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
}

export interface KubeList<T> {
  readonly metadata: { readonly resourceVersion?: string; readonly continue?: string };
  readonly items: readonly T[];
}

/** A kind of object: where the API has it. */
export interface Resource {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

/**
 * Path of a resource's collection (in all namespaces when none is given), of one object of it, or
 * of a subresource of that.
 */
export function pathOf(
  { group, version, plural, namespaced }: Resource,
  at: { readonly namespace?: string | undefined; readonly name?: string } = {},
  subresource?: string,
): string {
  const base = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const parts = [base];
  if (namespaced && at.namespace !== undefined) {
    parts.push("namespaces", encodeURIComponent(at.namespace));
  }
  parts.push(plural);
  if (at.name !== undefined) parts.push(encodeURIComponent(at.name));
  if (subresource !== undefined) parts.push(subresource);
  return parts.join("/");
}

/** What an object is known by among its kind: `namespace/name`, or `name`. */
export function keyOf({ metadata: { namespace, name } }: KubeObject): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}
