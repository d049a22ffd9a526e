/** Settings of an engine: what they may be, and what they are when nothing is said. */
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { availableParallelism, hostname, networkInterfaces } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { isIpAddress } from "../../ffi/index.ts";
import { TrilithError } from "../errors.ts";
import { nodeHostNqn } from "../names.ts";
import {
  ARENA_BYTES_DEFAULT,
  ARENA_BYTES_MAX,
  ARENA_BYTES_MIN,
  CPUS_PER_REACTOR,
  REACTORS_DEFAULT_MAX,
  REACTORS_MAX,
  SPIN_NS_MAX,
} from "./reactor/limits.ts";
import { Nqn, Uuid } from "./rpc/fields.ts";

export const NVMF_PORT_DEFAULT = 8420;
export const DISCOVERY_PORT_DEFAULT = 8009;
export const NBD_PORT_DEFAULT = 10809;
export const RPC_PORT_DEFAULT = 10124;
export const DATA_DIR_DEFAULT = "/var/lib/trilith";

const ARENA_STEP_BYTES = 2 << 20;
const SPIN_NS_LIMIT = 1_000_000;

const Port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65535));
const IpAddress = v.pipe(v.string(), v.check(isIpAddress, "not a numeric IP address"));

/** What may be set. Fields that are absent take their defaults. */
export const EngineOptions = v.strictObject({
  nodeName: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/))),
  hostNqn: v.optional(Nqn),
  hostId: v.optional(Uuid),
  dataDir: v.optional(v.pipe(v.string(), v.startsWith("/", "not an absolute path"))),
  reactors: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(REACTORS_MAX))),
  cores: v.optional(v.array(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1023)))),
  arenaBytes: v.optional(
    v.pipe(
      v.number(),
      v.minValue(ARENA_BYTES_MIN),
      v.maxValue(ARENA_BYTES_MAX),
      v.multipleOf(ARENA_STEP_BYTES, "not a multiple of 2 MiB"),
    ),
  ),
  spinNs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(SPIN_NS_LIMIT))),
  nvmfListen: v.optional(v.pipe(v.array(IpAddress), v.minLength(1), v.maxLength(16))),
  nvmfPort: v.optional(Port),
  /** 0 takes a free port, null does not listen there. */
  discoveryPort: v.optional(v.nullable(Port)),
  nbdPort: v.optional(v.nullable(Port)),
  rpcListen: v.optional(
    v.pipe(v.array(v.strictObject({ address: IpAddress, port: Port })), v.minLength(1)),
  ),
  /** Serve the RPC over mutual TLS too, to whoever has a certificate of the authority for a node. */
  rpcTls: v.optional(
    v.nullable(
      v.strictObject({
        listen: v.pipe(v.array(v.strictObject({ address: IpAddress, port: Port })), v.minLength(1)),
        certFile: v.string(),
        keyFile: v.string(),
        caFile: v.string(),
      }),
    ),
  ),
  address: v.optional(IpAddress),
  recorder: v.optional(v.nullable(v.pipe(v.string(), v.url()))),
});
export type EngineOptions = v.InferInput<typeof EngineOptions>;

/** Settings as an engine runs with them. */
export interface EngineSettings {
  readonly nodeName: string;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly dataDir: string;
  readonly reactors: number;
  /** CPUs that reactors are bound to, one each; null: not bound. */
  readonly cores: readonly number[] | null;
  readonly arenaBytes: number;
  readonly spinNs: number;
  readonly nvmfListen: readonly string[];
  readonly nvmfPort: number;
  readonly discoveryPort: number | null;
  readonly nbdPort: number | null;
  readonly rpcListen: readonly { readonly address: string; readonly port: number }[];
  /** Where the RPC is served over mutual TLS, and with which PEM files; null: nowhere. */
  readonly rpcTls: {
    readonly listen: readonly { readonly address: string; readonly port: number }[];
    readonly certFile: string;
    readonly keyFile: string;
    readonly caFile: string;
  } | null;
  /** Address that share URIs carry. */
  readonly address: string;
  /** Base URL of the recorder that this engine shares with others; null: its own. */
  readonly recorder: string | null;
}

