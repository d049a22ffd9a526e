/** The options of the verbs that make a data directory a node's: `init` and `join`. */
import { hostname } from "node:os";
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { DATA_DIR_DEFAULT, RPC_PORT_DEFAULT, reachableAddress } from "../engine/settings.ts";
import { endpointText, nodeHostNqn } from "../names.ts";

const PEER_PORT_DEFAULT = 10126;

export interface NodeOptions {
  readonly nodeName?: string;
  readonly dataDir?: string;
  readonly address?: string;
  readonly peerPort?: string;
  readonly engine?: string;
}

/** Adds the options of a new node. */
export function addNodeOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--node-name <name>", "name of this node (default: the host name)").env(
        "TRILITH_NODE_NAME",
      ),
    )
    .addOption(dataDirOption())
    .addOption(
      new Option(
        "--address <address>",
        "address that other nodes reach this one at (default: found out)",
      ).env("TRILITH_ADDRESS"),
    )
    .addOption(
      new Option("--peer-port <n>", `port for other nodes (default: ${PEER_PORT_DEFAULT})`).env(
        "TRILITH_PEER_PORT",
      ),
    )
    .addOption(
      new Option(
        "--engine <endpoint>",
        `where other nodes reach this one's engine (default: the address and ${RPC_PORT_DEFAULT})`,
      ).env("TRILITH_ENGINE"),
    );
}

export function dataDirOption(): Option {
  return new Option("--data-dir <path>", `what this node keeps (default: ${DATA_DIR_DEFAULT})`).env(
    "TRILITH_DATA_DIR",
  );
}

export function dataDirOf(options: { readonly dataDir?: string }): string {
  return resolve(options.dataDir ?? process.env.TRILITH_DATA_DIR ?? DATA_DIR_DEFAULT);
}

/** The new node that the options describe. */
export function newNodeOf(options: NodeOptions, nowMs: number) {
  const nodeId = options.nodeName ?? hostname();
  const address = options.address ?? reachableAddress();
  return {
    dataDir: dataDirOf(options),
    nodeId,
    peerEndpoint: endpointText(address, options.peerPort ?? PEER_PORT_DEFAULT),
    engineEndpoint: options.engine ?? endpointText(address, RPC_PORT_DEFAULT),
    hostNqn: nodeHostNqn(nodeId),
    nowMs,
  };
}
