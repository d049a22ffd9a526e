/** `trilith csi`: the CSI driver, for a node of Kubernetes or for its controller's sidecars. */
import { hostname } from "node:os";
import { resolve } from "node:path";
import { type Command, Command as CommanderCommand, InvalidArgumentError, Option } from "commander";
import type { RestClient } from "../client/client.ts";
import { type DriverOptions, startDriver } from "../csi/driver.ts";
import {
  checkDriverName,
  KUBELET_DIR_DEFAULT,
  pluginSocket,
  registrationSocket,
} from "../csi/names.ts";
import { nodeService } from "../csi/node/node-service.ts";
import { nodeTopology, zoneLabels } from "../csi/topology.ts";
import { notifySystemd } from "../engine/main/systemd.ts";
import type { Agent } from "../host/agent.ts";
import { clusterAgent } from "../host/cluster-agent.ts";
import { ClusterClients } from "../host/cluster-paths.ts";
import { STATE_FILE_DEFAULT } from "../host/state-file.ts";
import { type Log, makeLog } from "../ops/log.ts";
import type { CliContext } from "./context.ts";
import {
  type CsiControllerOptions,
  csiSocketOption,
  dataLocalityOption,
  driverNameOption,
} from "./csi-options.ts";
import { addLogOptions, type LogCliOptions } from "./engine-options.ts";
import { endSignal } from "./process-end.ts";
import { type GlobalOptions, openSession } from "./session.ts";

interface CsiCliOptions extends CsiControllerOptions, LogCliOptions, Partial<GlobalOptions> {
  readonly node?: true;
  readonly controller?: true;
  readonly nodeName: string;
  readonly kubeletDir: string;
  readonly topology?: Readonly<Record<string, string>>;
  readonly hostState: string;
  readonly stopOnStdinEnd?: true;
}

function addSegment(text: string, former: Readonly<Record<string, string>> = {}) {
  const [, key, value] = /^([^=\s]+)=([^=\s]+)$/.exec(text) ?? [];
  if (key === undefined || value === undefined) {
    throw new InvalidArgumentError(`"${text}" is not like topology.kubernetes.io/zone=a.`);
  }
  return { ...former, [key]: value };
}

/** The agent that connects volumes here. Where `trilith host agent` runs, that one keeps them connected. */
function agentOf(client: RestClient, cli: CsiCliOptions, log: Log): Agent {
  const clients = new ClusterClients([client]);
  return clusterAgent({ clients, stateFile: cli.hostState, log });
}

async function nodePart(
  client: RestClient,
  agent: Agent,
  cli: CsiCliOptions,
  driverName: string,
  log: Log,
): Promise<NonNullable<DriverOptions["node"]>> {
  const { nodeName, kubeletDir } = cli;
  const zone = await zoneLabels(client, nodeName);
  const topology = nodeTopology(nodeName, { ...zone, ...cli.topology });
  return {
    handlers: nodeService({ nodeName, topology, agent, client, log }),
    known: { nodeName, topology },
    registrationSocket: registrationSocket(kubeletDir, driverName),
  };
}

async function run(context: CliContext, cli: CsiCliOptions): Promise<void> {
  const log = makeLog({ format: cli.logFormat, level: cli.logLevel });
  const driverName = checkDriverName(cli.driverName);
  const { client } = openSession(context, cli);
  const isBoth = cli.node === undefined && cli.controller === undefined;
  const agent = isBoth || cli.node === true ? agentOf(client, cli, log) : null;
  const driver = await startDriver({
    driverName,
    socket: resolve(cli.csiSocket ?? pluginSocket(cli.kubeletDir, driverName)),
    client,
    controller: isBoth || cli.controller === true ? { dataLocality: cli.dataLocality } : null,
    node: agent === null ? null : await nodePart(client, agent, cli, driverName, log),
    log,
  });
  agent?.keep();
  const ending = endSignal(cli.stopOnStdinEnd === true);
  notifySystemd("READY=1");
  const reason = await ending;
  log("info", "CSI driver stops", { reason });
  notifySystemd("STOPPING=1");
  await driver.stop();
  // What is staged stays connected: pods go on while the driver is restarted.
  agent?.close();
}

/** The `csi` verb. */
export function csiCommand(context: CliContext): Command {
  const command = new CommanderCommand("csi")
    .description(
      "Runs the CSI driver on this machine, and reaches the cluster through its HTTP API (--rest,\n" +
        "--token). With neither --controller nor --node it does both: what the controller's sidecars\n" +
        "ask for, and what the kubelet of this node does.",
    )
    .option("--controller", "answer the controller's sidecars")
    .option("--node", "use volumes on this machine, and register with its kubelet")
    .addOption(
      new Option("--node-name <name>", "name of the Kubernetes node")
        .env("TRILITH_NODE_NAME")
        .default(hostname(), "the host name"),
    )
    .addOption(driverNameOption())
    .addOption(
      new Option("--kubelet-dir <path>", "folder of the kubelet")
        .env("TRILITH_KUBELET_DIR")
        .default(KUBELET_DIR_DEFAULT),
    )
    .addOption(csiSocketOption("plugins/<driver>/csi.sock in the kubelet's folder"))
    .addOption(dataLocalityOption())
    .addOption(
      new Option("--topology <key=value>", "further topology of this node").argParser(addSegment),
    )
    .addOption(
      new Option("--host-state <file>", "where it is kept what this host is to be connected to")
        .env("TRILITH_HOST_STATE")
        .default(STATE_FILE_DEFAULT)
        .argParser((text) => resolve(text)),
    )
    .addOption(new Option("--stop-on-stdin-end").hideHelp());
  return addLogOptions(command).action((_options: unknown, called: Command) =>
    run(context, called.optsWithGlobals() as CsiCliOptions),
  );
}
