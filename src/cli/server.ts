/**
 * `trilith server`: a whole node in one command, for a checkout and for tests. Runs the engine as a
 * child process that is started again when it ends, and the recorder that engines may share.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Command, Option } from "commander";
import { serveRecorder } from "../engine/main/recorder-server.ts";
import { notifySystemd } from "../engine/main/systemd.ts";
import { openFileRecorder } from "../engine/recorder.ts";
import { DATA_DIR_DEFAULT } from "../engine/settings.ts";
import { facesOf } from "../errors.ts";
import { ownCommand } from "../ops/executable.ts";
import { makeLog } from "../ops/log.ts";
import { supervise } from "../ops/supervise.ts";
import type { CliContext } from "./context.ts";
import {
  addPassedEngineOptions,
  type LogCliOptions,
  parseEndpoint,
  passedArguments,
} from "./engine-options.ts";

const RECORDER_PORT_DEFAULT = 10125;

interface ServerCliOptions extends LogCliOptions {
  readonly dataDir?: string;
  readonly recorder?: string;
  readonly recorderListen: { readonly address: string; readonly port: number };
}

async function run(context: CliContext, cli: ServerCliOptions): Promise<void> {
  const log = makeLog({ format: cli.logFormat, level: cli.logLevel });
  const dataDir = cli.dataDir ?? process.env.TRILITH_DATA_DIR ?? DATA_DIR_DEFAULT;
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const recorder = openFileRecorder(join(dataDir, "recorder.sqlite"), () => new Date());
  const recorderServer = serveRecorder(recorder, cli.recorderListen, log);
  const engine = supervise({
    name: "engine",
    log,
    command: [
      ...ownCommand(),
      "engine",
      "--stop-on-stdin-end",
      ...passedArguments({ ...cli, recorder: cli.recorder ?? recorderServer.url }),
    ],
    // Wrong settings do not get better by trying again.
    finalStatuses: [facesOf("InvalidArgument").exit],
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.once(signal, () => {
      log("info", "server stops", { signal });
      notifySystemd("STOPPING=1");
      void engine.stop();
    });
  }
  process.on("SIGHUP", () => engine.signal("SIGHUP"));
  notifySystemd("READY=1");
  log("info", "server runs", { recorder: recorderServer.url });
  context.exitStatus = await engine.ended;
  await recorderServer.stop();
  recorder.close();
}

/** The `server` verb. */
export function serverCommand(context: CliContext): Command {
  const command = new Command("server").description(
    "Runs a node: the engine, started again when it ends, and the recorder of child faults.\n" +
      "Options of the engine are passed on to it (see `trilith engine --help`).",
  );
  return addPassedEngineOptions(command)
    .addOption(
      new Option("--recorder-listen <endpoint>", "where to serve the recorder")
        .argParser((text) => parseEndpoint(text, RECORDER_PORT_DEFAULT))
        .default({ address: "127.0.0.1", port: RECORDER_PORT_DEFAULT }, "127.0.0.1:10125"),
    )
    .action((options: ServerCliOptions) => run(context, options));
}
