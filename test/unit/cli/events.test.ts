import { afterEach, describe, expect, test } from "bun:test";
import { type StreamEvent, streamParser } from "../../../src/client/event-stream.ts";
import type { ClusterEvent } from "../../../src/client/types.ts";
import type { Asked } from "../../support/api-stand-in.ts";
import { againstApi, runLine, VOLUME } from "./fixtures.ts";

const run = againstApi();

const event = (id: number, more: Partial<ClusterEvent> = {}): ClusterEvent => ({
  id,
  at: new Date(Date.parse("2026-11-21T10:00:00Z") + id * 60_000).toISOString(),
  category: "Volume",
  action: "Create",
  target: VOLUME,
  node: "node-1",
  component: "api",
  message: `event ${id}`,
  ...more,
});

/** Pages of the events as the API gives them. */
function pages(events: readonly ClusterEvent[]) {
  return ({ search }: Asked) => {
    const query = new URLSearchParams(search);
    const since = Number(query.get("since"));
    const page = events.filter(({ id }) => id > since).slice(0, Number(query.get("limit")));
    return { body: { events: page, next: page.at(-1)?.id ?? since, oldest: 1 } };
  };
}

/** Ids of the events that a line printed. */
async function ids(line: string, events: readonly ClusterEvent[]): Promise<number[]> {
  const now = () => Date.parse("2026-11-21T10:30:00Z");
  const ran = await run(`${line} -o json`, { "GET /events": pages(events) }, { now });
  expect(ran.status).toBe(0);
  return (JSON.parse(ran.out) as ClusterEvent[]).map(({ id }) => id);
}

describe("events", () => {
  const some = [
    event(1),
    event(2, { category: "Pool", target: "pool-1" }),
    event(3, { node: "node-2" }),
    event(29),
  ];
  const filters: [options: string, ids: number[]][] = [
    ["", [1, 2, 3, 29]],
    [" --since 2", [3, 29]],
    [" --tail 2", [3, 29]],
    [" --last 5m", [29]],
    [" --category pool", [2]],
    [" --target pool-1", [2]],
    [" --node node-2", [3]],
    [" --category nexus", []],
  ];
  for (const [options, wanted] of filters) {
    test(`are those that were asked for:${options}`, async () => {
      expect(await ids(`events${options}`, some)).toEqual(wanted);
      expect(await ids(`get events${options}`, some)).toEqual(wanted);
    });
  }

  test("are read page by page; the newest hundred are shown, unless all are wanted", async () => {
    const many = Array.from({ length: 2500 }, (_, index) => event(index + 1));
    expect(await ids("events", many)).toEqual(many.slice(-100).map(({ id }) => id));
    expect(await ids("events --all", many)).toHaveLength(2500);
  });
});

/** A server of a stream that a test writes to, connection by connection. */
function streamServer(first: readonly ClusterEvent[]) {
  const encoder = new TextEncoder();
  const sinces: string[] = [];
  let open: ReadableStreamDefaultController<Uint8Array> | null = null;
  let opened: () => void = () => {};
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch(request) {
      const url = new URL(request.url);
      if (request.headers.get("accept") !== "text/event-stream") {
        const since = Number(url.searchParams.get("since"));
        const page = first.filter(({ id }) => id > since);
        return Response.json({ events: page, next: page.at(-1)?.id ?? since, oldest: 1 });
      }
      sinces.push(`${url.searchParams.get("since")} ${request.headers.get("last-event-id")}`);
      const stream = new ReadableStream<Uint8Array>({
        start(controller) {
          open = controller;
          controller.enqueue(encoder.encode(": events\n\n"));
          opened();
        },
      });
      return new Response(stream, { headers: { "content-type": "text/event-stream" } });
    },
  });
  servers.push(server);
  return {
    url: `http://127.0.0.1:${server.port}`,
    sinces,
    /** Resolves at the next connection. */
    connected: () =>
      new Promise<void>((resolve) => {
        opened = resolve;
      }),
    write: (text: string) => open!.enqueue(encoder.encode(text)),
    close: () => open!.close(),
  };
}
const servers: { stop: (force: boolean) => unknown }[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop(true);
});

const block = (one: ClusterEvent) => `id: ${one.id}\ndata: ${JSON.stringify(one)}\n\n`;

