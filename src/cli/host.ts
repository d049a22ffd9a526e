/** `trilith host`: connects this host to volumes, and keeps it connected. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Command, Option } from "commander";
import { type RestClient, restClient } from "../client/client.ts";
import { parseEndpointUrl } from "../client/endpoint.ts";
import type { Volume, VolumePath } from "../client/types.ts";
import { notifySystemd } from "../engine/main/systemd.ts";
import { facesOf, TrilithError } from "../errors.ts";
import type { Agent } from "../host/agent.ts";
import { clusterAgent } from "../host/cluster-agent.ts";
import { ClusterClients, knownPaths } from "../host/cluster-paths.ts";
import { connectBlocking } from "../host/fabrics.ts";
import type { ConnectedVolume, ConnectOptions } from "../host/host.ts";
import { defaultHostNqn, readHostFacts } from "../host/identity.ts";
import { type HostKernel, linuxKernel } from "../host/kernel.ts";
import { STATE_FILE_DEFAULT, takeKeeping } from "../host/state-file.ts";
import { endpointText, nqnOf } from "../names.ts";
import { makeLog } from "../ops/log.ts";
import { countArgument } from "./arguments.ts";
import type { CliContext } from "./context.ts";
import { volumeId } from "./create.ts";
import { addLogOptions, type LogCliOptions } from "./engine-options.ts";
import { humanSize } from "./output/size.ts";
import type { Cell } from "./output/table.ts";
import { endSignal } from "./process-end.ts";
import {
  type GlobalOptions,
  idArgument,
  openSession,
  printDone,
  printTable,
  type Session,
  withSession,
} from "./session.ts";

interface StateOptions {
  readonly state: string;
}

interface ConnectCliOptions extends StateOptions {
  readonly hostNqn?: string;
  readonly ctrlLossTmo: number;
  readonly reconnectDelay: number;
  readonly keepAliveTmo: number;
  readonly fastIoFailTmo?: number;
  readonly ioQueues?: number;
  readonly queueDepth?: number;
  readonly hdrDigest?: true;
  readonly dataDigest?: true;
}

const stateOption = () =>
  new Option("--state <file>", "where it is kept what this host is to be connected to")
    .env("TRILITH_HOST_STATE")
    .default(STATE_FILE_DEFAULT)
    .argParser((text) => resolve(text));

/** Nothing but what is wrong, as a verb that ends at once says it. */
function quietLog(context: CliContext) {
  return makeLog({ format: "text", level: "error", journal: false, write: context.printError });
}

/** What a line works on. */
interface HostSession extends Session {
  readonly kernel: HostKernel;
}

function agentFor({ context, client, kernel }: HostSession, options: StateOptions): Agent {
  const clients = new ClusterClients([client]);
  return clusterAgent({ kernel, clients, stateFile: options.state, log: quietLog(context) });
}

// ---------------------------------------------------------------------------------------- connect

/** Publishes the volume to this host unless it is published; never moves it. */
async function publishedTo(client: RestClient, id: string, hostNqn: string): Promise<Volume> {
  const volume = await client.volume(id);
  const { target } = volume.spec;
  if (target === null || target === undefined) {
    const body = { publish_context: {}, protocol: "nvmf", frontend_node: hostNqn } as const;
    return await client.publishVolume(id, body);
  }
  const hosts = target.frontend_nodes ?? [];
  if (target.protocol !== "nvmf" && target.protocol !== undefined && target.protocol !== null) {
    throw new TrilithError(
      "AlreadyPublished",
      `volume ${id} is published on ${target.node} over ${target.protocol}, not over NVMe/TCP`,
      `trilith unpublish volume ${id}, then again`,
    );
  }
  if (hosts.length === 0 || hosts.some(({ nqn }) => nqn === hostNqn)) return volume;
  throw new TrilithError(
    "AlreadyPublished",
    `volume ${id} is published to ${hosts.map(({ name }) => name).join(", ")}, not to ${hostNqn}`,
    `disconnect it there and \`trilith unpublish volume ${id}\`, then again; or give --host-nqn`,
  );
}

/** The paths that can be connected now. A volume that was just published may take a moment. */
async function servedPaths(session: Session, id: string): Promise<readonly VolumePath[]> {
  const untilMs = session.now() + 30_000;
  for (;;) {
    const paths = await session.client.paths(id);
    if (paths.some(({ state }) => state === "serving") || session.now() > untilMs) return paths;
    await session.sleep(250);
  }
}

