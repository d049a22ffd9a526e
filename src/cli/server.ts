/**
 * `trilith server`: a whole node in one command, for a checkout and for tests. Runs the control process,
 * and the engine as a child that is started again when it ends.
 */
import { Command, Option } from "commander";
import type { DataDir } from "../control/membership/data-dir.ts";
import { notifySystemd } from "../engine/main/systemd.ts";
import { facesOf, TrilithError } from "../errors.ts";
import { ownCommand } from "../ops/executable.ts";
import { type Log, makeLog } from "../ops/log.ts";
import { type Supervised, supervise } from "../ops/supervise.ts";
import type { CliContext } from "./context.ts";
import {
  addControlOptions,
  type ControlCliOptions,
  identityOf,
  ownEngineAt,
  recorderAt,
  startControl,
  urlOf,
} from "./control-options.ts";
import { addPassedEngineOptions, passedArguments } from "./engine-options.ts";
import { endSignal } from "./process-end.ts";

interface ServerCliOptions extends ControlCliOptions {
  readonly rpc?: string;
  readonly recorder?: string;
  readonly stopOnStdinEnd?: true;
}

/** Starts the node's engine. Other nodes reach it over TLS, with the node's own certificate. */
function startEngine(dataDir: DataDir, cli: ServerCliOptions, log: Log): Supervised {
  const { identity } = dataDir;
  const own = ownEngineAt(cli.rpc);
  const settings = {
    ...cli,
    nodeName: identity.nodeId,
    dataDir: dataDir.path,
    rpc: cli.rpc ?? `${own.address}:${own.port}`,
    recorder: cli.recorder ?? urlOf(recorderAt(cli, own)),
  };
  return supervise({
    name: "engine",
    log,
    command: [
      ...ownCommand(),
      ...["engine", "--stop-on-stdin-end", "--member"],
      ...passedArguments(settings),
    ],
    // Wrong settings do not get better by trying again.
    finalStatuses: [facesOf("InvalidArgument").exit],
  });
}

async function run(context: CliContext, cli: ServerCliOptions): Promise<void> {
  const log = makeLog({ format: cli.logFormat, level: cli.logLevel });
  const ending = endSignal(cli.stopOnStdinEnd === true);
  notifySystemd("READY=1");
  const dataDir = await identityOf(cli, log, ending);
  if (dataDir === null) return;
  const engine = startEngine(dataDir, cli, log);
  const failed = Promise.withResolvers<TrilithError>();
  try {
    const node = await startControl(dataDir, cli, ownEngineAt(cli.rpc), log, failed.resolve);
    const engineEnded = engine.ended.then(
      (status) => new TrilithError("InvalidArgument", `the engine ended with status ${status}`),
    );
    const reason = await Promise.race([ending, failed.promise, engineEnded]);
    const isFailure = reason instanceof TrilithError;
    log(isFailure ? "error" : "info", "server stops", {
      reason: isFailure ? reason.message : reason,
    });
    notifySystemd("STOPPING=1");
    if (isFailure) context.exitStatus = facesOf(reason.code).exit;
    // The engine first: closing its nexuses in order is recorded through the control process.
    await engine.stop();
    await node.stop();
  } catch (error) {
    await engine.stop();
    throw error;
  }
}

/** The `server` verb. */
export function serverCommand(context: CliContext): Command {
  const command = new Command("server").description(
    "Runs a whole node: its control process, and its engine, started again when it ends. Waits until\n" +
      "the node is a member of a cluster (`trilith init`, `trilith join`). Options of the engine are\n" +
      "passed on to it (see `trilith engine --help`).",
  );
  return addControlOptions(addPassedEngineOptions(command))
    .addOption(new Option("--stop-on-stdin-end").hideHelp())
    .action((options: ServerCliOptions) => run(context, options));
}
