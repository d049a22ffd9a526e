/** `trilith cluster`: the members, who leads, and the ways out of great losses. */
import { Command, InvalidArgumentError, Option } from "commander";
import type { Cluster } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { dataDirOf, dataDirOption } from "./node-options.ts";
import { humanSize } from "./output/size.ts";
import { idArgument, printDone, printTable, type Session, withSession } from "./session.ts";

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

interface RebuildOptions {
  readonly disk: readonly RebuildDisk[];
  readonly yes?: boolean;
}

interface RebuildDisk {
  readonly node: string;
  readonly pool: string;
  readonly uri: string;
}

/** What the API answers (`POST /v0/cluster/rebuild`). */
interface RebuildReport {
  readonly applied: boolean;
  readonly pools: readonly { id: string; node: string; uuid: string; action: string }[];
  readonly volumes: readonly {
    uuid: string;
    sizeBytes: number;
    replicaCount: number;
    healthyReplicas: number;
    thin: boolean;
    servedBy?: string;
    action: string;
  }[];
  readonly replicas: number;
  readonly snapshots: number;
  readonly nexuses: number;
  readonly problems: readonly string[];
}

function diskOption(text: string, before: readonly RebuildDisk[]): readonly RebuildDisk[] {
  const match = /^([^=]+)=([^=]+)=(.+)$/.exec(text);
  if (match === null) {
    throw new InvalidArgumentError(`"${text}" is not like node-1=pool-1=aio:///var/disk.img.`);
  }
  return [...before, { node: match[1]!, pool: match[2]!, uri: match[3]! }];
}

function printReport(session: Session, report: RebuildReport): void {
  const { context } = session;
  printTable(session, report, ["POOL", "NODE", "UUID", "RECORD"], report.pools, (pool) => [
    [pool.id, pool.node, pool.uuid, pool.action],
  ]);
  if (session.output !== "none") return;
  const headings = ["VOLUME", "SIZE", "REPLICAS FOUND", "HEALTHY", "THIN", "SERVED BY", "RECORD"];
  printTable(session, report, headings, report.volumes, (volume) => [
    [
      volume.uuid,
      humanSize(volume.sizeBytes),
      String(volume.replicaCount),
      String(volume.healthyReplicas),
      String(volume.thin),
      volume.servedBy ?? "",
      volume.action,
    ],
  ]);
  context.print(
    `records of ${report.replicas} replicas, ${report.snapshots} snapshots and ${report.nexuses} ` +
      `targets ${report.applied ? "made" : "to be made"}`,
  );
  for (const problem of report.problems) context.printError(`problem: ${problem}`);
}

async function rebuild(session: Session, options: RebuildOptions): Promise<void> {
  const ask = (apply: boolean) =>
    session.client.call<RebuildReport>("POST", "/cluster/rebuild", {
      body: { apply, disks: options.disk },
    });
  const found = await ask(false);
  if (options.yes !== true) {
    printReport(session, found);
    const question =
      "Write these records? Every disk of the cluster has to be among them: a replica that is " +
      "found later and is newer cannot be told from an old one.";
    if (((await session.context.confirm?.(question)) ?? false) === false) {
      session.context.printError("nothing was written; say --yes to write the records");
      return;
    }
  }
  printReport(session, await ask(true));
}

function rebuildCommand(context: CliContext): Command {
  return new Command("rebuild-from-disks")
    .description(
      "Writes down what the disks hold when the store of every node is lost: pools, replicas,\n" +
        "volumes, snapshots. First make a new cluster (`trilith init`, `trilith join`) of all nodes\n" +
        "that have disks. Names of volumes are their UUIDs; a volume is to have as many replicas as\n" +
        "were found; labels, topology and affinity groups are on no disk and have to be set again.",
    )
    .addOption(
      new Option("--disk <node>=<pool>=<uri>", "a pool on a file or the like (repeatable)")
        .argParser(diskOption)
        .default([], "none"),
    )
    .option("-y, --yes", "write the records without asking")
    .action(
      withSession<[], RebuildOptions>(context, (session, _none, options) =>
        rebuild(session, options),
      ),
    );
}

/** The `cluster` verb. */
export function clusterCommand(context: CliContext): Command {
  return new Command("cluster")
    .description("Shows and changes the cluster as a whole.")
    .addCommand(statusCommand(context))
    .addCommand(transferCommand(context))
    .addCommand(recoverCommand(context))
    .addCommand(rebuildCommand(context));
}
