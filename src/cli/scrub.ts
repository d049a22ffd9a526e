/** `trilith scrub`: compares the replicas of a volume. */
import { Command } from "commander";
import type { VolumeScrub } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { INTERRUPTED_STATUS, interruption } from "./interruption.ts";
import { statusLine } from "./output/status-line.ts";
import { scrubProgress, scrubResult } from "./scrub-text.ts";
import { idArgument, printDone, type Session, withSession } from "./session.ts";

const POLL_MS = 1_000;

interface ScrubOptions {
  readonly wait?: boolean;
  readonly restart?: boolean;
  readonly repair: boolean;
  readonly stop?: boolean;
  readonly acknowledge?: boolean;
}

/** Waits until it has ended, showing how far it is; null: the user has left. */
async function follow(session: Session, id: string): Promise<VolumeScrub | null> {
  const { client, context } = session;
  const interrupt = interruption(context);
  const line = statusLine(context, session.output === "none");
  try {
    while (!interrupt.now) {
      const scrub = await client.scrub(id);
      if (scrub.state === "completed" || scrub.state === "stopped") return scrub;
      line.set(`scrubbing volume ${id}: ${scrubProgress(scrub)} (Ctrl-C leaves it going)`);
      await Promise.race([session.sleep(POLL_MS), interrupt.happens]);
    }
  } finally {
    line.clear();
    interrupt.release();
  }
  context.printError(`Not waiting any longer; the scrub of volume ${id} goes on.`);
  context.exitStatus = INTERRUPTED_STATUS;
  return null;
}

async function scrubVolume(session: Session, id: string, options: ScrubOptions): Promise<void> {
  const { client } = session;
  if (options.stop === true) {
    const scrub = await client.stopScrub(id);
    printDone(session, scrub, `Scrub of volume ${id} stopped at ${scrub.progressPercent} %`);
    return;
  }
  if (options.acknowledge === true) {
    const scrub = await client.acknowledgeScrub(id);
    printDone(session, scrub, `Repairs of volume ${id} acknowledged`);
    return;
  }
  const { restart = false, repair } = options;
  const begun = await client.startScrub(id, { restart, repair });
  if (options.wait !== true) {
    printDone(session, begun, `Volume ${id} is being scrubbed; see how far: trilith get scrubs`);
    return;
  }
  const ended = await follow(session, id);
  if (ended === null) return;
  if (ended.findings.some(({ repaired }) => !repaired)) {
    throw new TrilithError("Corrupted", scrubResult(ended), `see trilith get scrub ${id}`);
  }
  printDone(session, ended, scrubResult(ended));
}

/** The `scrub` verb. */
export function scrubCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description(
      "Compares the replicas of a published volume while hosts use it. What differs is repaired where\n" +
        "more than half of three or more replicas agree; of the rest the cluster warns.",
    )
    .addArgument(idArgument("volume"))
    .option("--wait", "wait until it has ended (Ctrl-C leaves it going)")
    .option("--restart", "from the beginning, though one was stopped in the middle")
    .option("--no-repair", "only report what differs")
    .option("--stop", "stop it where it is; the next one goes on from there")
    .option("--acknowledge", "what was repaired is known: no more warnings of it")
    .action(
      withSession<[string], ScrubOptions>(context, (session, [id], options) =>
        scrubVolume(session, id, options),
      ),
    );
  return new Command("scrub").description("Compares the copies of data.").addCommand(volume);
}
