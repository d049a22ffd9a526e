/** `trilith status`: nodes, pools, volumes, rebuilds and warnings on one screen. */
import { Command } from "commander";
import { facesOf } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { interruption } from "./interruption.ts";
import { durationArgument } from "./output/size.ts";
import { statusScreen } from "./output/status-screen.ts";
import { printObjects, type Session, withSession } from "./session.ts";

const WATCH_MS = 2_000;

interface StatusOptions {
  readonly watch?: boolean;
  readonly interval?: number;
  readonly exitCode?: boolean;
}

/** Shows the screen again and again until the user interrupts. */
async function watch(session: Session, intervalMs: number): Promise<void> {
  const { context } = session;
  const interrupt = interruption(context);
  try {
    while (!interrupt.now) {
      let screen: string;
      try {
        screen = statusScreen(await session.client.status(), session.paint);
      } catch (error) {
        // While the cluster elects a leader there is nothing to show; it is looked for again.
        screen = `no status: ${(error as Error).message}`;
      }
      if (context.terminal === undefined) context.print(`${screen}\n`);
      else context.terminal.write(`\u001b[H\u001b[2J${screen}\n`);
      await Promise.race([session.sleep(intervalMs), interrupt.happens]);
    }
  } finally {
    interrupt.release();
  }
}

/** The `status` verb. */
export function statusCommand(context: CliContext): Command {
  return new Command("status")
    .description(
      "Shows the cluster on one screen: nodes, pools, volumes that need attention, rebuilds, and\n" +
        "warnings with the command that fixes each.",
    )
    .option("-w, --watch", "stay, and show it again as it changes (Ctrl-C ends it)")
    .option("--interval <time>", "with --watch: how often (default: 2s)", durationArgument)
    .option("--exit-code", "exit status 6 when there is a warning")
    .action(
      withSession<[], StatusOptions>(context, async (session, _args, options) => {
        if (options.watch === true && session.output === "none") {
          await watch(session, options.interval ?? WATCH_MS);
          return;
        }
        const status = await session.client.status();
        if (!printObjects(session, status)) context.print(statusScreen(status, session.paint));
        const wrong = status.warnings.some(({ severity }) => severity !== "info");
        if (options.exitCode === true && wrong) {
          context.exitStatus = facesOf("FailedPrecondition").exit;
        }
      }),
    );
}
