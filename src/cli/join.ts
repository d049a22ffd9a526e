/** `trilith join`: makes this node a member of a cluster. */
import { Command } from "commander";
import { buildInfo } from "../version.ts";
import type { CliContext } from "./context.ts";
import { addNodeOptions, type NodeOptions, newNodeOf } from "./node-options.ts";

/** The `join` verb. Works on the data directory; the node's process does not run yet. */
export function joinCommand(context: CliContext): Command {
  const command = new Command("join")
    .description(
      "Makes this node a member of a cluster. The token names the cluster's certificate\n" +
        "authority, so nothing is sent to a server of another one. Start the node afterwards\n" +
        "(`systemctl start trilith`, or `trilith server`): it gets the cluster's state from the\n" +
        "others, and a vote when it has caught up. May be repeated when it was interrupted.",
    )
    .argument("<address>", "any node of the cluster, e.g. 10.0.0.1 or 10.0.0.1:10126")
    .requiredOption("--token <token>", "made with `trilith token create` on a node of the cluster");
  return addNodeOptions(command).action(
    async (contact: string, options: NodeOptions & { readonly token: string }) => {
      const { joinCluster } = await import("../control/membership/join-client.ts");
      const node = newNodeOf(options, (context.now ?? Date.now)());
      const { identity, path } = await joinCluster({
        ...node,
        contact,
        token: options.token.trim(),
        version: buildInfo.version,
      });
      context.print(
        `Node ${identity.nodeId} (${identity.peerEndpoint}) joined cluster ${identity.clusterId} ` +
          `as member ${identity.raftId}, in ${path}`,
      );
    },
  );
}