/** True for the addresses that mean every address of the machine. */
export function isAnyAddress(address: string): boolean {
  return address === "0.0.0.0" || address === "::";
}

/** The first address of this machine that others may reach, else loopback. */
export function reachableAddress(): string {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const a of addresses ?? []) if (!a.internal && a.family === "IPv4") return a.address;
  }
  return "127.0.0.1";
}

/** The host id of this node: read from the data directory, where the first start has put it. */
function lastingHostId(dataDir: string): string {
  const path = join(dataDir, "host-id");
  if (existsSync(path)) {
    const id = v.safeParse(Uuid, readFileSync(path, "utf8").trim());
    if (id.success) return id.output;
    throw new TrilithError("Corrupted", `${path} does not hold a UUID`, "remove it");
  }
  const id = randomUUID();
  writeFileSync(`${path}.new`, `${id}\n`, { flush: true });
  renameSync(`${path}.new`, path);
  return id;
}

function checkCores(cores: readonly number[] | undefined, reactors: number): void {
  if (cores === undefined) return;
  if (cores.length !== reactors || new Set(cores).size !== cores.length) {
    throw new TrilithError(
      "InvalidArgument",
      `setting "cores" names ${cores.length} CPUs for ${reactors} reactors`,
      "name one CPU for each reactor, none of them twice",
    );
  }
}

/**
 * Checks options and fills in what is absent. Makes the data directory and, at the first start, the
 * node's host id in it. `InvalidArgument` names the setting that is wrong.
 */
export function engineSettings(given: EngineOptions): EngineSettings {
  const parsed = v.safeParse(EngineOptions, given);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    const name = v.getDotPath(issue) ?? "";
    throw new TrilithError("InvalidArgument", `setting "${name}": ${issue.message}`);
  }
  const o = parsed.output;
  const cpus = availableParallelism();
  const byCpus = Math.max(1, Math.min(REACTORS_DEFAULT_MAX, Math.floor(cpus / CPUS_PER_REACTOR)));
  const reactors = o.reactors ?? o.cores?.length ?? byCpus;
  checkCores(o.cores, reactors);
  const nodeName = o.nodeName ?? hostname();
  const dataDir = o.dataDir ?? DATA_DIR_DEFAULT;
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new TrilithError(
      "PermissionDenied",
      `the data directory ${dataDir} cannot be made: ${text}`,
      "run as root, or name another one with --data-dir",
    );
  }
  const nvmfListen = o.nvmfListen ?? ["0.0.0.0"];
  const specific = nvmfListen.find((address) => !isAnyAddress(address));
  return {
    nodeName,
    hostNqn: o.hostNqn ?? nodeHostNqn(nodeName),
    hostId: o.hostId ?? lastingHostId(dataDir),
    dataDir,
    reactors,
    cores: o.cores ?? null,
    arenaBytes: o.arenaBytes ?? ARENA_BYTES_DEFAULT,
    spinNs: o.spinNs ?? SPIN_NS_MAX,
    nvmfListen,
    nvmfPort: o.nvmfPort ?? NVMF_PORT_DEFAULT,
    discoveryPort: o.discoveryPort === undefined ? DISCOVERY_PORT_DEFAULT : o.discoveryPort,
    nbdPort: o.nbdPort === undefined ? NBD_PORT_DEFAULT : o.nbdPort,
    rpcListen: o.rpcListen ?? [{ address: "127.0.0.1", port: RPC_PORT_DEFAULT }],
    rpcTls: o.rpcTls ?? null,
    address: o.address ?? specific ?? reachableAddress(),
    recorder: o.recorder ?? null,
  };
}