function connectOptions(cli: ConnectCliOptions): ConnectOptions {
  return {
    ctrlLossTmoSeconds: cli.ctrlLossTmo,
    reconnectDelaySeconds: cli.reconnectDelay,
    keepAliveTmoSeconds: cli.keepAliveTmo,
    ...(cli.fastIoFailTmo === undefined ? {} : { fastIoFailTmoSeconds: cli.fastIoFailTmo }),
    ...(cli.ioQueues === undefined ? {} : { ioQueues: cli.ioQueues }),
    ...(cli.queueDepth === undefined ? {} : { queueDepth: cli.queueDepth }),
    ...(cli.hdrDigest === true ? { headerDigest: true } : {}),
    ...(cli.dataDigest === true ? { dataDigest: true } : {}),
  };
}

/** True when some process keeps the connections of the state file. */
function isKept(stateFile: string): boolean {
  const give = takeKeeping(stateFile);
  give?.();
  return give === null;
}

async function connect(session: HostSession, id: string, cli: ConnectCliOptions): Promise<void> {
  const { context, client, kernel } = session;
  await kernel.prepare();
  const hostNqn = cli.hostNqn ?? defaultHostNqn(readHostFacts());
  await publishedTo(client, id, hostNqn);
  const paths = knownPaths(await servedPaths(session, id)).filter(({ isPending }) => !isPending);
  const agent = agentFor(session, cli);
  const aborter = new AbortController();
  const release = context.onInterrupt?.(() => aborter.abort());
  try {
    const request = {
      volumeUuid: id,
      nqn: nqnOf(id),
      paths,
      hostNqn,
      options: connectOptions(cli),
    };
    const volume = await agent.connect(request, aborter.signal);
    printDone(session, volume, volume.device ?? "");
  } finally {
    release?.();
    agent.close();
  }
  if (!isKept(cli.state)) {
    context.printError(
      "warning: no agent runs that would follow the volume to other nodes\n" +
        "  systemctl enable --now trilith-host",
    );
  }
}

/** From the least that may be to a little over a month. */
const seconds = (least: number) => (text: string) =>
  text === "-1" && least < 0 ? -1 : countArgument(Math.max(0, least), 3_000_000)(text);

function connectCommand(context: CliContext, kernel: HostKernel): Command {
  return new Command("connect")
    .description(
      "Connects this host to a volume over all of its paths and prints the block device. A volume that\n" +
        "is not published is published to this host; one that is, is left where it is. The agent\n" +
        "(systemd's trilith-host) keeps it connected from then on, also across moves and restarts.",
    )
    .addArgument(idArgument("volume"))
    .option("--host-nqn <nqn>", "as whom to connect (default: /etc/nvme/hostnqn, else made up)")
    .option(
      "--ctrl-loss-tmo <s>",
      "seconds for which a lost path is tried again; -1: for ever",
      seconds(-1),
      1980,
    )
    .option("--reconnect-delay <s>", "seconds from one attempt to the next", seconds(1), 2)
    .option("--keep-alive-tmo <s>", "seconds after which silence is a loss", seconds(1), 5)
    .option(
      "--fast-io-fail-tmo <s>",
      "seconds after which I/O fails when no path is left (default: it waits)",
      seconds(0),
    )
    .option("--io-queues <n>", "queues per path (default: one per CPU)", countArgument(1, 128))
    .option("--queue-depth <n>", "commands per queue", countArgument(16, 1024))
    .option("--hdr-digest", "checksums over headers")
    .option("--data-digest", "checksums over data")
    .addOption(stateOption())
    .action(
      withSession<[string], ConnectCliOptions>(context, (session, [given], options) =>
        connect({ ...session, kernel }, volumeId(given), options),
      ),
    );
}

// ------------------------------------------------------------------------------ disconnect, list

interface DisconnectOptions extends StateOptions {
  readonly unpublish?: true;
  readonly force?: true;
}

function disconnectCommand(context: CliContext, kernel: HostKernel): Command {
  return new Command("disconnect")
    .description("Disconnects this host from a volume. Refused while something uses its device.")
    .addArgument(idArgument("volume"))
    .option("--unpublish", "have the cluster stop serving it, too")
    .option("--force", "although something uses its device: what that writes is lost")
    .addOption(stateOption())
    .action(
      withSession<[string], DisconnectOptions>(context, async (session, [given], options) => {
        const id = volumeId(given);
        const agent = agentFor({ ...session, kernel }, options);
        try {
          await agent.disconnect(id, { force: options.force === true });
        } finally {
          agent.close();
        }
        if (options.unpublish === true) await session.client.unpublishVolume(id, false);
        printDone(session, null, `Volume ${id} disconnected`);
      }),
    );
}

function isWhole(volume: ConnectedVolume): boolean {
  return volume.device !== null && volume.paths.every(({ state }) => state === "live");
}

