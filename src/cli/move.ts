/** `trilith move` and `trilith rebuild`: where copies lie, and when they are made. */
import { Command } from "commander";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { volumeId } from "./create.ts";
import { INTERRUPTED_STATUS, interruption } from "./interruption.ts";
import { statusLine } from "./output/status-line.ts";
import { rebuildProgress } from "./output/status-screen.ts";
import { idArgument, printDone, printObjects, type Session, withSession } from "./session.ts";

const POLL_MS = 1_000;

interface MoveOptions {
  readonly volume?: string;
  readonly toPool?: string;
  readonly wait?: boolean;
}

/** The volume that a replica is of. */
async function ownerOf(session: Session, replica: string): Promise<string> {
  const volumes = await session.client.volumes();
  const owner = volumes.find(({ state }) => state.replica_topology[replica] !== undefined);
  if (owner !== undefined) return owner.spec.uuid;
  throw new TrilithError(
    "NotFound",
    `no volume has a replica ${replica}`,
    "see what there is: trilith get volume-replica-topologies",
  );
}

/** Waits until the replica is gone, showing how far its successor is; false: the user has left. */
async function followMove(session: Session, volume: string, replica: string): Promise<boolean> {
  const { client, context } = session;
  const interrupt = interruption(context);
  const line = statusLine(context, session.output === "none");
  try {
    while (!interrupt.now) {
      const owner = await client.volume(volume);
      if (owner.state.replica_topology[replica] === undefined) return true;
      if (line.shows) {
        const [rebuild] = (await client.rebuilds(volume)).running;
        const progress = rebuild === undefined ? owner.state.status : rebuildProgress(rebuild);
        line.set(`moving replica ${replica}: ${progress} (Ctrl-C leaves it going)`);
      }
      await Promise.race([session.sleep(POLL_MS), interrupt.happens]);
    }
  } finally {
    line.clear();
    interrupt.release();
  }
  context.printError(`Not waiting any longer; the move of replica ${replica} goes on.`);
  context.exitStatus = INTERRUPTED_STATUS;
  return false;
}

/** The `move` verb. */
export function moveCommand(context: CliContext): Command {
  const replica = new Command("replica")
    .description(
      "Builds a copy of a replica in another pool, then gives the old one up. The volume keeps its\n" +
        "number of copies all the time.",
    )
    .argument("<replica>", "id of the replica (trilith get volume-replica-topology <volume>)")
    .option("--volume <id>", "volume that it is of (default: found out)")
    .option("--to-pool <id>", "pool to move to (default: a good one is chosen)")
    .option("--wait", "wait until the old one is gone (Ctrl-C leaves the move going)")
    .action(
      withSession<[string], MoveOptions>(context, async (session, [id], options) => {
        const volume = options.volume ?? (await ownerOf(session, id));
        const answer = await session.client.moveReplica(volume, id, options.toPool);
        if (options.wait === true) {
          if (await followMove(session, volume, id)) {
            printDone(session, answer, `Replica ${id} moved`);
          }
          return;
        }
        printDone(session, answer, `Replica ${id} is being moved; see how far: trilith status`);
      }),
    );
  return new Command("move").description("Moves replicas between pools.").addCommand(replica);
}

/** The `rebuild` verb. */
export function rebuildCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description(
      "Shows the rebuilds of a volume. They begin by themselves; nothing has to be asked for.",
    )
    .addArgument(idArgument("volume"))
    .action(
      withSession<[string], object>(context, async (session, [given]) => {
        const id = volumeId(given);
        const rebuilds = await session.client.rebuilds(id);
        if (printObjects(session, rebuilds)) return;
        for (const rebuild of rebuilds.running) context.print(rebuildProgress(rebuild));
        if (rebuilds.running.length > 0) return;
        const volume = await session.client.volume(id);
        if (volume.state.status === "Online") {
          context.print(`Volume ${id} is Online: there is nothing to rebuild`);
          return;
        }
        throw new TrilithError(
          "FailedPrecondition",
          `volume ${id} is ${volume.state.status} and nothing is being rebuilt`,
          "see why: trilith status",
        );
      }),
    );
  return new Command("rebuild").description("Shows rebuilds of volumes.").addCommand(volume);
}
