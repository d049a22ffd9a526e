/**
 * The resources that pools are declared by: DiskPool in the four versions that were ever served, and
 * its predecessor MayastorPool (mayastor.md 7.1). All versions of DiskPool have one schema, that of
 * the newest, so that nothing has to convert between them. Pure.
 */
import { DISK_POOL_STORED, diskPoolVersions, POOL_GROUP } from "../names.ts";

type Schema = Readonly<Record<string, unknown>>;

/** A description that is there. */
const described = (description: string) => (description === "" ? {} : { description });
const text = (description = ""): Schema => ({ type: "string", ...described(description) });
const bytes = (description: string): Schema => ({
  type: "integer",
  format: "int64",
  minimum: 0,
  description,
});
const oneOf = (description: string, ...values: string[]): Schema => ({
  type: "string",
  enum: values,
  ...described(description),
});
const object = (description: string, properties: Schema, required: readonly string[] = []) => ({
  type: "object",
  ...described(description),
  ...(required.length === 0 ? {} : { required }),
  properties,
});

const disks: Schema = {
  type: "array",
  description:
    "The one disk: /dev/disk/by-id/..., aio:///path, uring:///path, malloc:///name?size_mb=64",
  minItems: 1,
  maxItems: 1,
  items: { type: "string", minLength: 1, maxLength: 1024 },
};
const node: Schema = {
  type: "string",
  minLength: 1,
  maxLength: 253,
  description: "Name of the node that has the disk",
};

const diskPoolSpec: Schema = object(
  "What the pool is to be",
  {
    node,
    disks,
    topology: object("", {
      labelled: {
        type: "object",
        description: "Labels of the pool, which StorageClasses choose pools by",
        additionalProperties: { type: "string" },
      },
    }),
    clusterSize: text("Unit of allocation, such as 4MiB; a power of two from 64KiB to 1GiB"),
    maxExpansion: text("Accepted and of no effect: every pool can grow with its disk"),
    encryptionConfig: object("Refused: put dm-crypt below the pool", {
      source: object("", { secret: object("", { name: text() }) }),
    }),
  },
  ["node", "disks"],
);

const condition: Schema = object(
  "",
  {
    type: text(),
    status: oneOf("", "True", "False", "Unknown"),
    reason: text(),
    message: text(),
    lastTransitionTime: { type: "string", format: "date-time" },
    observedGeneration: { type: "integer", format: "int64" },
  },
  ["type", "status"],
);

const diskPoolStatus: Schema = object("What the pool is", {
  cr_state: oneOf("What became of this object", "Creating", "Created", "Terminating"),
  pool_status: oneOf("State of the pool", "Unknown", "Online", "Degraded", "Faulted"),
  status: text("State of the pool, in later words"),
  capacity: bytes("Bytes"),
  used: bytes("Bytes"),
  available: bytes("Bytes"),
  capacity_q: text(),
  used_q: text(),
  available_q: text(),
  diskCapacity: text("Size of the disk; more than the capacity: the pool can be expanded"),
  maxExpandableSize: text(),
  clusterSize: text("Unit of allocation"),
  encrypted: { type: "boolean" },
  error: object("What stands in the way", { code: text(), message: text() }),
  conditions: {
    type: "array",
    items: condition,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
  },
});

interface Column {
  readonly name: string;
  readonly type: "string" | "integer" | "date";
  readonly jsonPath: string;
  readonly description?: string;
}
const column = (name: string, jsonPath: string, type: Column["type"] = "string"): Column => ({
  name,
  type,
  jsonPath,
});

const bytesColumns = [
  column("node", ".spec.node"),
  column("state", ".status.cr_state"),
  column("pool_status", ".status.pool_status"),
  column("capacity", ".status.capacity", "integer"),
  column("used", ".status.used", "integer"),
  column("available", ".status.available", "integer"),
];
const newestColumns = [
  column("node", ".spec.node"),
  column("state", ".status.cr_state"),
  column("pool_status", ".status.pool_status"),
  column("error", ".status.error.code"),
  column("capacity", ".status.capacity_q"),
  column("used", ".status.used_q"),
  column("available", ".status.available_q"),
  column("disk_capacity", ".status.diskCapacity"),
];

function schemaOf(description: string, spec: Schema, status: Schema): Schema {
  return {
    openAPIV3Schema: {
      type: "object",
      description,
      required: ["spec"],
      properties: {
        apiVersion: { type: "string" },
        kind: { type: "string" },
        metadata: { type: "object" },
        spec,
        status,
      },
    },
  };
}

function definition(
  names: { readonly plural: string; readonly singular: string; readonly kind: string },
  shortName: string,
  versions: readonly Schema[],
) {
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${names.plural}.${POOL_GROUP}` },
    spec: {
      group: POOL_GROUP,
      scope: "Namespaced",
      names: { ...names, listKind: `${names.kind}List`, shortNames: [shortName] },
      conversion: { strategy: "None" },
      versions,
    },
  };
}

/** The definition of DiskPool. */
export function diskPoolDefinition() {
  const schema = schemaOf("A pool of storage on one disk of a node", diskPoolSpec, diskPoolStatus);
  const versions = diskPoolVersions.map((name) => ({
    name,
    served: true,
    storage: name === DISK_POOL_STORED,
    schema,
    subresources: { status: {} },
    additionalPrinterColumns: name === DISK_POOL_STORED ? newestColumns : bytesColumns,
  }));
  return definition(
    { plural: "diskpools", singular: "diskpool", kind: "DiskPool" },
    "dsp",
    versions,
  );
}

const mayastorPoolStatus: Schema = object("What the pool is", {
  state: text("ONLINE, DEGRADED, FAULTED, PENDING, OFFLINE"),
  reason: text("What stands in the way"),
  node: text(),
  disks: { type: "array", items: { type: "string" } },
  capacity: bytes("Bytes"),
  used: bytes("Bytes"),
  avail: bytes("Bytes"),
});

/** The definition of MayastorPool. */
export function mayastorPoolDefinition() {
  const spec = object("What the pool is to be", { node, disks }, ["node", "disks"]);
  return definition(
    { plural: "mayastorpools", singular: "mayastorpool", kind: "MayastorPool" },
    "msp",
    [
      {
        name: "v1alpha1",
        served: true,
        storage: true,
        schema: schemaOf("A pool, as DiskPool's predecessor has it", spec, mayastorPoolStatus),
        subresources: { status: {} },
        additionalPrinterColumns: [
          column("node", ".spec.node"),
          column("state", ".status.state"),
          column("capacity", ".status.capacity", "integer"),
          column("used", ".status.used", "integer"),
          column("age", ".metadata.creationTimestamp", "date"),
        ],
      },
    ],
  );
}
