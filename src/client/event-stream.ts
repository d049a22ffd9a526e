/**
 * Follows the cluster's events (server-sent events, WHATWG HTML 9.2): reconnects where it was when
 * the connection breaks, so that none is missed and none comes twice.
 */
import { TrilithError } from "../errors.ts";
import { errorOfAnswer, type HttpOptions, request, send } from "./http.ts";
import { RETRY_PAUSE_MS, STREAM_LINE_MAX } from "./limits.ts";
import type { ClusterEvent } from "./types.ts";

/** Longest pause between attempts to connect again. */
const PAUSE_MAX_MS = 5_000;

/** One event of a stream. */
export interface StreamEvent {
  readonly id: string | undefined;
  /** `message` when none is named. */
  readonly type: string;
  readonly data: string;
}

/** Takes the text of a stream in pieces as they come; calls `emit` for each event that is whole. */
export function streamParser(emit: (event: StreamEvent) => void): (text: string) => void {
  let rest = "";
  let data: string[] = [];
  let id: string | undefined;
  let type = "message";
  function line(text: string): void {
    if (text === "") {
      if (data.length > 0) emit({ id, type, data: data.join("\n") });
      data = [];
      type = "message";
      return;
    }
    const colon = text.indexOf(":");
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? "" : text.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "event") type = value;
    else if (field === "id") id = value;
  }
  return (text) => {
    rest += text;
    // A lone carriage return at the end may be the first half of a line's end.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    if (rest.length > STREAM_LINE_MAX) {
      throw new TrilithError("Unavailable", "the event stream holds a line without an end");
    }
    for (const one of lines) line(one);
  };
}

/**
 * Calls `act` with each event after `since` (null: after the newest) as it happens, until `signal`, and `missed` when some
 * were dropped before they could be sent. Rejects when the server
 * refuses; a connection that breaks is made again.
 */
export async function followEvents(
  options: HttpOptions,
  since: number | null,
  signal: AbortSignal,
  act: (event: ClusterEvent) => void,
  missed: (since: number, oldest: number) => void,
): Promise<void> {
  const sleep = options.sleep ?? Bun.sleep;
  let last = since;
  let pauseMs = RETRY_PAUSE_MS;
  let connectedBefore = false;
  while (!signal.aborted) {
    try {
      const asked = { method: "GET" as const, path: "/v0/events", query: { since: last } };
      const from = last === null ? {} : { "last-event-id": String(last) };
      const headers = { accept: "text/event-stream", ...from };
      const response = await send(options, asked, headers, signal);
      if (!response.ok) {
        const error = errorOfAnswer(response.status, await response.text(), options.endpoint);
        if (response.status !== 503) throw error;
      } else {
        connectedBefore = true;
        const parse = streamParser(({ type, data }) => {
          if (type === "gap") {
            const gap = JSON.parse(data) as { since: number; oldest: number };
            missed(gap.since, gap.oldest);
            return;
          }
          const event = JSON.parse(data) as ClusterEvent;
          if (last !== null && event.id <= last) return;
          last = event.id;
          pauseMs = RETRY_PAUSE_MS;
          act(event);
        });
        const decoder = new TextDecoder();
        for await (const chunk of response.body ?? [])
          parse(decoder.decode(chunk, { stream: true }));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof TrilithError) throw error;
      // The first connection says in words what is wrong; later ones are tried until it is back.
      if (!connectedBefore) await request(options, { method: "GET", path: "/v0/nodes" });
    }
    if (signal.aborted) return;
    await sleep(pauseMs);
    pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 2);
  }
}
