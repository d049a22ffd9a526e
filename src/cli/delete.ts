/** `trilith delete`: volumes, snapshots, pools, nodes. */
import { Command } from "commander";
import type { PurgeBody, RemovalImpact } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { volumeId } from "./create.ts";
import { idArgument, printDone, printObjects, type Session, withSession } from "./session.ts";

interface DeleteOptions {
  readonly yes?: boolean;
  readonly ignoreNotFound?: boolean;
}

interface PurgeOptions extends DeleteOptions {
  readonly purge?: boolean;
  readonly acceptVolumeLoss?: boolean;
  readonly acceptSnapshotLoss?: boolean;
  readonly acceptDataLoss?: boolean;
  readonly cleanupDsp?: boolean;
  readonly showImpact?: boolean;
}

const nothingAccepted: PurgeBody = {
  purge: false,
  accept: false,
  accept_volume_loss: false,
  accept_snapshot_loss: false,
};

/** Asks a user who is there; goes on when nobody is, or `--yes` was given. */
async function mayGoOn(session: Session, options: DeleteOptions, question: string): Promise<void> {
  if (options.yes === true) return;
  const agreed = (await session.context.confirm?.(question)) ?? true;
  if (!agreed) throw new TrilithError("Aborted", "nothing was changed");
}

/** Runs a deletion; what is not there is no error with `--ignore-not-found`. */
async function deleting(
  session: Session,
  options: DeleteOptions,
  what: string,
  act: () => Promise<unknown>,
): Promise<void> {
  try {
    await act();
  } catch (error) {
    const missing = error instanceof TrilithError && error.code === "NotFound";
    if (!missing || options.ignoreNotFound !== true) throw error;
    printDone(session, null, `${what} is not there`);
    return;
  }
  printDone(session, null, `${what} deleted`);
}

function withDeleteOptions(command: Command): Command {
  return command
    .option("-y, --yes", "do not ask")
    .option("--ignore-not-found", "what is not there is no error");
}

function withPurgeOptions(command: Command): Command {
  return withDeleteOptions(command)
    .option("--show-impact", "only tell what would be lost")
    .option("--purge", "forget it although it cannot be asked any more (it is lost)")
    .option("--accept-volume-loss", "with --purge: volumes without another copy are lost")
    .option("--accept-snapshot-loss", "with --purge: snapshots without another copy are lost")
    .option("--accept-data-loss", "with --purge: both of these")
    .option("--cleanup-dsp", "accepted for kubectl's sake: there is no DiskPool object to remove");
}

/** The impact in words, a line for each kind. */
export function impactText(impact: RemovalImpact): string {
  const kinds: [string, readonly string[]][] = [
    ["volumes lost", impact.volumesLost],
    ["volumes degraded", impact.volumesDegraded],
    ["snapshots lost", impact.snapshotsLost],
    ["replicas lost", impact.replicasLost],
  ];
  const { volumesMoved, volumesUnpublished = [] } = impact;
  if (volumesMoved !== undefined) kinds.push(["volumes served elsewhere then", volumesMoved]);
  if (volumesUnpublished.length > 0) kinds.push(["volumes unpublished", volumesUnpublished]);
  return kinds
    .map(([name, ids]) => `${name}: ${ids.length === 0 ? "none" : ids.join(", ")}`)
    .join("\n");
}

interface Removable {
  readonly kind: "pool" | "node";
  readonly impact: (session: Session, id: string) => Promise<RemovalImpact>;
  readonly remove: (session: Session, id: string, force: PurgeBody) => Promise<unknown>;
}

async function remove(
  session: Session,
  { kind, impact, remove }: Removable,
  id: string,
  options: PurgeOptions,
): Promise<void> {
  const title = `${kind === "pool" ? "Pool" : "Node"} ${id}`;
  if (options.showImpact === true) {
    const found = await impact(session, id);
    if (!printObjects(session, found)) session.context.print(impactText(found));
    return;
  }
  if (options.purge !== true) {
    await mayGoOn(session, options, `Delete ${kind} ${id}?`);
    await deleting(session, options, title, () => remove(session, id, nothingAccepted));
    return;
  }
  if (options.yes !== true && session.context.confirm !== undefined) {
    session.context.printError(impactText(await impact(session, id)));
  }
  await mayGoOn(session, options, `Forget ${kind} ${id} and all that only it holds?`);
  const dataLoss = options.acceptDataLoss === true;
  await deleting(session, options, title, () =>
    remove(session, id, {
      purge: true,
      accept: true,
      accept_volume_loss: dataLoss || options.acceptVolumeLoss === true,
      accept_snapshot_loss: dataLoss || options.acceptSnapshotLoss === true,
    }),
  );
}

function removeCommand(context: CliContext, removable: Removable, text: string): Command {
  const command = new Command(removable.kind)
    .description(text)
    .addArgument(idArgument(removable.kind));
  return withPurgeOptions(command).action(
    withSession<[string], PurgeOptions>(context, (session, [id], options) =>
      remove(session, removable, id, options),
    ),
  );
}

/** The `delete` verb. */
export function deleteCommand(context: CliContext): Command {
  const volume = withDeleteOptions(
    new Command("volume")
      .description("Deletes a volume and all that is in it.")
      .addArgument(idArgument("volume")),
  ).action(
    withSession<[string], DeleteOptions>(context, async (session, [given], options) => {
      const id = volumeId(given);
      await mayGoOn(session, options, `Delete volume ${id} and all that is in it?`);
      await deleting(session, options, `Volume ${id}`, () => session.client.deleteVolume(id));
    }),
  );
  const snapshot = withDeleteOptions(
    new Command("volume-snapshot")
      .alias("snapshot")
      .description("Deletes a snapshot.")
      .addArgument(idArgument("snapshot")),
  ).action(
    withSession<[string], DeleteOptions>(context, async (session, [id], options) => {
      await mayGoOn(session, options, `Delete snapshot ${id}?`);
      await deleting(session, options, `Snapshot ${id}`, () => session.client.deleteSnapshot(id));
    }),
  );
  const pool = removeCommand(
    context,
    {
      kind: "pool",
      impact: (session, id) => session.client.poolRemovalImpact(id),
      remove: (session, id, force) => session.client.deletePool(id, force),
    },
    "Deletes a pool. It has to be empty, unless it is purged.",
  );
  const node = removeCommand(
    context,
    {
      kind: "node",
      impact: (session, id) => session.client.nodeRemovalImpact(id),
      remove: (session, id, force) => session.client.removeNode(id, force),
    },
    "Removes a node from the cluster. It has to be empty, unless it is purged.",
  );
  const upgrade = new Command("upgrade")
    .description("Accepted for kubectl's sake: an upgrade leaves nothing behind to delete.")
    .option("--force", "accepted for kubectl's sake")
    .action(() => context.print("An upgrade leaves nothing behind: there is nothing to delete."));
  return new Command("delete")
    .description("Deletes resources.")
    .addCommand(volume)
    .addCommand(snapshot)
    .addCommand(pool)
    .addCommand(node)
    .addCommand(upgrade);
}
