/**
 * `trilith upgrade`: whether the cluster is fit for an upgrade. An upgrade itself is installing a
 * newer executable on one node after another; nothing has to run in the cluster for it.
 */
import { Command, Option } from "commander";
import { facesOf, TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { printObjects, type Session, withSession } from "./session.ts";
import { nodeStatus } from "./tables.ts";

interface UpgradeOptions {
  readonly dryRun?: boolean;
  readonly skipSingleReplicaVolumeValidation?: boolean;
  readonly skipReplicaRebuild?: boolean;
  readonly skipCordonedNodeValidation?: boolean;
}

/** One reason not to upgrade now. */
interface Obstacle {
  readonly check: string;
  readonly message: string;
  readonly remedy: string;
}

async function obstacles(session: Session, options: UpgradeOptions): Promise<Obstacle[]> {
  const [nodes, volumes] = await Promise.all([session.client.nodes(), session.client.volumes()]);
  const found: Obstacle[] = [];
  const add = (check: string, skipped: boolean | undefined, remedy: string, names: string[]) => {
    if (skipped !== true && names.length > 0) {
      found.push({ check, message: names.join(", "), remedy });
    }
  };
  const of = (chosen: (volume: (typeof volumes)[number]) => boolean) =>
    volumes.filter(chosen).map(({ spec }) => spec.uuid);
  add(
    "published volumes with a single replica stop while its node is upgraded",
    options.skipSingleReplicaVolumeValidation,
    "trilith scale volume <id> 2, or --skip-single-replica-volume-validation",
    of(({ spec }) => spec.num_replicas === 1 && spec.target !== undefined && spec.target !== null),
  );
  add(
    "volumes are being rebuilt, and would lose a copy",
    options.skipReplicaRebuild,
    "trilith wait volume <id> --for rebuilt, or --skip-replica-rebuild",
    of(({ state }) => state.status === "Degraded" || (state.target?.rebuilds ?? 0) > 0),
  );
  add(
    "nodes are cordoned or drained",
    options.skipCordonedNodeValidation,
    "trilith uncordon node <id> <label>, or --skip-cordoned-node-validation",
    nodes.filter((node) => nodeStatus(node).includes(",")).map(({ id }) => id),
  );
  add(
    "nodes are not online",
    false,
    "start them: systemctl start trilith",
    nodes.filter(({ state }) => state?.status !== "Online").map(({ id }) => id),
  );
  return found;
}

async function upgrade(session: Session, options: UpgradeOptions): Promise<void> {
  const { context } = session;
  const found = await obstacles(session, options);
  const printed = printObjects(session, { ready: found.length === 0, obstacles: found });
  if (found.length > 0) {
    for (const { check, message, remedy } of printed ? [] : found) {
      context.printError(`error: ${check}: ${message}\n  ${remedy}`);
    }
    context.exitStatus = facesOf("FailedPrecondition").exit;
    return;
  }
  if (!printed) context.print("The cluster is fit for an upgrade.");
  if (options.dryRun === true) return;
  throw new TrilithError(
    "Unimplemented",
    "an upgrade is made node by node, with the new executable on each",
    "on one node after another: trilith drain node <id> upgrade, run the new install.sh there, " +
      "trilith uncordon node <id> upgrade; then see trilith get upgrade-status",
  );
}

/** The `upgrade` verb. */
export function upgradeCommand(context: CliContext): Command {
  const ignored = (flags: string) => new Option(flags, "accepted for kubectl's sake").hideHelp();
  return new Command("upgrade")
    .description(
      "Checks whether the cluster is fit for an upgrade, and says how it is made: node by node, by\n" +
        "installing the new executable.",
    )
    .option("-d, --dry-run", "only check")
    .option(
      "-D, --skip-data-plane-restart",
      "accepted for kubectl's sake: nodes restart one by one",
    )
    .option("-S, --skip-single-replica-volume-validation", "although volumes will stop meanwhile")
    .option("-R, --skip-replica-rebuild", "although volumes are being rebuilt")
    .option("-C, --skip-cordoned-node-validation", "although nodes are cordoned")
    .addOption(ignored("--registry <name>"))
    .addOption(ignored("--set <values>"))
    .addOption(ignored("--set-file <values>"))
    .addOption(ignored("--allow-unstable"))
    .action(
      withSession<[], UpgradeOptions>(context, (session, _args, options) =>
        upgrade(session, options),
      ),
    );
}
