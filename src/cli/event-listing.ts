/** Events of the cluster, once or as they happen; for `trilith events` and `trilith get events`. */
import type { Command } from "commander";
import { followEvents } from "../client/event-stream.ts";
import type { ClusterEvent } from "../client/types.ts";
import { durationArgument } from "./output/size.ts";
import { renderTable } from "./output/table.ts";
import { printObjects, type Session, yamlText } from "./session.ts";
import { eventHeadings, eventRow } from "./tables.ts";

/** Events that one request asks for. */
const EVENTS_PER_PAGE = 1000;
/** Shown when nothing is said. */
const EVENTS_SHOWN = 100;

export interface EventFilter {
  readonly since?: number;
  readonly last?: number;
  readonly category?: string;
  readonly target?: string;
  readonly node?: string;
  readonly all?: boolean;
  readonly tail?: number;
  readonly follow?: boolean;
}

function count(text: string): number {
  return /^\d{1,15}$/.test(text) ? Number(text) : 0;
}

/** Adds the options that choose events. */
export function eventOptions(command: Command): Command {
  return command
    .option("--since <id>", "only events after this one", count)
    .option("--last <time>", "only events of the last while, e.g. 1h", durationArgument)
    .option("--category <name>", "only events of this category, e.g. Volume")
    .option("--target <id>", "only what happened to this volume, pool, node, …")
    .option("--node <id>", "only events of this node")
    .option("--tail <n>", `only the newest n (default: ${EVENTS_SHOWN})`, count)
    .option("--all", "all that are kept");
}

function chosen(event: ClusterEvent, filter: EventFilter, fromMs: number): boolean {
  const { category, target, node } = filter;
  return (
    (category === undefined || event.category.toLowerCase() === category.toLowerCase()) &&
    (target === undefined || event.target === target) &&
    (node === undefined || event.node === node) &&
    Date.parse(event.at) >= fromMs
  );
}

/** The events that are kept, and the id to go on from. */
async function keptEvents(session: Session, filter: EventFilter) {
  const fromMs = filter.last === undefined ? Number.NEGATIVE_INFINITY : session.now() - filter.last;
  const events: ClusterEvent[] = [];
  let since = filter.since ?? 0;
  for (;;) {
    const page = await session.client.events(since, EVENTS_PER_PAGE);
    events.push(...page.events.filter((event) => chosen(event, filter, fromMs)));
    const done = page.events.length < EVENTS_PER_PAGE || page.next <= since;
    since = Math.max(since, page.next);
    if (done) break;
  }
  const everything = filter.all === true || filter.since !== undefined || filter.last !== undefined;
  const tail = filter.tail ?? (everything ? undefined : EVENTS_SHOWN);
  return { events: tail === undefined ? events : events.slice(-tail || events.length), since };
}

/** Prints the events that are kept. */
export async function printEvents(session: Session, filter: EventFilter): Promise<void> {
  const { events } = await keptEvents(session, filter);
  if (printObjects(session, events)) return;
  session.context.print(renderTable(eventHeadings, events.map(eventRow), session.paint));
}

/** One event of a stream: a line of JSON, a document of YAML, or a line of text. */
function eventLine(session: Session, event: ClusterEvent): string {
  switch (session.output) {
    case "json":
      return JSON.stringify(event);
    case "yaml":
      return `---\n${yamlText(event)}`;
    case "none": {
      const at = session.paint("dim", event.at);
      const where = event.node ? ` on ${event.node}` : "";
      const text = event.message === "" ? "" : `: ${event.message}`;
      return `${at} ${event.category} ${event.action} ${event.target}${where}${text}`;
    }
  }
}

/** Prints events that are kept, then those that happen, until the user interrupts. */
export async function streamEvents(session: Session, filter: EventFilter): Promise<void> {
  // From the first line on: whoever has seen one may interrupt.
  const end = new AbortController();
  const release = session.context.onInterrupt?.(() => end.abort());
  try {
    const { context, client } = session;
    const { events, since } = await keptEvents(session, filter);
    for (const event of events) context.print(eventLine(session, event));
    if (end.signal.aborted) return;
    await followEvents(
      client.options,
      since,
      end.signal,
      (event) => {
        if (chosen(event, filter, Number.NEGATIVE_INFINITY)) {
          context.print(eventLine(session, event));
        }
      },
      (after, oldest) => context.printError(`events ${after + 1} to ${oldest - 1} are not kept`),
    );
  } finally {
    release?.();
  }
}
