/** `trilith node shutdown --safe`: gets a node ready to be switched off. */
import { Command, Option } from "commander";
import type { Volume } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { drain } from "./drain.ts";
import { durationArgument } from "./output/size.ts";
import { idArgument, withSession } from "./session.ts";

/** Label of the drain. */
const LABEL = "shutdown";

interface ShutdownOptions {
  readonly safe?: true;
  readonly acceptRisk?: string;
  readonly drainTimeout?: number;
}

/** Volumes that nobody can read while the node is down: every good copy that can be reached is on it. */
export function onlyOn(volumes: readonly Volume[], node: string): string[] {
  return volumes
    .filter(({ state }) => {
      const good = Object.values(state.replica_topology).filter(
        (replica) => replica.healthy !== false && replica.state === "Online",
      );
      return good.length > 0 && good.every((replica) => replica.node === node);
    })
    .map(({ spec }) => spec.uuid);
}

/** The `node shutdown` verb. */
export function shutdownCommand(context: CliContext): Command {
  return new Command("shutdown")
    .description(
      "Gets a node ready to be switched off: volumes that it serves move to others, and nothing is\n" +
        "left that only it can give. Refused where that cannot be, unless the risk is accepted.",
    )
    .addArgument(idArgument("node"))
    .addOption(new Option("--safe", "the only way there is").makeOptionMandatory())
    .option(
      "--accept-risk <node>",
      "name of the node: volumes whose only good copy it holds stop until it is back",
    )
    .option("--drain-timeout <time>", "wait no longer than this; it goes on", durationArgument)
    .action(
      withSession<[string], ShutdownOptions>(context, async (session, [id], options) => {
        if (options.acceptRisk !== undefined && options.acceptRisk !== id) {
          throw new TrilithError(
            "InvalidArgument",
            `--accept-risk names ${options.acceptRisk}, not ${id}`,
            `to accept it: --accept-risk=${id}`,
          );
        }
        const only = onlyOn(await session.client.volumes(), id);
        if (only.length > 0 && options.acceptRisk !== id) {
          throw new TrilithError(
            "FailedPrecondition",
            `node ${id} holds the only good copy of ${only.length === 1 ? "volume" : "volumes"} ` +
              `${only.join(", ")}: nobody can use that while it is down`,
            `give it another: trilith scale volume ${only[0]} 2, and wait until it is Online; ` +
              `or accept that it stops: --accept-risk=${id}`,
          );
        }
        if (!(await drain(session, id, LABEL, options))) return;
        context.printError(
          `Node ${id} can be switched off: on it, systemctl poweroff.\n` +
            `When it is back: trilith uncordon node ${id} ${LABEL}`,
        );
      }),
    );
}
