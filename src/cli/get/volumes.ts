/** `trilith get volume(s)`, their replicas and rebuilds. */
import { type Command, Option } from "commander";
import type { Volume } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import { idArgument, printTable, type Session, withSession } from "../session.ts";
import {
  currentRebuildHeadings,
  currentRebuildRows,
  hasSource,
  rebuildHeadings,
  rebuildRow,
  replicaHeadings,
  replicaRows,
  volumeHeadings,
  volumeReplicaHeadings,
  volumeReplicaRows,
  volumeRow,
} from "../tables.ts";

interface SourceOption {
  readonly source?: "none" | "snapshot";
}

function sourceOption(): Option {
  return new Option("--source <kind>", "only volumes made of a snapshot, or of none").choices([
    "none",
    "snapshot",
  ]);
}

function ofSource(volumes: readonly Volume[], { source }: SourceOption): readonly Volume[] {
  if (source === undefined) return volumes;
  return volumes.filter(({ spec }) => hasSource(spec) === (source === "snapshot"));
}

/** The rebuilds of a volume, of one that is not published too (which the contract has no answer for). */
async function historyOf(session: Session, id: string) {
  try {
    const value = await session.client.rebuildHistory(id);
    return { value, records: value.records };
  } catch (error) {
    if (!(error instanceof TrilithError) || error.code !== "NotPublished") throw error;
    const value = await session.client.rebuilds(id);
    return { value, records: value.history };
  }
}

export function addVolumes(get: Command, context: CliContext): void {
  get
    .command("volumes")
    .description("Lists all volumes.")
    .addOption(sourceOption())
    .action(
      withSession<[], SourceOption>(context, async (session, _args, options) => {
        const volumes = ofSource(await session.client.volumes(), options);
        printTable(session, volumes, volumeHeadings, volumes, (volume) => [volumeRow(volume)]);
      }),
    );
  get
    .command("volume")
    .description("Shows one volume.")
    .addArgument(idArgument("volume"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const volume = await session.client.volume(id);
        printTable(session, volume, volumeHeadings, [volume], (one) => [volumeRow(one)]);
      }),
    );
  get
    .command("volume-replica-topologies")
    .description("Lists the replicas of all volumes.")
    .addOption(sourceOption())
    .action(
      withSession<[], SourceOption>(context, async (session, _args, options) => {
        const volumes = ofSource(await session.client.volumes(), options);
        const topologies = volumes.map(({ state }) => state.replica_topology);
        printTable(session, topologies, volumeReplicaHeadings, volumes, volumeReplicaRows);
      }),
    );
  get
    .command("volume-replica-topology")
    .description("Lists the replicas of one volume.")
    .addArgument(idArgument("volume"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const volume = await session.client.volume(id);
        printTable(session, volume.state.replica_topology, replicaHeadings, [volume], replicaRows);
      }),
    );
  get
    .command("rebuilds")
    .description("Lists the rebuilds that run, and those that wait and why.")
    .action(
      withSession<[], object>(context, async (session) => {
        const { rebuilds } = await session.client.status();
        printTable(session, rebuilds, currentRebuildHeadings, [rebuilds], currentRebuildRows);
      }),
    );
  get
    .command("rebuild-history")
    .description("Lists the rebuilds that a volume has had.")
    .addArgument(idArgument("volume"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const { value, records } = await historyOf(session, id);
        printTable(session, value, rebuildHeadings, records, (one) => [rebuildRow(one)]);
      }),
    );
}
