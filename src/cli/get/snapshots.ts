/** `trilith get volume-snapshots` and where they lie. */
import type { Command } from "commander";
import type { CliContext } from "../context.ts";
import { printTable, withSession } from "../session.ts";
import {
  snapshotHeadings,
  snapshotReplicaHeadings,
  snapshotReplicaRows,
  snapshotRow,
} from "../tables.ts";

interface SnapshotFilter {
  readonly volume?: string;
  readonly snapshot?: string;
}

function withFilter(command: Command): Command {
  return command
    .option("--volume <id>", "only snapshots of this volume")
    .option("--snapshot <id>", "only this snapshot");
}

export function addSnapshots(get: Command, context: CliContext): void {
  withFilter(get.command("volume-snapshots").description("Lists snapshots of volumes.")).action(
    withSession<[], SnapshotFilter>(context, async (session, _args, { volume, snapshot }) => {
      const snapshots = await session.client.snapshots({ volume, snapshot });
      printTable(session, snapshots, snapshotHeadings, snapshots, (one) => [snapshotRow(one)]);
    }),
  );
  withFilter(
    get.command("volume-snapshot-topology").description("Lists where snapshots lie."),
  ).action(
    withSession<[], SnapshotFilter>(context, async (session, _args, { volume, snapshot }) => {
      const snapshots = await session.client.snapshots({ volume, snapshot });
      printTable(session, snapshots, snapshotReplicaHeadings, snapshots, snapshotReplicaRows);
    }),
  );
}
