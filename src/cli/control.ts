/** `trilith control`: the control process alone, as its systemd unit runs it beside the engine's. */
import { Command, Option } from "commander";
import { notifySystemd } from "../engine/main/systemd.ts";
import { facesOf, type TrilithError } from "../errors.ts";
import { makeLog } from "../ops/log.ts";
import type { CliContext } from "./context.ts";
import {
  addControlOptions,
  type ControlCliOptions,
  identityOf,
  ownEngineAt,
  startControl,
} from "./control-options.ts";
import { addLogOptions } from "./engine-options.ts";
import { dataDirOption } from "./node-options.ts";
import { endSignal } from "./process-end.ts";

interface ControlVerbOptions extends ControlCliOptions {
  readonly engineRpc?: string;
  readonly stopOnStdinEnd?: true;
}

async function run(context: CliContext, cli: ControlVerbOptions): Promise<void> {
  const log = makeLog({ format: cli.logFormat, level: cli.logLevel });
  const ending = endSignal(cli.stopOnStdinEnd === true);
  // Systemd starts what comes after: a node without a cluster is no failure.
  notifySystemd("READY=1");
  const dataDir = await identityOf(cli, log, ending);
  if (dataDir === null) return;
  let failure: TrilithError | null = null;
  const ended = Promise.withResolvers<string>();
  const node = await startControl(dataDir, cli, ownEngineAt(cli.engineRpc), log, (reason) => {
    failure = reason;
    ended.resolve(reason.message);
  });
  const reason = await Promise.race([ending, ended.promise]);
  log(failure === null ? "info" : "error", "control process stops", { reason });
  notifySystemd("STOPPING=1");
  await node.stop();
  context.exitStatus = failure === null ? 0 : facesOf((failure as TrilithError).code).exit;
}

/** The `control` verb. */
export function controlCommand(context: CliContext): Command {
  const command = new Command("control")
    .description(
      "Runs the control process of a node: the HTTP API, its share of the replicated store, metrics,\n" +
        "and, while it leads, whatever the cluster has to do. Waits until the node is a member of a\n" +
        "cluster. The node's engine is a process of its own (`trilith engine`).",
    )
    .addOption(
      new Option("--node-name <name>", "name that the data directory has to belong to").env(
        "TRILITH_NODE_NAME",
      ),
    )
    .addOption(dataDirOption())
    .addOption(
      new Option(
        "--engine-rpc <endpoint>",
        "where this node's own engine answers (default: 127.0.0.1:10124)",
      ).env("TRILITH_ENGINE_RPC"),
    )
    .addOption(
      new Option("--host-nqn <nqn>", "NQN that the node's engine connects with").env(
        "TRILITH_HOST_NQN",
      ),
    )
    .addOption(new Option("--stop-on-stdin-end").hideHelp());
  return addLogOptions(addControlOptions(command)).action((options: ControlVerbOptions) =>
    run(context, options),
  );
}