function pathRows(volume: ConnectedVolume): readonly (readonly Cell[])[] {
  const { volumeUuid, device, sizeBytes, paths } = volume;
  const size = sizeBytes === null ? null : humanSize(sizeBytes);
  if (paths.length === 0) return [[volumeUuid, device, size, null, null, null, null]];
  return paths.map((path) => [
    volumeUuid,
    device,
    size,
    endpointText(path.address, path.port),
    path.controller,
    { text: path.state, tone: path.state === "live" ? "good" : "bad" },
    path.ana,
  ]);
}

const listHeadings = ["VOLUME", "DEVICE", "SIZE", "PATH", "CONTROLLER", "STATE", "ANA"];

function listCommand(context: CliContext, kernel: HostKernel): Command {
  return new Command("list")
    .description(
      "Lists the volumes that this host is connected to, and those that it is to be: a line for each\n" +
        `path. Exit status ${facesOf("Unavailable").exit} when one has no device or a path that is not live.`,
    )
    .addOption(stateOption())
    .action(
      withSession<[], StateOptions>(context, async (session, _args, options) => {
        const agent = agentFor({ ...session, kernel }, options);
        const volumes = await agent.list();
        agent.close();
        printTable(session, volumes, listHeadings, volumes, pathRows);
        if (!volumes.every(isWhole)) context.exitStatus = facesOf("Unavailable").exit;
      }),
    );
}

// ------------------------------------------------------------------------------------- the agent

interface AgentCliOptions extends StateOptions, LogCliOptions, Partial<GlobalOptions> {
  readonly stopOnStdinEnd?: true;
  readonly stayConnected?: true;
}

/** Clients for each address of a list: the agent outlives the node that it asks. */
function clientsOf(context: CliContext, cli: AgentCliOptions): ClusterClients {
  const { client } = openSession(context, { ...cli, rest: "" });
  const given = cli.rest ?? context.env?.TRILITH_REST ?? "";
  const addresses = given.split(",").filter((text) => text.trim() !== "");
  if (addresses.length === 0) return new ClusterClients([client]);
  return new ClusterClients(
    addresses.map((text) =>
      restClient({ ...client.options, endpoint: parseEndpointUrl(text.trim()) }),
    ),
  );
}

async function runAgent(context: CliContext, cli: AgentCliOptions): Promise<void> {
  const log = makeLog({ format: cli.logFormat, level: cli.logLevel });
  const ending = endSignal(cli.stopOnStdinEnd === true);
  const agent = clusterAgent({ clients: clientsOf(context, cli), stateFile: cli.state, log });
  agent.keep();
  notifySystemd("READY=1");
  const reason = await ending;
  log("info", "host agent stops", { reason });
  notifySystemd("STOPPING=1");
  const mayRelease = agent.isKeeper && cli.stayConnected !== true;
  agent.close();
  if (!mayRelease) return;
  for (const [volume, users] of await agent.release()) {
    log("info", "stays connected: it is in use", { volume, by: users.join("; ") });
  }
}

function agentCommand(context: CliContext): Command {
  const command = new Command("agent")
    .description(
      "Keeps this host connected to the volumes that `trilith host connect` was called for: over all\n" +
        "of their paths, wherever they move. Give --rest (or TRILITH_REST) several addresses, parted by\n" +
        "commas, so that it can ask another node when one is away. When it is told to stop it disconnects\n" +
        "what nothing uses, so that a host that shuts down leaves no connection to be found dead.",
    )
    .option("--stay-connected", "leave all connections as they are when it is told to stop")
    .addOption(stateOption())
    .addOption(new Option("--stop-on-stdin-end").hideHelp());
  return addLogOptions(command).action(async (_own: object, called: Command) =>
    runAgent(context, called.optsWithGlobals() as AgentCliOptions),
  );
}

/** A process that makes one connection, for the agent (`src/host/kernel.ts`). */
function kernelConnectCommand(context: CliContext): Command {
  return new Command("kernel-connect").action(() => {
    context.print(JSON.stringify(connectBlocking(readFileSync(0, "utf8").trim())));
  });
}

/** The `host` verb. */
export function hostCommand(context: CliContext, kernel: HostKernel = linuxKernel): Command {
  return new Command("host")
    .description("Connects this host to volumes, and keeps it connected.")
    .addCommand(connectCommand(context, kernel))
    .addCommand(disconnectCommand(context, kernel))
    .addCommand(listCommand(context, kernel))
    .addCommand(agentCommand(context))
    .addCommand(kernelConnectCommand(context), { hidden: true });
}
