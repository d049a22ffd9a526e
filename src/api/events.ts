/** The stream of events: pages of it, and server-sent events that can be taken up where they ended. */
import type { Control } from "../control/control.ts";
import { TrilithError } from "../errors.ts";
import { EVENT_STREAM_BEAT_MS, EVENT_STREAMS_MAX, EVENTS_PAGE_DEFAULT } from "./limits.ts";
import { renderEvent } from "./render/cluster.ts";
import type { Events } from "./schemas/index.ts";

type EventSource = Pick<Control, "events" | "onEvent">;

/** Events after `since`, at most `limit`. */
export function eventsPage(control: EventSource, since: number, limit: number): Events {
  const { events, oldestId } = control.events(since, limit);
  const shown = events.map(renderEvent);
  return { events: shown, next: shown.at(-1)?.id ?? since, oldest: oldestId };
}

/**
 * Id of the newest event: where a stream begins that nobody asked to begin earlier. Ids have no gaps,
 * so that it is found by halving.
 */
export function newestId(control: EventSource): number {
  const exists = (id: number) => control.events(id - 1, 1).events.length > 0;
  let below = Math.max(0, control.events(0, 1).oldestId - 1);
  let step = 1;
  while (exists(below + step)) {
    below += step;
    step *= 2;
  }
  while (step > 1) {
    step /= 2;
    if (exists(below + step)) below += step;
  }
  return below;
}

let open = 0;

/** How many streams are open. */
export function openEventStreams(): number {
  return open;
}

function block(fields: Record<string, string>): string {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`);
  return `${lines.join("")}\n`;
}

/** Text of the next events, and where to go on. */
function nextBlocks(control: EventSource, since: number): { text: string; since: number } {
  const { events, oldest, next } = eventsPage(control, since, EVENTS_PAGE_DEFAULT);
  let text = "";
  if (oldest > since + 1 && events.length > 0) {
    text += block({ event: "gap", data: JSON.stringify({ since, oldest }) });
  }
  for (const event of events) {
    text += block({ id: String(event.id), data: JSON.stringify(event) });
  }
  return { text, since: next };
}

/**
 * An endless answer of server-sent events. Events are read from the store page by page as the client
 * takes them, so that a slow client costs nothing; a listener only wakes it.
 */
export function eventStream(
  control: EventSource,
  request: Request,
  since: number | undefined,
): Response {
  if (open >= EVENT_STREAMS_MAX) {
    throw new TrilithError("Unavailable", `${EVENT_STREAMS_MAX} event streams are open already`);
  }
  const last = request.headers.get("last-event-id");
  if (last !== null && !/^\d{1,15}$/.test(last)) {
    throw new TrilithError("InvalidArgument", "Last-Event-ID is not the id of an event");
  }
  let cursor = last !== null ? Number(last) : (since ?? newestId(control));
  let wake: () => void = () => {};
  let ended = false;
  let cancelled = false;
  const stopListening = control.onEvent(() => wake());
  open += 1;
  const end = () => {
    if (ended) return;
    ended = true;
    open -= 1;
    stopListening();
    request.signal.removeEventListener("abort", end);
    wake();
  };
  request.signal.addEventListener("abort", end);
  /** Resolves with true when there may be a new event, with false when it is time for a comment. */
  const pause = (): Promise<boolean> =>
    new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), EVENT_STREAM_BEAT_MS);
      wake = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  const encoder = new TextEncoder();
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(encoder.encode(": events\n\n")),
    async pull(controller) {
      while (!ended) {
        // Before the store is read: an event that comes meanwhile is not missed.
        const waiting = pause();
        const { text, since: next } = nextBlocks(control, cursor);
        if (text !== "") {
          wake();
          cursor = next;
          controller.enqueue(encoder.encode(text));
          return;
        }
        if (!(await waiting)) {
          controller.enqueue(encoder.encode(": beat\n\n"));
          return;
        }
      }
      if (!cancelled) controller.close();
    },
    cancel() {
      cancelled = true;
      end();
    },
  });
  return new Response(stream, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}
