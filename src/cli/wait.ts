/** `trilith wait`: until a volume, pool or node is as it should be. */
import { Command } from "commander";
import type { Node, Pool, Volume } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { durationArgument, humanDuration } from "./output/size.ts";
import { statusLine } from "./output/status-line.ts";
import { idArgument, printDone, type Session, withSession } from "./session.ts";
import { drainState, nodeStatus, poolStatus } from "./tables.ts";

const POLL_MS = 500;
const WAIT_DEFAULT_MS = 300_000;

interface WaitOptions {
  readonly for: string;
  readonly waitTimeout?: number;
}

type Kind = "volume" | "pool" | "node";

/** What a volume can be waited for, by name in lower case. */
const volumeConditions: Readonly<Record<string, (volume: Volume) => boolean>> = {
  online: ({ state }) => state.status === "Online",
  degraded: ({ state }) => state.status === "Degraded",
  faulted: ({ state }) => state.status === "Faulted",
  published: ({ state }) => state.target !== undefined && state.target !== null,
  unpublished: ({ spec, state }) => !spec.target && !state.target,
  rebuilt: (volume) =>
    volume.state.status === "Online" && !isRebuilding(volume) && hasAllCopies(volume),
};

/** Every copy that is wanted is there, and part of the target when there is one. */
function hasAllCopies({ spec, state }: Volume): boolean {
  const copies = Object.values(state.replica_topology).filter((replica) =>
    state.target ? replica["child-status"] === "Online" : replica.state === "Online",
  );
  return copies.length >= spec.num_replicas;
}

function isRebuilding({ state }: Volume): boolean {
  const replicas = Object.values(state.replica_topology);
  return (
    (state.target?.rebuilds ?? 0) > 0 ||
    replicas.some((replica) => typeof replica["rebuild-progress"] === "number")
  );
}

const poolConditions: Readonly<Record<string, (pool: Pool) => boolean>> = {
  online: ({ state }) => state?.status === "Online",
  degraded: ({ state }) => state?.status === "Degraded",
  faulted: ({ state }) => state?.status === "Faulted",
  empty: ({ state }) => state?.committed === 0,
};

const nodeConditions: Readonly<Record<string, (node: Node) => boolean>> = {
  online: ({ state }) => state?.status === "Online",
  offline: ({ state }) => state?.status === "Offline",
  drained: (node) => drainState(node) === "Drained",
};

interface Waiting<T> {
  readonly kind: Kind;
  readonly conditions: Readonly<Record<string, (thing: T) => boolean>>;
  readonly look: (session: Session, id: string) => Promise<T>;
  /** How it is, in words. */
  readonly state: (thing: T) => string;
}

/** Looks again and again until the condition holds; `Timeout` when it does not in time. */
async function waitFor<T>(
  session: Session,
  { kind, conditions, look, state }: Waiting<T>,
  id: string,
  options: WaitOptions,
): Promise<void> {
  const wanted = options.for.toLowerCase().replace(/^(status|condition)=/, "");
  const condition = conditions[wanted];
  if (condition === undefined && wanted !== "deleted") {
    throw new TrilithError(
      "InvalidArgument",
      `a ${kind} cannot be waited for to be "${options.for}"`,
      `one of: ${[...Object.keys(conditions), "deleted"].join(", ")}`,
    );
  }
  const limitMs = options.waitTimeout ?? WAIT_DEFAULT_MS;
  const startMs = session.now();
  const line = statusLine(session.context, session.output === "none");
  let found: T | null = null;
  let seen = "not looked at yet";
  try {
    for (;;) {
      try {
        found = await look(session, id);
        seen = state(found);
        if (condition?.(found) === true) break;
      } catch (error) {
        if (!(error instanceof TrilithError)) throw error;
        if (error.code === "NotFound" && wanted === "deleted") break;
        // It may be about to be made, or the cluster about to have a leader.
        if (!["NotFound", "Unavailable", "Timeout"].includes(error.code)) throw error;
        seen = error.message;
      }
      const leftMs = limitMs - (session.now() - startMs);
      if (leftMs <= 0) {
        throw new TrilithError(
          "Timeout",
          `${kind} ${id} is not ${wanted} after ${humanDuration(limitMs)}: ${seen}`,
          "see why: trilith status",
        );
      }
      line.set(`waiting for ${kind} ${id} to be ${wanted}: ${seen}`);
      await session.sleep(Math.min(POLL_MS, leftMs));
    }
  } finally {
    line.clear();
  }
  const title = `${kind[0]!.toUpperCase()}${kind.slice(1)}`;
  printDone(session, found, `${title} ${id} is ${wanted}`);
}

function waitCommand<T>(context: CliContext, waiting: Waiting<T>): Command {
  const names = [...Object.keys(waiting.conditions), "deleted"].join(", ");
  return new Command(waiting.kind)
    .description(`Waits until a ${waiting.kind} is: ${names}.`)
    .addArgument(idArgument(waiting.kind))
    .requiredOption("--for <condition>", `one of: ${names}`)
    .option("--wait-timeout <time>", "give up after this (default: 5m)", durationArgument)
    .action(
      withSession<[string], WaitOptions>(context, (session, [id], options) =>
        waitFor(session, waiting, id, options),
      ),
    );
}

/** The `wait` verb. */
export function waitVerb(context: CliContext): Command {
  return new Command("wait")
    .description("Waits until something is as it should be. Exit status 10 when it takes too long.")
    .addCommand(
      waitCommand<Volume>(context, {
        kind: "volume",
        conditions: volumeConditions,
        look: ({ client }, id) => client.volume(id),
        state: ({ spec, state }) => (spec.status === "Created" ? state.status : spec.status),
      }),
    )
    .addCommand(
      waitCommand<Pool>(context, {
        kind: "pool",
        conditions: poolConditions,
        look: ({ client }, id) => client.pool(id),
        state: ({ spec, state }) => poolStatus(spec, state),
      }),
    )
    .addCommand(
      waitCommand<Node>(context, {
        kind: "node",
        conditions: nodeConditions,
        look: ({ client }, id) => client.node(id),
        state: nodeStatus,
      }),
    );
}
