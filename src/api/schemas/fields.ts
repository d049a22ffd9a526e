/**
 * Fields that several parts of the HTTP API share. What arrives as text (path and query) is turned
 * into what it means here, and the OpenAPI document shows the meaning (`documented`).
 */
import * as v from "valibot";

/** A JSON schema as the OpenAPI document carries it. */
export type JsonSchemaObject = Readonly<Record<string, unknown>>;

/** Key of the metadata by which the document shows something else than would be made of a schema. */
const SHOWN = "openapi";

/** Has the OpenAPI document show `json` in the place of what would be made of the schema. */
export function documented<S extends object>(schema: S, json: JsonSchemaObject): S {
  const piped = v.pipe(schema as unknown as v.GenericSchema, v.metadata({ [SHOWN]: json }));
  return piped as unknown as S;
}

/** What the document shows in the place of a schema, by its metadata, when that was said. */
export function shownAs(action: object): JsonSchemaObject | undefined {
  return (action as { metadata?: Record<string, JsonSchemaObject> }).metadata?.[SHOWN];
}

/** A whole number that is exact in JSON. Named int64 as in the contract. */
export const Bytes = documented(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), {
  type: "integer",
  format: "int64",
  minimum: 0,
});
/** A number of bytes that is not zero. */
export const Size = documented(v.pipe(v.number(), v.safeInteger(), v.minValue(1)), {
  type: "integer",
  format: "int64",
  minimum: 1,
});
export const Count = documented(
  v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff)),
  { type: "integer", format: "int64", minimum: 0, maximum: 0xffff_ffff },
);
export const Percent = documented(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(100)), {
  type: "integer",
  minimum: 0,
  maximum: 100,
});

/** A UUID; becomes lower case. */
export const Uuid = documented(v.pipe(v.string(), v.uuid("not a UUID"), v.toLowerCase()), {
  type: "string",
  format: "uuid",
});

/** Text without control characters. */
export const Text = documented(
  v.pipe(
    v.string(),
    v.maxLength(255, "longer than 255 characters"),
    v.regex(/^[^\p{Cc}]*$/u, "control characters"),
  ),
  { type: "string", maxLength: 255 },
);

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
/** Names of nodes, pools and the like, where they are given. */
export const Name = documented(
  v.pipe(
    v.string(),
    v.regex(NAME, "not 1 to 128 letters, digits or . _ : - (beginning with a letter or digit)"),
  ),
  { type: "string", pattern: NAME.source },
);
/** Names where they are asked for: what is no name is not found. */
export const AnyName = documented(v.pipe(v.string(), v.minLength(1), v.maxLength(255)), {
  type: "string",
  minLength: 1,
  maxLength: 255,
});

const LABEL_KEY =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/;
/** Key of a label (mayastor.md 2: at most 63 characters a part, one `/`). */
export const LabelKey = documented(
  v.pipe(
    v.string(),
    v.regex(LABEL_KEY, "not a label key: letters, digits, - _ . and one / between, 63 characters"),
  ),
  { type: "string", pattern: LABEL_KEY.source },
);
export const LabelValue = documented(
  v.pipe(
    v.string(),
    v.regex(LABEL_VALUE, "not a label value: letters, digits, - _ . , at most 63 characters"),
  ),
  { type: "string", pattern: LABEL_VALUE.source },
);
const REASON = /^[A-Za-z0-9](?:[A-Za-z0-9_./:@-]{0,126}[A-Za-z0-9])?$/;
/** Label of a cordon or a drain: the reason for it. */
export const ReasonLabel = documented(
  v.pipe(v.string(), v.regex(REASON, "not 1 to 128 letters, digits or . _ : @ / -")),
  { type: "string", pattern: REASON.source },
);

/** Free labels of volumes and pools. */
export const Labels = v.record(LabelKey, LabelValue);
/** Labels as they are shown. */
export const ShownLabels = v.record(v.string(), v.string());

/** An NVMe qualified name. */
export const Nqn = documented(
  v.pipe(v.string(), v.regex(/^nqn\.[\x21-\x7e]{1,219}$/, "not an NVMe qualified name (nqn....)")),
  { type: "string", pattern: "^nqn\\.[\\x21-\\x7e]{1,219}$" },
);

/** URI or path of a device. */
export const DeviceUri = documented(v.pipe(v.string(), v.minLength(1), v.maxLength(1024)), {
  type: "string",
  minLength: 1,
  maxLength: 1024,
});

/** A time, as RFC 3339. */
export const Time = documented(v.pipe(v.string(), v.isoTimestamp()), {
  type: "string",
  format: "date-time",
});

/** Truth in a query string. */
export const QueryFlag = documented(
  v.pipe(
    v.picklist(["true", "false"], "neither true nor false"),
    v.transform((text) => text === "true"),
  ),
  { type: "boolean" },
);
/** A number in a path or a query string, from 0 to `max`. */
export function queryCount(max: number, min = 0) {
  return documented(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,15}$/, "not a whole number"),
      v.transform(Number),
      v.minValue(min, `below ${min}`),
      v.maxValue(max, `above ${max}`),
    ),
    { type: "integer", minimum: min, maximum: max },
  );
}
const TOKEN_MAX = 999_999_999;
/** How many entries, and from which on (mayastor.md 1.1: the token is a plain offset). */
export const pageQuery = {
  /** 0, or left out: all. */
  max_entries: v.optional(queryCount(TOKEN_MAX), "0"),
  starting_token: v.optional(queryCount(TOKEN_MAX), "0"),
} as const;

/** A parameter that may be given several times: always a list. */
export function queryList<S extends v.GenericSchema<string, string>>(item: S) {
  return v.pipe(v.array(item), v.maxLength(64));
}

export const SpecStatus = v.picklist(["Creating", "Created", "Deleting", "Deleted"]);
export const Protocol = v.picklist(["none", "nvmf", "iscsi", "nbd"]);
export const VolumeShareProtocol = v.picklist(["nvmf", "iscsi"]);
export const NexusShareProtocol = v.picklist(["nvmf", "iscsi"]);
export const ReplicaShareProtocol = v.picklist(["nvmf"]);
