/** What the objects that declare pools ask for; for the operator, and for `trilith apply` without Kubernetes. Pure. */

import type { CreatePoolBody } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import { type Manifest, objectAt, textAt, textsAt } from "./manifest-file.ts";
import { CREATED_BY_LABEL, CREATED_BY_OPERATOR, diskPoolVersions } from "./names.ts";
import { parseSize } from "./size.ts";

export interface WantedPool {
  readonly kind: "pool";
  /** As kubectl names it: `diskpool.openebs.io/pool-1`. */
  readonly title: string;
  readonly node: string;
  readonly id: string;
  readonly body: CreatePoolBody;
}

/** The pool that a DiskPool or MayastorPool asks for. Throws `InvalidArgument`, `Unimplemented`. */
export function poolOf(manifest: Manifest): WantedPool {
  const { where } = manifest;
  const version = manifest.apiVersion.slice("openebs.io/".length);
  if (!(diskPoolVersions as readonly string[]).includes(version)) {
    throw new TrilithError(
      "InvalidArgument",
      `${where}: ${manifest.apiVersion} is not known`,
      `use openebs.io/${diskPoolVersions.at(-2)}`,
    );
  }
  const spec = objectAt(manifest.fields.spec, `${where}: spec`);
  const node = textAt(spec.node, `${where}: spec.node`);
  const disks = spec.disks;
  if (node === undefined || /^INSERT_/.test(node)) {
    throw new TrilithError("InvalidArgument", `${where}: spec.node has to name a node`);
  }
  const disk = Array.isArray(disks) && disks.length === 1 ? (disks[0] as unknown) : undefined;
  if (typeof disk !== "string" || /^INSERT_/.test(disk)) {
    throw new TrilithError("InvalidArgument", `${where}: spec.disks has to name exactly one disk`);
  }
  if (spec.encryptionConfig !== undefined && spec.encryptionConfig !== null) {
    throw new TrilithError(
      "Unimplemented",
      `${where}: spec.encryptionConfig: pools are not encrypted by trilith`,
      "put dm-crypt below the pool: cryptsetup open <disk> <name>, then disks: [/dev/mapper/<name>]",
    );
  }
  const topology = objectAt(spec.topology, `${where}: spec.topology`);
  const labels = textsAt(topology.labelled, `${where}: spec.topology.labelled`);
  const clusterText = textAt(spec.clusterSize, `${where}: spec.clusterSize`);
  const clusterSize = clusterText === undefined ? undefined : parseSize(clusterText);
  if (clusterText !== undefined && clusterSize === undefined) {
    throw new TrilithError(
      "InvalidArgument",
      `${where}: spec.clusterSize "${clusterText}" is no size`,
    );
  }
  return {
    kind: "pool",
    title: `${manifest.kind.toLowerCase()}.openebs.io/${manifest.name}`,
    node,
    id: manifest.name,
    body: {
      disks: [disk],
      // As the operator labels its pools: classes choose them by it.
      labels: { ...labels, [CREATED_BY_LABEL]: CREATED_BY_OPERATOR },
      ...(clusterSize === undefined ? {} : { cluster_size: clusterSize }),
    },
  };
}
