/** `trilith engine`: the engine process alone, as its systemd unit runs it. */
import { Command, Option } from "commander";
import { findDataDir } from "../control/membership/data-dir.ts";
import { type Engine, startEngine } from "../engine/engine.ts";
import { notifySystemd, watchdogMs } from "../engine/main/systemd.ts";
import { askForVacation } from "../engine/recorder.ts";
import { engineSettings } from "../engine/settings.ts";
import { facesOf } from "../errors.ts";
import { type Log, makeLog } from "../ops/log.ts";
import { followMembership } from "./engine-membership.ts";
import { addEngineOptions, type EngineCliOptions, engineOptionsOf } from "./engine-options.ts";
import { dataDirOf } from "./node-options.ts";
import { endSignal } from "./process-end.ts";

/** So long an engine that stops waits for its targets to leave; its unit waits longer for it. */
const VACATION_MS = 15_000;

interface EngineVerbOptions extends EngineCliOptions {
  readonly member?: true;
  readonly stopOnStdinEnd?: true;
}

/** Has systemd know that the engine is alive: a notification whenever the main thread gets round to it. */
function feedWatchdog(): () => void {
  const everyMs = watchdogMs();
  if (everyMs === undefined) return () => {};
  const timer = setInterval(() => notifySystemd("WATCHDOG=1"), everyMs / 2);
  return () => clearInterval(timer);
}

async function run(cli: EngineVerbOptions): Promise<void> {
  const log = makeLog({ format: cli.logFormat, level: cli.logLevel });
  const member = cli.member === true ? findDataDir(dataDirOf(cli)) : null;
  const settings = engineSettings(
    engineOptionsOf(member === null ? cli : { nodeName: member.identity.nodeId, ...cli }),
  );
  const engine = await startEngine({
    settings,
    log,
    // The log has been written; nothing of what the reactors hold can be put in order any more.
    onFatal: () => process.exit(facesOf("Internal").exit),
  });
  // Only now: before, a signal may simply end the process, and so must a start that fails.
  const asked = endSignal(cli.stopOnStdinEnd === true);
  const membership = cli.member === true ? followMembership({ settings, engine, log }) : undefined;
  const ending = membership === undefined ? asked : Promise.race([asked, membership.renamed]);
  // The control process renews certificates and says so.
  process.on("SIGHUP", () => {
    try {
      engine.reload();
      log("info", "certificates read again");
    } catch (error) {
      log("error", "certificates cannot be read: those from before stay in use", { error });
    }
  });
  const endWatchdog = feedWatchdog();
  notifySystemd("READY=1");
  log("info", "engine serves", {
    node: settings.nodeName,
    rpc: engine.rpcUrls.join(","),
    reactors: settings.reactors,
  });
  const signal = await ending;
  log("info", "engine stops", { signal });
  notifySystemd("STOPPING=1");
  endWatchdog();
  membership?.stop();
  // Hosts go on elsewhere before anything here ends.
  if (membership !== undefined) await leave(engine, settings.recorder, log);
  // Whatever hangs or fails here, the process ends: its unit starts it again, and everything that
  // was acknowledged is on the disks.
  try {
    await engine.stop();
    log("info", "engine stopped");
    process.exit(0);
  } catch (error) {
    log("error", "the engine did not stop in order", { error });
    process.exit(facesOf("Internal").exit);
  }
}

/** Has the engine's targets moved to other nodes, if there is anybody to do it. */
async function leave(engine: Engine, recorder: string | null, log: Log): Promise<void> {
  if (recorder === null) return;
  try {
    const isVacant = await askForVacation(recorder, engine.instanceUuid, VACATION_MS);
    if (!isVacant) log("warn", "the engine stops although it serves volumes still");
  } catch (error) {
    // As after a crash: hosts wait for the engine, or for others to take over.
    log("warn", "the engine's targets were not moved before it stops", { error });
  }
}

/** The `engine` verb. */
export function engineCommand(): Command {
  const command = new Command("engine").description(
    "Runs the storage engine: the data path and its RPC. Everything it does, it is told by RPC.",
  );
  command.addOption(
    new Option(
      "--member",
      "serve the RPC to the other nodes of the cluster that the data directory belongs to, as soon as it does",
    ).env("TRILITH_MEMBER"),
  );
  return addEngineOptions(command)
    .addOption(
      new Option(
        "--stop-on-stdin-end",
        "stop in order when standard input ends: whoever started the engine is gone",
      ).hideHelp(),
    )
    .action(run);
}
