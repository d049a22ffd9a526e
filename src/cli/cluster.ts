/** `trilith cluster`: the members, who leads, and the ways out of great losses. */
import { Command } from "commander";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { dataDirOf, dataDirOption } from "./node-options.ts";
import type { Cluster } from "./rest/types.ts";
import { idArgument, printDone, printTable, withSession } from "./session.ts";

function statusCommand(context: CliContext): Command {
  return new Command("status")
    .description("Shows the members as the node that is asked sees them.")
    .action(
      withSession<[], object>(context, async (session) => {
        const cluster = await session.client.cluster();
        const { raft } = cluster;
        const rowOf = (member: Cluster["members"][number]) => [
          member.node === "" ? "(unknown)" : member.node,
          member.raftId,
          member.voter ? "voter" : "learner",
          member.leader ? "yes" : "",
          member.matchIndex === undefined ? "" : String(member.matchIndex),
        ];
        const headings = ["NODE", "RAFT-ID", "ROLE", "LEADER", "MATCH-INDEX"];
        printTable(session, cluster, headings, cluster.members, (member) => [rowOf(member)]);
        if (session.output !== "none") return;
        const leads = cluster.leader === undefined ? "no leader" : `${cluster.leader} leads`;
        context.print(
          `${leads}; asked was member ${raft.raftId} (${raft.role}), term ${raft.term}, ` +
            `committed ${raft.commitIndex}, applied ${raft.appliedIndex}`,
        );
      }),
    );
}

function transferCommand(context: CliContext): Command {
  return new Command("transfer")
    .description("Hands leadership to another node.")
    .addArgument(idArgument("node"))
    .action(
      withSession<[string], object>(context, async (session, [node]) => {
        const cluster = await session.client.call("PUT", "/cluster/leader", { body: { node } });
        printDone(session, cluster, `Node ${node} leads`);
      }),
    );
}

interface RecoverOptions {
  readonly dataDir?: string;
  readonly force?: boolean;
  readonly yes?: boolean;
}

async function recover(context: CliContext, options: RecoverOptions): Promise<void> {
  const { recoverCluster } = await import("../control/membership/recover.ts");
  const dataDir = dataDirOf(options);
  const nowMs = (context.now ?? Date.now)();
  const force = options.force === true;
  const found = await recoverCluster({ dataDir, nowMs, force, dryRun: true });
  const { before, others } = found;
  context.printError(
    `Node ${found.nodeId} of cluster ${found.clusterId}: last log entry ${before.lastIndex} of term ` +
      `${before.lastTerm}, committed ${before.commitIndex}.`,
  );
  for (const { nodeId, raftId, peerEndpoint, answers } of others) {
    const state = answers ? "answers" : "does not answer";
    context.printError(`  member ${nodeId} (raft id ${raftId}, ${peerEndpoint}) ${state}`);
  }
  const question =
    "Make this node the only member? What only the others have is lost, and they must be cleared.";
  const agreed = options.yes === true || ((await context.confirm?.(question)) ?? false);
  if (!agreed) {
    throw new TrilithError(
      "Aborted",
      "nothing was changed",
      "say --yes when this is the survivor with the highest term, then index, of its last entry",
    );
  }
  const { raftId, nodeId } = await recoverCluster({ dataDir, nowMs, force, dryRun: false });
  context.print(
    `Node ${nodeId} is the only member now (raft id ${raftId}). Start it; on every other node clear\n` +
      "the folder `cluster` and the store in the data directory, then join it again under its name.",
  );
}

function recoverCommand(context: CliContext): Command {
  return new Command("recover")
    .description(
      "Makes this node, stopped, the only member of its cluster: the way out when a majority of\n" +
        "the members is lost for good. Choose the survivor whose last log entry has the highest\n" +
        "term, then the highest index. Refused while other members answer.",
    )
    .addOption(dataDirOption())
    .option("--force", "go on although other members answer")
    .option("-y, --yes", "do not ask")
    .action((options: RecoverOptions) => recover(context, options));
}

/** The `cluster` verb. */
export function clusterCommand(context: CliContext): Command {
  return new Command("cluster")
    .description("Shows and changes the cluster as a whole.")
    .addCommand(statusCommand(context))
    .addCommand(transferCommand(context))
    .addCommand(recoverCommand(context));
}
