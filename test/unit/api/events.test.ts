/** Events as pages and as a stream. */
import { beforeEach, describe, expect, test } from "bun:test";
import { type Api, createApi } from "../../../src/api/app.ts";
import { newestId, openEventStreams } from "../../../src/api/events.ts";
import { askApi } from "../../support/api/api-client.ts";
import { type RecordingControl, recordingControl } from "../../support/api/recording-control.ts";
import { PlannedCluster } from "../../support/planned-cluster.ts";
import { newEvent } from "../../support/store-records.ts";

let control: RecordingControl;
let api: Api;

beforeEach(() => {
  control = recordingControl(PlannedCluster.ofNodes(1));
  api = createApi(control, { log: () => {} });
  for (let n = 1; n <= 5; n += 1) control.addEvent(newEvent(`volume-${n}`));
});

interface Message {
  readonly id?: string;
  readonly event?: string;
  readonly data?: string;
}

/** Reads a stream message by message; comments are left out. */
function messages(response: Response) {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = "";
  return {
    async next(): Promise<Message> {
      for (;;) {
        const end = text.indexOf("\n\n");
        if (end >= 0) {
          const lines = text.slice(0, end).split("\n");
          text = text.slice(end + 2);
          const fields = lines
            .filter((line) => !line.startsWith(":"))
            .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
          if (fields.length > 0) return Object.fromEntries(fields) as Message;
          continue;
        }
        const { value, done } = await reader.read();
        if (done) throw new Error("the stream ended");
        text += decoder.decode(value, { stream: true });
      }
    },
    end: () => reader.cancel(),
  };
}

const stream = (path = "/v0/events", headers: Record<string, string> = {}, signal?: AbortSignal) =>
  api.request(path, {
    headers: { accept: "text/event-stream", ...headers },
    ...(signal === undefined ? {} : { signal }),
  });

describe("pages of events", () => {
  test("go on where the last ended", async () => {
    const ask = askApi(api);
    const first = (await ask("GET", "/events?limit=2")).body as unknown as {
      events: { id: number }[];
      next: number;
      oldest: number;
    };
    expect(first.events.map(({ id }) => id)).toEqual([1, 2]);
    expect([first.next, first.oldest]).toEqual([2, 1]);
    const rest = (await ask("GET", "/events?since=2")).body as unknown as typeof first;
    expect(rest.events.map(({ id }) => id)).toEqual([3, 4, 5]);
    const none = (await ask("GET", "/events?since=5")).body as unknown as typeof first;
    expect([none.events, none.next]).toEqual([[], 5]);
    expect((await ask("GET", "/events?limit=0")).status).toBe(400);
    expect((await ask("GET", "/events?limit=1001")).status).toBe(400);
  });

  test("the newest is found whatever is kept", () => {
    expect(newestId(control)).toBe(5);
    control.forgetEventsBefore(4);
    expect(newestId(control)).toBe(5);
    for (let n = 0; n < 30; n += 1) {
      control.addEvent(newEvent("x"));
      expect(newestId(control)).toBe(6 + n);
    }
    const empty = recordingControl(PlannedCluster.ofNodes(1));
    expect(newestId(empty)).toBe(0);
  });
});

describe("a stream of events", () => {
  test("begins now, and carries what comes", async () => {
    const response = await stream();
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    const read = messages(response);
    const next = read.next();
    control.addEvent(newEvent("new"));
    const message = await next;
    expect(message.id).toBe("6");
    expect(JSON.parse(message.data!)).toMatchObject({ id: 6, target: "new", category: "Volume" });
    await read.end();
  });

  test("is replayed from an id, or from Last-Event-ID before it", async () => {
    const read = messages(await stream("/v0/events?since=3"));
    expect([(await read.next()).id, (await read.next()).id]).toEqual(["4", "5"]);
    await read.end();
    const again = messages(await stream("/v0/events?since=3", { "last-event-id": "1" }));
    expect((await again.next()).id).toBe("2");
    await again.end();
    const wrong = await stream("/v0/events", { "last-event-id": "x" });
    expect(wrong.status).toBe(400);
  });

  test("says when events were dropped before they could be sent", async () => {
    control.forgetEventsBefore(4);
    const read = messages(await stream("/v0/events?since=1"));
    const gap = await read.next();
    expect([gap.event, JSON.parse(gap.data!)]).toEqual(["gap", { since: 1, oldest: 4 }]);
    expect((await read.next()).id).toBe("4");
    await read.end();
  });

  test("carries more than one page, each event once", async () => {
    for (let n = 0; n < 350; n += 1) control.addEvent(newEvent(`more-${n}`));
    const read = messages(await stream("/v0/events?since=0"));
    for (let id = 1; id <= 355; id += 1) expect((await read.next()).id).toBe(String(id));
    await read.end();
  });

  test("leaves nothing behind, whoever ends it", async () => {
    const before = openEventStreams();
    const abort = new AbortController();
    const read = messages(await stream("/v0/events", {}, abort.signal));
    const other = messages(await stream());
    expect([openEventStreams() - before, control.listeners()]).toEqual([2, 2]);
    abort.abort();
    await other.end();
    await read.end();
    expect([openEventStreams() - before, control.listeners()]).toEqual([0, 0]);
  });
});
