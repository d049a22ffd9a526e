/** `trilith init`: makes a cluster of this one node. */
import { Command } from "commander";
import type { CliContext } from "./context.ts";
import { addNodeOptions, type NodeOptions, newNodeOf } from "./node-options.ts";

/** The `init` verb. Works on the data directory; the node's process does not run yet. */
export function initCommand(context: CliContext): Command {
  const command = new Command("init").description(
    "Makes a new cluster with this node as its only member: the cluster's certificate authority,\n" +
      "this node's certificate and identity. Start the node afterwards (`systemctl start trilith`,\n" +
      "or `trilith server`); let others join with a token (`trilith token create`).",
  );
  return addNodeOptions(command).action(async (options: NodeOptions) => {
    const { initCluster } = await import("../control/membership/init.ts");
    const { identity, path } = await initCluster(newNodeOf(options, (context.now ?? Date.now)()));
    context.print(
      `Cluster ${identity.clusterId} made with node ${identity.nodeId} ` +
        `(${identity.peerEndpoint}) in ${path}`,
    );
  });
}
