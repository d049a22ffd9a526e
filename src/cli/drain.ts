/** `trilith drain`: moves away what a node serves, and waits until it has. */
import { Command } from "commander";
import type { Node } from "../client/types.ts";
import { facesOf } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { INTERRUPTED_STATUS, type Interruption, interruption } from "./interruption.ts";
import { durationArgument } from "./output/size.ts";
import { statusLine } from "./output/status-line.ts";
import { idArgument, printDone, type Session, withSession } from "./session.ts";
import { drainLabels, drainState } from "./tables.ts";

/** How often the node is looked at (mayastor.md 2). */
const POLL_MS = 2_000;

interface DrainOptions {
  readonly drainTimeout?: number;
  readonly evacuate?: boolean;
}

/** How it ended. */
type Outcome = "drained" | "cancelled" | "timed out" | "left";

/** What is left on the node, in words; it is for the eye only, so a failure is shown, not thrown. */
async function remaining(session: Session, id: string, evacuate: boolean): Promise<string> {
  try {
    const status = await session.client.status();
    const node = status.nodes.find((one) => one.id === id);
    const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? "" : "s"}`;
    const targets = count(node?.targets ?? 0, "volume target");
    return evacuate ? `${targets} and ${count(node?.replicas ?? 0, "replica")}` : targets;
  } catch (error) {
    return `something (${(error as Error).message})`;
  }
}

/** Waits until the drain has ended, showing what is left. */
async function follow(
  session: Session,
  first: Node,
  label: string,
  options: DrainOptions,
  interrupt: Interruption,
): Promise<{ outcome: Outcome; node: Node }> {
  const { context, client } = session;
  const id = first.id;
  const deadline = options.drainTimeout === undefined ? null : session.now() + options.drainTimeout;
  const line = statusLine(context, session.output === "none");
  try {
    for (let node = first; ; node = await client.node(id)) {
      if (!drainLabels(node).includes(label)) return { outcome: "cancelled", node };
      if (drainState(node) === "Drained") return { outcome: "drained", node };
      if (deadline !== null && session.now() >= deadline) return { outcome: "timed out", node };
      if (line.shows) {
        const rest = await remaining(session, id, options.evacuate === true);
        line.set(`draining ${id}: ${rest} left (Ctrl-C leaves it going)`);
      }
      const pause =
        deadline === null ? POLL_MS : Math.max(1, Math.min(POLL_MS, deadline - session.now()));
      if (!interrupt.now) await Promise.race([session.sleep(pause), interrupt.happens]);
      if (interrupt.now) return { outcome: "left", node };
    }
  } finally {
    line.clear();
  }
}

/** How to see how far the drain is, and how to stop it. */
function whatNow(id: string, label: string): string {
  return (
    `See how far it is: trilith get drain node ${id}\n` +
    `Stop it: trilith uncordon node ${id} ${label}`
  );
}

async function drain(
  session: Session,
  id: string,
  label: string,
  options: DrainOptions,
): Promise<void> {
  const { context } = session;
  const interrupt = interruption(context);
  const leave = () => {
    context.printError(
      `Not waiting any longer; the drain of node ${id} goes on.\n${whatNow(id, label)}`,
    );
    context.exitStatus = INTERRUPTED_STATUS;
  };
  try {
    const asked = session.client.drainNode(id, label, options.evacuate === true);
    const begun = await Promise.race([asked, interrupt.happens]);
    if (begun === null) {
      // It was asked for: it begins, whether its answer is waited for or not.
      asked.catch((error: Error) => context.printError(`error: ${error.message}`));
      leave();
      return;
    }
    const { outcome, node } = await follow(session, begun, label, options, interrupt);
    if (outcome === "left") {
      leave();
      return;
    }
    const text = {
      drained: `Node ${id} successfully drained`,
      cancelled: `Node ${id} drain has been cancelled`,
      "timed out": `Node ${id} drain command timed out`,
    };
    printDone(session, node, text[outcome]);
    if (outcome === "timed out") {
      context.printError(`The drain goes on. ${whatNow(id, label)}`);
      context.exitStatus = facesOf("Timeout").exit;
    }
  } finally {
    interrupt.release();
  }
}

/** The `drain` verb. */
export function drainCommand(context: CliContext): Command {
  const node = new Command("node")
    .description(
      "Keeps anything new off a node and moves the volumes that it serves to others, then waits\n" +
        "until that is done. Replicas stay, unless --evacuate is given. Ctrl-C leaves it going.",
    )
    .addArgument(idArgument("node"))
    .argument(
      "<label>",
      "reason of the drain: any short text; `uncordon` takes it to end the drain",
    )
    .option(
      "--drain-timeout <time>",
      "wait no longer than this; the drain goes on",
      durationArgument,
    )
    .option("--evacuate", "move replicas away too, so that the node can be removed")
    .action(
      withSession<[string, string], DrainOptions>(context, (session, [id, label], options) =>
        drain(session, id, label, options),
      ),
    );
  return new Command("drain").description("Moves away what nodes serve.").addCommand(node);
}