describe("events --follow", () => {
  test("goes on where a broken connection ended, and ends at Ctrl-C", async () => {
    const api = streamServer([event(1)]);
    let interrupt: () => void = () => {};
    const firstConnection = api.connected();
    const ended = runLine("events --follow", {
      env: { TRILITH_REST: api.url },
      onInterrupt: (act) => {
        interrupt = act;
        return () => {};
      },
    });
    await firstConnection;
    const secondConnection = api.connected();
    api.write(block(event(2)));
    api.close();
    await secondConnection;
    // An event that comes twice is printed once; what was dropped is told.
    const thirdConnection = api.connected();
    api.write(block(event(2)) + block(event(3)));
    api.write('event: gap\ndata: {"since":3,"oldest":9}\n\n');
    api.write(block(event(9)));
    api.close();
    await thirdConnection;
    interrupt();
    const ran = await ended;
    expect(ran.status).toBe(0);
    expect(api.sinces).toEqual(["1 1", "2 2", "9 9"]);
    expect(ran.out.split("\n").map((line) => line.split(": ").at(-1)!)).toEqual([
      "event 1",
      "event 2",
      "event 3",
      "event 9",
    ]);
    expect(ran.out.split("\n")[0]).toBe(
      `2026-11-21T10:01:00.000Z Volume Create ${VOLUME} on node-1: event 1`,
    );
    expect(ran.err).toBe("events 4 to 8 are not kept");
  });

  test("prints one object per line with -o json", async () => {
    const api = streamServer([event(1), event(2)]);
    let interrupt: () => void = () => {};
    const connection = api.connected();
    const ended = runLine("events -f -o json", {
      env: { TRILITH_REST: api.url },
      onInterrupt: (act) => {
        interrupt = act;
        return () => {};
      },
    });
    await connection;
    interrupt();
    const { out } = await ended;
    expect(out.split("\n").map((line) => JSON.parse(line))).toEqual([event(1), event(2)]);
  });

  test("of an API that refuses is an error", async () => {
    const refused = { kind: "Unauthenticated", message: "no token", details: "" };
    const ran = await run("events -f", {
      "GET /events": ({ headers }) =>
        headers.get("accept") === "text/event-stream"
          ? { status: 401, body: refused }
          : { body: { events: [], next: 0, oldest: 1 } },
    });
    expect(ran.status).toBe(11);
  });
});

describe("a stream of events", () => {
  /** What comes of a text that arrives in pieces of `size`. */
  function parsed(text: string, size: number): StreamEvent[] {
    const found: StreamEvent[] = [];
    const parse = streamParser((one) => found.push(one));
    for (let at = 0; at < text.length; at += size) parse(text.slice(at, at + size));
    return found;
  }

  const texts: [what: string, text: string, events: StreamEvent[]][] = [
    ["with comments", ": beat\n\ndata: a\n\n", [{ id: undefined, type: "message", data: "a" }]],
    [
      "with lines that end otherwise",
      "id: 1\r\ndata: a\r\n\r\n",
      [{ id: "1", type: "message", data: "a" }],
    ],
    [
      "with several lines of data",
      "data: a\ndata:b\ndata\n\n",
      [{ id: undefined, type: "message", data: "a\nb\n" }],
    ],
    [
      "with several lines that end otherwise",
      "data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
      [
        { id: undefined, type: "message", data: "a\nb" },
        { id: undefined, type: "message", data: "c" },
      ],
    ],
    [
      "with types",
      "event: gap\ndata: 1\n\ndata: 2\n\n",
      [
        { id: undefined, type: "gap", data: "1" },
        { id: undefined, type: "message", data: "2" },
      ],
    ],
    ["that breaks off", "data: a\n\ndata: b\n", [{ id: undefined, type: "message", data: "a" }]],
  ];
  for (const [what, text, events] of texts) {
    test(`${what} is understood however it is cut`, () => {
      for (let size = 1; size <= text.length; size++) expect(parsed(text, size)).toEqual(events);
    });
  }

  test("with a line that never ends is refused", () => {
    const parse = streamParser(() => {});
    expect(() => parse("x".repeat((1 << 20) + 1))).toThrow("a line without an end");
  });
});
