/** The options of a control process, as the verbs that run one take them. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { API_PORT, isLoopback, type Listen, type TlsFiles } from "../api/serve.ts";
import { type DataDir, findDataDir } from "../control/membership/data-dir.ts";
import { PEER_PORT_DEFAULT } from "../control/membership/limits.ts";
import { parsePeerEndpoint } from "../control/membership/names.ts";
import { checkDriverName } from "../csi/names.ts";
import { engineClient } from "../engine/rpc/client.ts";
import { RPC_PORT_DEFAULT } from "../engine/settings.ts";
import type { TrilithError } from "../errors.ts";
import { inClusterAccess, readKubeconfig } from "../kube/client/access.ts";
import type { Access } from "../kube/client/kubeconfig.ts";
import { endpointText, nodeHostNqn } from "../names.ts";
import { type ControlNode, type Endpoint, startControlNode } from "../node/control-node.ts";
import type { Log } from "../ops/log.ts";
import { METRICS_PORT_DEFAULT } from "../ops/metrics/index.ts";
import {
  type CsiControllerOptions,
  csiSocketOption,
  dataLocalityOption,
  driverNameOption,
} from "./csi-options.ts";
import { type LogCliOptions, parseEndpoint } from "./engine-options.ts";
import { dataDirOf } from "./node-options.ts";

const RECORDER_PORT_DEFAULT = 10125;
/** How often a node that is in no cluster yet looks whether it is now. */
const IDENTITY_LOOK_MS = 500;

export interface ControlCliOptions extends LogCliOptions, CsiControllerOptions {
  readonly nodeName?: string;
  readonly hostNqn?: string;
  readonly dataDir?: string;
  readonly peerListen?: Endpoint;
  readonly restListen: readonly Endpoint[];
  readonly restSocket?: string;
  readonly metricsListen: Endpoint | "none";
  readonly recorderListen?: Endpoint;
  readonly kubeconfig?: string;
  /** False: `--no-kubernetes`. */
  readonly kubernetes: boolean;
  readonly kubernetesSweep?: true;
}

/** How to reach Kubernetes: by the file that was named, or as the pod that this runs in; null: not. */
function kubernetesAccess(cli: ControlCliOptions): Access | null {
  if (!cli.kubernetes) return null;
  return cli.kubeconfig === undefined ? inClusterAccess() : readKubeconfig(cli.kubeconfig);
}

function endpoints(text: string): Endpoint[] {
  return text.split(",").map((part) => parseEndpoint(part.trim(), API_PORT));
}

function endpointOrNone(text: string): Endpoint | "none" {
  return text === "none" ? "none" : parseEndpoint(text, METRICS_PORT_DEFAULT);
}

/** The CSI controller, where the control process is to serve it. */
function csiPart({ csiSocket, driverName, dataLocality }: ControlCliOptions) {
  if (csiSocket === undefined) return null;
  return {
    driverName: checkDriverName(driverName),
    socket: resolve(csiSocket),
    controller: { dataLocality },
  };
}

