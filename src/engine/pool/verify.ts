/** Checks that the maps of a pool are possible together. Pure. */

import { CLUSTER_MASK, objectName, type PoolObject, type PoolState } from "./state.ts";
import { metadataClusters, type Superblock } from "./superblock.ts";

/** What was counted, and what is wrong. */
export interface Verification {
  /** References to each cluster. */
  readonly references: Uint16Array;
  /** Clusters that hold metadata, ascending. */
  readonly metadata: readonly number[];
  /** Clusters that hold data of at least one object. */
  readonly used: number;
  /** Clusters that neither metadata nor data occupy. */
  readonly free: number;
  /** Free clusters that thick replicas may still claim. */
  readonly reserved: number;
  readonly errors: readonly string[];
}

const METADATA = -1;
const FREE = 0;

/**
 * Verifies every reference: inside the pool, outside the metadata, shared only inside one family and
 * there at one logical place; and that thick reservations fit the free clusters. At most `errorsMax`
 * errors are described.
 */
export function verifyState(
  state: PoolState,
  superblock: Superblock,
  errorsMax: number,
): Verification {
  const errors: string[] = [];
  let suppressed = 0;
  const report = (text: string) => {
    if (errors.length < errorsMax) errors.push(text);
    else suppressed++;
  };
  const count = state.clusterCount;
  const references = new Uint16Array(count);
  // 0 is free: no fill is needed, and what is never referred to costs no memory.
  const family = new Int32Array(count);
  const place = new Int32Array(count);
  const metadata = metadataClusters(superblock);
  for (const cluster of metadata) family[cluster] = METADATA;
  let used = 0;
  for (const object of state.objects.values()) {
    const { map } = object;
    for (let i = 0; i < map.length; i++) {
      if (map[i]! < 0) continue;
      const cluster = map[i]! & CLUSTER_MASK;
      const wrong = claim(object, i, cluster, count, family, place);
      if (wrong !== "") {
        report(
          `${objectName(object)}: logical cluster ${i} refers to cluster ${cluster}, ${wrong}`,
        );
        continue;
      }
      if (references[cluster] === 0) used++;
      references[cluster] = references[cluster]! + 1;
    }
  }
  const free = count - metadata.length - used;
  let reserved = 0;
  for (const object of state.objects.values()) reserved += reservation(object, references);
  if (reserved > free) report(`thick replicas may claim ${reserved} clusters, ${free} are free`);
  if (suppressed > 0) errors.push(`${suppressed} more`);
  return { references, metadata, used, free, reserved, errors };
}

function claim(
  object: PoolObject,
  index: number,
  cluster: number,
  count: number,
  family: Int32Array,
  place: Int32Array,
): string {
  if (cluster >= count) return "beyond the end of the pool";
  const owner = family[cluster]!;
  if (owner === METADATA) return "which holds metadata";
  if (owner === FREE) {
    family[cluster] = object.family;
    place[cluster] = index;
    return "";
  }
  if (owner !== object.family) return "which belongs to another replica";
  if (place[cluster] !== index) return `which holds logical cluster ${place[cluster]}`;
  return "";
}

/** Free clusters that an object may still claim: none for a thin one. */
function reservation(object: PoolObject, references: Uint16Array): number {
  if (object.thin) return 0;
  let own = 0;
  const { map } = object;
  for (let i = 0; i < map.length; i++) {
    const entry = map[i]!;
    if (entry >= 0 && references[entry & CLUSTER_MASK] === 1) own++;
  }
  return object.map.length - own;
}
