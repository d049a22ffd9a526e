/** The options of an engine, as the verbs that start one take them. */
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import {
  DATA_DIR_DEFAULT,
  DISCOVERY_PORT_DEFAULT,
  type EngineOptions,
  NBD_PORT_DEFAULT,
  NVMF_PORT_DEFAULT,
  RPC_PORT_DEFAULT,
} from "../engine/settings.ts";
import { type LogFormat, type LogLevel, logLevels } from "../ops/log.ts";

function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError(`"${text}" is not a whole number.`);
  return Number(text);
}

function list(text: string): string[] {
  return text.split(",").map((part) => part.trim());
}

function portOrNone(text: string): number | "none" {
  return text === "none" ? text : count(text);
}

function portSetting(port: number | "none" | undefined): number | null | undefined {
  return port === "none" ? null : port;
}

/** `127.0.0.1:10124`, `[::1]:10124`, or an address alone. */
export function parseEndpoint(
  text: string,
  portDefault = RPC_PORT_DEFAULT,
): { address: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::(\d{1,5}))?$/.exec(text);
  if (match === null) throw new InvalidArgumentError(`"${text}" is not like 127.0.0.1:10124.`);
  return {
    address: match[1] ?? match[2]!,
    port: match[3] === undefined ? portDefault : Number(match[3]),
  };
}

/** What the options come to when they have been read. */
export interface EngineCliOptions extends LogCliOptions {
  readonly nodeName?: string;
  readonly hostNqn?: string;
  readonly hostId?: string;
  readonly dataDir?: string;
  readonly reactors?: number;
  readonly cores?: number[];
  readonly arenaMib?: number;
  readonly spinUs?: number;
  readonly listen?: string[];
  readonly port?: number;
  readonly discoveryPort?: number | "none";
  readonly nbdPort?: number | "none";
  readonly rpc?: { address: string; port: number }[];
  readonly rpcTls?: { address: string; port: number }[];
  readonly rpcCert?: string;
  readonly rpcKey?: string;
  readonly rpcCa?: string;
  readonly address?: string;
  readonly recorder?: string;
}

/** How a process logs. */
export interface LogCliOptions {
  readonly logFormat: LogFormat;
  readonly logLevel: LogLevel;
}

const flags: readonly [flags: string, description: string, parse?: (text: string) => unknown][] = [
  ["--node-name <name>", "name of this node (default: the host name)"],
  ["--host-nqn <nqn>", "NQN to connect to other nodes with (default: made of the node's name)"],
  ["--host-id <uuid>", "host id to connect with (default: kept in the data directory)"],
  [
    "--data-dir <path>",
    `what the engine keeps (default: ${DATA_DIR_DEFAULT})`,
    (text) => resolve(text),
  ],
  ["--reactors <n>", "threads of the data path (default: one per two CPUs, at most 4)", count],
  ["--cores <list>", "bind each reactor to a CPU, e.g. 2,3", (text) => list(text).map(count)],
  ["--arena-mib <n>", "memory for buffers of each reactor (default: 64)", count],
  ["--spin-us <n>", "longest wait by polling; 0 never polls (default: 50)", count],
  ["--listen <list>", "addresses to serve NVMe/TCP and NBD on (default: all)", list],
  ["--port <n>", `port of NVMe/TCP (default: ${NVMF_PORT_DEFAULT})`, count],
  [
    "--discovery-port <n>",
    `further port of NVMe discovery, or none (default: ${DISCOVERY_PORT_DEFAULT})`,
    portOrNone,
  ],
  ["--nbd-port <n>", `port of NBD, or none (default: ${NBD_PORT_DEFAULT})`, portOrNone],
  [
    "--rpc <list>",
    `where to serve the engine's RPC (default: 127.0.0.1:${RPC_PORT_DEFAULT})`,
    (text) => list(text).map((part) => parseEndpoint(part)),
  ],
  [
    "--rpc-tls <list>",
    "where to serve the RPC to other nodes, over mutual TLS (default: nowhere)",
    (text) => list(text).map((part) => parseEndpoint(part)),
  ],
  ["--rpc-cert <file>", "certificate for --rpc-tls (PEM)"],
  ["--rpc-key <file>", "its key (default: in the same file)"],
  ["--rpc-ca <file>", "authority of certificates that are let in (PEM)"],
  ["--address <ip>", "address that others reach this node at (default: found out)"],
  ["--recorder <url>", "recorder of child faults to share with other engines (default: own file)"],
];

/** Environment variable of an option: `--node-name` is `TRILITH_NODE_NAME`. */
function environmentName(flag: string): string {
  return `TRILITH_${/--([a-z-]+)/.exec(flag)![1]!.toUpperCase().replaceAll("-", "_")}`;
}

/** Adds the options of an engine to a command, read and checked as it runs them. */
export function addEngineOptions(command: Command): Command {
  for (const [flag, description, parse] of flags) {
    const option = new Option(flag, description).env(environmentName(flag));
    command.addOption(parse === undefined ? option : option.argParser(parse));
  }
  return addLogOptions(command);
}

/** Adds the options of an engine to a command that only passes them on. */
export function addPassedEngineOptions(command: Command): Command {
  for (const [flag, description] of flags) command.addOption(new Option(flag, description));
  return addLogOptions(command);
}

/** The arguments that pass options on to `trilith engine`. What is not given comes from the environment. */
export function passedArguments(options: Readonly<Record<string, unknown>>): string[] {
  const passed: string[] = [];
  const names = [...flags.map(([flag]) => flag), "--log-format <format>", "--log-level <level>"];
  for (const flag of names) {
    const [long] = flag.split(" ");
    const name = long!
      .slice(2)
      .replace(/-([a-z])/g, (_all, letter: string) => letter.toUpperCase());
    const value = options[name];
    if (value !== undefined) passed.push(long!, String(value));
  }
  return passed;
}

/** Adds the options of a process that logs. */
export function addLogOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--log-format <format>", "form of log lines")
        .choices(["text", "json"])
        .default("text")
        .env("TRILITH_LOG_FORMAT"),
    )
    .addOption(
      new Option("--log-level <level>", "least level that is logged")
        .choices(logLevels)
        .default("info")
        .env("TRILITH_LOG_LEVEL"),
    );
}

function rpcTlsOf(o: EngineCliOptions): EngineOptions["rpcTls"] {
  if (o.rpcTls === undefined) return undefined;
  if (o.rpcCert === undefined || o.rpcCa === undefined) {
    throw new InvalidArgumentError("--rpc-tls needs --rpc-cert and --rpc-ca.");
  }
  const keyFile = o.rpcKey ?? o.rpcCert;
  return { listen: o.rpcTls, certFile: o.rpcCert, keyFile, caFile: o.rpcCa };
}

/** Settings as the engine takes them; those that were not given are left out. */
export function engineOptionsOf(o: EngineCliOptions): EngineOptions {
  const options = {
    nodeName: o.nodeName,
    hostNqn: o.hostNqn,
    hostId: o.hostId,
    dataDir: o.dataDir,
    reactors: o.reactors,
    cores: o.cores,
    arenaBytes: o.arenaMib === undefined ? undefined : o.arenaMib * (1 << 20),
    spinNs: o.spinUs === undefined ? undefined : o.spinUs * 1000,
    nvmfListen: o.listen,
    nvmfPort: o.port,
    discoveryPort: portSetting(o.discoveryPort),
    nbdPort: portSetting(o.nbdPort),
    rpcListen: o.rpc,
    rpcTls: rpcTlsOf(o),
    address: o.address,
    recorder: o.recorder,
  };
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as EngineOptions;
}