/** Adds what a control process takes beside the options of its node and its engine. */
export function addControlOptions(command: Command): Command {
  const option = (flags: string, description: string, environment: string) =>
    new Option(flags, description).env(environment);
  return command
    .addOption(
      option(
        "--peer-listen <endpoint>",
        `where to listen for other nodes (default: the node's address and ${PEER_PORT_DEFAULT})`,
        "TRILITH_PEER_LISTEN",
      ).argParser((text) => parseEndpoint(text, PEER_PORT_DEFAULT)),
    )
    .addOption(
      option(
        "--rest-listen <list>",
        "where to serve the HTTP API: plain on the loopback, elsewhere with TLS and tokens",
        "TRILITH_REST_LISTEN",
      )
        .argParser(endpoints)
        .default([{ address: "127.0.0.1", port: API_PORT }], `127.0.0.1:${API_PORT}`),
    )
    .addOption(
      option(
        "--rest-socket <path>",
        "unix socket to serve the HTTP API on, for root alone",
        "TRILITH_REST_SOCKET",
      ),
    )
    .addOption(
      option(
        "--metrics-listen <endpoint>",
        "where to serve metrics for Prometheus, or none",
        "TRILITH_METRICS_LISTEN",
      )
        .argParser(endpointOrNone)
        .default(
          { address: "0.0.0.0", port: METRICS_PORT_DEFAULT },
          `every address, port ${METRICS_PORT_DEFAULT}`,
        ),
    )
    .addOption(
      option(
        "--recorder-listen <endpoint>",
        `where the node's engine records lost children (default: beside the engine's RPC, port ${RECORDER_PORT_DEFAULT})`,
        "TRILITH_RECORDER_LISTEN",
      ).argParser((text) => parseEndpoint(text, RECORDER_PORT_DEFAULT)),
    )
    .addOption(
      option(
        "--kubeconfig <path>",
        "operate pools from Kubernetes (DiskPool), with this access; in a pod: with its own",
        "TRILITH_KUBECONFIG",
      ),
    )
    .addOption(
      option(
        "--kubernetes-sweep",
        "delete volumes that were made for claims and that no claim names any more (for a cluster\nthat one Kubernetes alone uses)",
        "TRILITH_KUBERNETES_SWEEP",
      ),
    )
    .addOption(csiSocketOption("nowhere; `trilith csi` serves it too"))
    .addOption(driverNameOption())
    .addOption(dataLocalityOption())
    .option("--no-kubernetes", "leave Kubernetes alone, even in a pod");
}

/** Address and port of this machine's own way to the engine; the first of `--rpc`. */
export function ownEngineAt(rpc: string | undefined): Endpoint {
  const first = rpc?.split(",")[0]?.trim();
  if (first === undefined || first === "") return { address: "127.0.0.1", port: RPC_PORT_DEFAULT };
  return parseEndpoint(first, RPC_PORT_DEFAULT);
}

/** Where the node records; as a URL for its engine. */
export function recorderAt(cli: ControlCliOptions, engine: Endpoint): Endpoint {
  return cli.recorderListen ?? { address: engine.address, port: RECORDER_PORT_DEFAULT };
}

export function urlOf({ address, port }: Endpoint): string {
  return `http://${endpointText(address, port)}`;
}

/**
 * The data directory once it belongs to a node; null when `ending` comes first. A node that was
 * installed and not made a member yet waits here.
 */
export async function identityOf(
  cli: ControlCliOptions,
  log: Log,
  ending: Promise<unknown>,
): Promise<DataDir | null> {
  const path = dataDirOf(cli);
  const expected = cli.nodeName === undefined ? {} : { nodeId: cli.nodeName };
  const found = findDataDir(path, expected);
  if (found !== null) return found;
  log(
    "info",
    "this node is in no cluster yet: `trilith init` makes one, `trilith join` joins one",
    { dataDir: path },
  );
  let isEnding = false;
  void ending.then(() => {
    isEnding = true;
  });
  while (!isEnding) {
    const made = findDataDir(path, expected);
    if (made !== null) return made;
    await Promise.race([ending, Bun.sleep(IDENTITY_LOOK_MS)]);
  }
  return null;
}

/** Starts the control process of a node. */
export function startControl(
  dataDir: DataDir,
  cli: ControlCliOptions,
  engine: Endpoint,
  log: Log,
  onEnd: (reason: TrilithError) => void,
): Promise<ControlNode> {
  const { identity } = dataDir;
  const access = kubernetesAccess(cli);
  const apiListen = (tls: TlsFiles): Listen[] => [
    ...(cli.restSocket === undefined ? [] : [{ kind: "unix", path: cli.restSocket } as const]),
    ...cli.restListen.map((at) =>
      isLoopback(at.address)
        ? ({ kind: "tcp", ...at } as const)
        : ({ kind: "tcp", ...at, tls } as const),
    ),
  ];
  return startControlNode({
    dataDir,
    peerListen: cli.peerListen ?? parsePeerEndpoint(identity.peerEndpoint, PEER_PORT_DEFAULT),
    apiListen,
    metrics: cli.metricsListen === "none" ? null : cli.metricsListen,
    recorder: recorderAt(cli, engine),
    ownEngine: engineClient(urlOf(engine)),
    hostNqn: cli.hostNqn ?? nodeHostNqn(identity.nodeId),
    csi: csiPart(cli),
    kubernetes: access === null ? null : { access, sweeps: cli.kubernetesSweep === true },
    log,
    onEnd,
  });
}
