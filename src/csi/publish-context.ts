/**
 * What the controller tells the node service about a published volume, as the text that CSI carries
 * (`publish_context`). The keys of Mayastor's driver keep their meaning (mayastor.md 3.2); beside them
 * stand all paths of the volume, so that a host connects to its standbys from the start.
 */
import { TrilithError } from "../errors.ts";
import type { ConnectOptions, ConnectRequest, VolumePath } from "../host/host.ts";
import { endpointText } from "../names.ts";

/** What a node service needs to use a volume. */
export interface PublishedVolume {
  /** URI of the target when it was published: `nvmf+tcp://10.0.0.1:8420/nqn...`. */
  readonly uri: string;
  readonly connect: ConnectRequest;
  /** A UUID that the file system of a clone is to have instead of its source's. */
  readonly fsId: string | null;
  /** Deprecated, and passed on unread (mayastor.md 3.1). */
  readonly ioTimeout: string | null;
}

type Context = Readonly<Record<string, string>>;

/** Keys of options that are numbers. */
const optionKeys = {
  nvmeCtrlLossTmo: "ctrlLossTmoSeconds",
  nvmeReconnectDelay: "reconnectDelaySeconds",
  nvmeKeepAliveTmo: "keepAliveTmoSeconds",
  nvmeFastIoFailTmo: "fastIoFailTmoSeconds",
  nvmeNrIoQueues: "ioQueues",
  nvmeQueueSize: "queueDepth",
} as const satisfies Record<string, keyof ConnectOptions>;
type OptionKey = keyof typeof optionKeys;
const optionNames = Object.keys(optionKeys) as readonly OptionKey[];

/** The context of a published volume. */
export function publishContextOf(volume: PublishedVolume): Record<string, string> {
  const { nqn, paths, hostNqn, options } = volume.connect;
  const context: Record<string, string> = {
    uri: volume.uri,
    nqn,
    hostNqn,
    paths: paths.map(({ address, port }) => endpointText(address, port)).join(","),
  };
  for (const key of optionNames) {
    const value = options[optionKeys[key]];
    if (value !== undefined) context[key] = String(value);
  }
  if (volume.fsId !== null) context.fsId = volume.fsId;
  if (volume.ioTimeout !== null) context.ioTimeout = volume.ioTimeout;
  return context;
}

function malformed(key: string, what: string): TrilithError {
  return new TrilithError(
    "InvalidArgument",
    `publish context: ${key} ${what}`,
    "it has to be what ControllerPublishVolume of this driver answered",
  );
}

function required(context: Context, key: string): string {
  const value = context[key];
  if (value === undefined || value === "") throw malformed(key, "is missing");
  return value;
}

function pathOf(text: string): VolumePath {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (!(port >= 1 && port <= 65_535)) throw malformed("paths", `holds "${text}"`);
  return { address: (bracketed ?? plain)!, port };
}

/** Options that a context holds: of a published volume, or as its class gives them. `InvalidArgument`. */
export function connectOptionsOf(context: Context): ConnectOptions {
  const options: Record<string, number> = {};
  for (const key of optionNames) {
    const value = context[key];
    if (value === undefined) continue;
    if (!/^(-1|\d{1,10})$/.test(value)) throw malformed(key, `is "${value}", no whole number`);
    options[optionKeys[key]] = Number(value);
  }
  return options;
}

/** What a context says about a volume. Throws `InvalidArgument`. */
export function publishedVolumeOf(volumeUuid: string, context: Context): PublishedVolume {
  return {
    uri: required(context, "uri"),
    connect: {
      volumeUuid,
      nqn: required(context, "nqn"),
      hostNqn: required(context, "hostNqn"),
      paths: required(context, "paths").split(",").map(pathOf),
      options: connectOptionsOf(context),
    },
    fsId: context.fsId ?? null,
    ioTimeout: context.ioTimeout ?? null,
  };
}
