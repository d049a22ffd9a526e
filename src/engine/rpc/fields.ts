/** Fields that several parts of the engine's API share. */
import * as v from "valibot";
import { errorCodes } from "../../errors.ts";

/** A whole number that is exact in JSON. */
export const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** A UUID; becomes lower case. */
export const Uuid = v.pipe(
  v.string(),
  v.regex(
    /^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$/,
    "not a UUID",
  ),
  v.toLowerCase(),
);

/** Names of pools, snapshots and the like. */
export const Name = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/,
    "not 1 to 128 letters, digits or . _ : - (beginning with a letter or digit)",
  ),
);

/** Free text that an engine keeps for whoever gave it. */
export const Tag = v.pipe(
  v.string(),
  v.maxLength(255),
  v.regex(/^[^\p{Cc}]*$/u, "control characters"),
);

/** An NVMe qualified name. */
export const Nqn = v.pipe(
  v.string(),
  v.startsWith("nqn.", "does not begin with nqn."),
  v.maxBytes(223),
  v.regex(/^[\x21-\x7e]+$/, "characters that an NQN cannot have"),
);

/** A device URI or path; what is wrong with it is said by `parseBdevUri`. */
export const Uri = v.pipe(v.string(), v.minLength(1), v.maxBytes(1024));

/** A number of bytes. */
export const Bytes = Count;
/** A number of bytes that is not zero. */
export const Size = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

/** Truth in a query string; callers of the client give the value itself. */
export const QueryFlag = v.union([
  v.boolean(),
  v.pipe(
    v.picklist(["true", "false", "1", "0"]),
    v.transform((text) => text === "true" || text === "1"),
  ),
]);

/** A number in a query string; callers of the client give the value itself. */
export const QueryCount = v.union([
  Count,
  v.pipe(v.string(), v.regex(/^\d{1,15}$/, "not a whole number"), v.transform(Number)),
]);

/** Hosts that may connect, by NQN; absent: every host. */
export const AllowedHosts = v.pipe(
  v.array(Nqn),
  v.minLength(1, "no host at all; leave it out to admit every host, or end the share"),
  v.maxLength(64),
);

/** Controller ids that a subsystem gives out, both ends included. */
export const ControllerIds = v.pipe(
  v.strictObject({
    min: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffef)),
    max: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffef)),
  }),
  v.check((range) => range.min <= range.max, "min is above max"),
);

/** ANA states as NVMe names them (Base 2.0, 8.1). */
export const AnaStateName = v.picklist([
  "optimized",
  "non-optimized",
  "inaccessible",
  "persistent-loss",
  "change",
]);
export type AnaStateName = v.InferOutput<typeof AnaStateName>;

/** The body of every answer that is not a success. */
export const ErrorBodySchema = v.object({
  kind: v.picklist(errorCodes),
  message: v.string(),
  details: v.string(),
});

/** How a device can be reached from elsewhere. */
export const Share = v.object({
  protocol: v.picklist(["nvmf", "nbd"]),
  /** What to hand to an initiator: `nvmf+tcp://address:port/nqn?uuid=` or `nbd://address:port/name`. */
  uri: v.string(),
  /** NVMe only. */
  nqn: v.nullable(v.string()),
  /** Hosts that may connect; null: every host. */
  allowedHosts: v.nullable(v.array(v.string())),
  /** NVMe only. */
  anaState: v.nullable(AnaStateName),
});
export type Share = v.InferOutput<typeof Share>;
