/** `trilith drain`: moves away what a node serves, and waits until it has. */
import { Command } from "commander";
import type { DrainProgress, Node } from "../client/types.ts";
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

type Remaining = DrainProgress["remaining"];

/** What is left, with what it waits for; nothing when that cannot be found out. */
async function waiting(session: Session, id: string): Promise<Remaining> {
  try {
    return (await session.client.drainProgress(id)).remaining;
  } catch {
    return []; // Whether it goes on is asked, and told, elsewhere.
  }
}

/** One thing that is left, in words. */
function waitText({ kind, uuid, volume, waitsFor }: Remaining[number]): string {
  const what =
    kind === "replica" ? `replica ${uuid} of volume ${volume}` : `volume ${volume ?? uuid}`;
  return `${what} waits for ${waitsFor}`;
}

/** Says of each thing that will not leave by itself why, once. */
class Obstacles {
  readonly #session: Session;
  readonly #told = new Set<string>();

  constructor(session: Session) {
    this.#session = session;
  }

  tell(remaining: Remaining): void {
    for (const one of remaining) {
      if (!one.isStuck) continue;
      const what = one.kind === "replica" ? "replica" : "volume";
      const name = one.kind === "replica" ? one.uuid : (one.volume ?? one.uuid);
      const text = `${what} ${name} cannot leave: ${one.waitsFor}`;
      if (this.#told.has(text)) continue;
      this.#told.add(text);
      this.#session.context.printError(text);
    }
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
  const obstacles = new Obstacles(session);
  try {
    for (let node = first; ; node = await client.node(id)) {
      if (!drainLabels(node).includes(label)) return { outcome: "cancelled", node };
      if (drainState(node) === "Drained") return { outcome: "drained", node };
      const left = (await Promise.race([waiting(session, id), interrupt.happens])) ?? [];
      if (left.some(({ isStuck }) => isStuck)) line.clear();
      obstacles.tell(left);
      if (deadline !== null && session.now() >= deadline) return { outcome: "timed out", node };
      if (line.shows) {
        const rest = await remaining(session, id, options.evacuate === true);
        const [first] = left;
        const why = first === undefined ? "" : `; ${waitText(first)}`;
        line.set(`draining ${id}: ${rest} left (Ctrl-C leaves it going)${why}`);
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

/** Drains a node and waits until that has ended; true when everything that was to leave has left. */
export async function drain(
  session: Session,
  id: string,
  label: string,
  options: DrainOptions,
): Promise<boolean> {
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
      return false;
    }
    const { outcome, node } = await follow(session, begun, label, options, interrupt);
    if (outcome === "left") {
      leave();
      return false;
    }
    const text = {
      drained: `Node ${id} successfully drained`,
      cancelled: `Node ${id} drain has been cancelled`,
      "timed out": `Node ${id} drain command timed out`,
    };
    printDone(session, node, text[outcome]);
    if (outcome === "timed out") {
      const left = (await waiting(session, id)).map((one) => `\n${waitText(one)}`);
      context.printError(`The drain goes on.${left.join("")}\n${whatNow(id, label)}`);
      context.exitStatus = facesOf("Timeout").exit;
    }
    return outcome === "drained";
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
      withSession<[string, string], DrainOptions>(
        context,
        async (session, [id, label], options) => void (await drain(session, id, label, options)),
      ),
    );
  return new Command("drain").description("Moves away what nodes serve.").addCommand(node);
}
