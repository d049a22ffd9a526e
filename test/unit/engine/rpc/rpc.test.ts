/** The HTTP side of a contract: what is refused and how, and that the client sends what it is given. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type Client, httpClient } from "../../../../src/engine/rpc/client.ts";
import { QueryFlag, Uuid } from "../../../../src/engine/rpc/fields.ts";
import { RPC_BODY_BYTES_MAX } from "../../../../src/engine/rpc/limits.ts";
import { type Handlers, routes } from "../../../../src/engine/rpc/route.ts";
import { contractApp } from "../../../../src/engine/rpc.ts";
import { errorCodes, facesOf, TrilithError } from "../../../../src/errors.ts";
import { currentRequestId, withRequestId } from "../../../../src/ops/request-id.ts";

const contract = routes({
  echo: {
    method: "PUT",
    path: "/v1/things/:name/parts/:uuid",
    summary: "returns what it was given",
    params: v.strictObject({ name: v.string(), uuid: Uuid }),
    query: v.strictObject({ deep: v.optional(QueryFlag, false) }),
    body: v.strictObject({
      count: v.pipe(v.number(), v.integer(), v.minValue(0)),
      labels: v.optional(v.array(v.string()), []),
    }),
    result: v.object({
      name: v.string(),
      uuid: v.string(),
      deep: v.boolean(),
      count: v.number(),
      labels: v.array(v.string()),
    }),
  },
  remove: {
    method: "DELETE",
    path: "/v1/things/:name",
    summary: "answers nothing",
    params: v.strictObject({ name: v.string() }),
  },
  fail: {
    method: "POST",
    path: "/v1/failures/:code",
    summary: "fails",
    params: v.strictObject({ code: v.string() }),
  },
  lie: {
    method: "GET",
    path: "/v1/lie",
    summary: "answers in another shape",
    result: v.object({ truth: v.boolean() }),
  },
});

const logged: string[] = [];
/** Ids under which entries were logged. */
const ids: (string | undefined)[] = [];
let server: ReturnType<typeof Bun.serve>;
let client: Client<typeof contract>;
let base = "";

beforeAll(() => {
  const handlers: Handlers<typeof contract> = {
    echo: async (request) => request,
    remove: async ({ name }) => {
      if (name === "absent") throw new TrilithError("NotFound", "there is no such thing");
      return undefined;
    },
    fail: async ({ code }) => {
      const known = errorCodes.find((one) => one === code);
      if (known === undefined) throw new TypeError("a defect with secrets in its stack");
      throw new TrilithError(known, `because of ${code}`, "do something");
    },
    lie: async () => ({ truth: "perhaps" }) as never,
  };
  const app = contractApp(contract, handlers, (_level, text, fields) => {
    logged.push(`${text} ${JSON.stringify(fields)}`);
    ids.push(currentRequestId());
  });
  server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: app.fetch });
  base = `http://127.0.0.1:${server.port}`;
  client = httpClient(contract, base);
});
afterAll(() => server.stop(true));

const UUID = "0c3d6b1e-5a3f-4a57-9d8e-1f2a3b4c5d6e";
const thing = { name: "n", uuid: UUID, count: 1 };

interface Answer {
  readonly status: number;
  readonly body: { readonly kind: string; readonly message: string; readonly details: string };
}

/** A request as curl would send it. */
async function send(
  method: string,
  path: string,
  body?: string,
  headers: Record<string, string> = { "content-type": "application/json" },
): Promise<Answer> {
  const response = await fetch(base + path, {
    method,
    headers,
    ...(body === undefined ? {} : { body }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? {} : JSON.parse(text) };
}

describe("the client", () => {
  test("sends every part, and gets defaults filled in", async () => {
    expect(await client.echo(thing)).toEqual({ ...thing, deep: false, labels: [] });
    const full = { ...thing, deep: true, labels: ["a"] };
    expect(await client.echo(full)).toEqual({ ...thing, deep: true, labels: ["a"] });
  });

  test("takes names with any characters through the path", async () => {
    const names = [
      "/dev/disk/by-id/x y",
      "nvmf+tcp://10.0.0.1:8420/nqn.2019-05.io.openebs:a?uuid=b&hdgst=true#c",
      "100%",
      "%2F",
      "ü → €",
      "a+b",
    ];
    for (const name of names) expect((await client.echo({ ...thing, name })).name).toBe(name);
  });

  test("resolves with nothing where the contract has no result", async () => {
    expect(await client.remove({ name: "x" })).toBeUndefined();
  });

  test("rejects with the typed error of the engine", async () => {
    for (const code of errorCodes) {
      if (code === "Internal") continue;
      const error = await client.fail({ code }).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(TrilithError);
      expect(error).toMatchObject({ code, message: `because of ${code}`, remedy: "do something" });
    }
  });

  test("rejects answers of another shape, and servers that are none", async () => {
    await expect(client.lie()).rejects.toMatchObject({ code: "Unavailable" });
    const nobody = httpClient(contract, "http://127.0.0.1:1");
    await expect(nobody.lie()).rejects.toMatchObject({ code: "Unavailable" });
    const html = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response("<h1>teapot</h1>", { status: 418 }),
    });
    const other = httpClient(contract, `http://127.0.0.1:${html.port}`);
    await expect(other.lie()).rejects.toThrow("HTTP 418");
    await html.stop(true);
  });

  test("gives up after its time limit", async () => {
    const silent = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Promise<Response>(() => {}),
    });
    const patient = httpClient(contract, `http://127.0.0.1:${silent.port}`);
    await expect(patient.lie({}, { timeoutMs: 50 })).rejects.toMatchObject({ code: "Timeout" });
    const given = new AbortController();
    const call = patient.lie({}, { signal: given.signal });
    given.abort();
    await expect(call).rejects.toMatchObject({ code: "Aborted" });
    await silent.stop(true);
  });
});

describe("a request", () => {
  const path = `/v1/things/n/parts/${UUID}`;

  test("with an unknown field anywhere is refused, and the field is named", async () => {
    const inBody = await send("PUT", path, '{"count":1,"colour":"red"}');
    expect(inBody).toMatchObject({ status: 400, body: { kind: "InvalidArgument" } });
    expect(inBody.body.message).toContain('"colour"');
    const inQuery = await send("PUT", `${path}?shallow=1`, '{"count":1}');
    expect(inQuery.body.message).toContain('"shallow"');
    const unexpected = await send("DELETE", "/v1/things/n", '{"force":true}');
    expect(unexpected).toMatchObject({ status: 400 });
    expect(unexpected.body.message).toContain('"force"');
  });

  test("with a wrong value is refused, and field and reason are named", async () => {
    const wrong = await send("PUT", path, '{"count":-1}');
    expect(wrong.status).toBe(400);
    expect(wrong.body.message).toContain('"count"');
    const missing = await send("PUT", path, "{}");
    expect(missing.body.message).toContain('"count"');
    const badPath = await send("PUT", "/v1/things/n/parts/no-uuid", '{"count":1}');
    expect(badPath.body.message).toContain("not a UUID");
    const badQuery = await send("PUT", `${path}?deep=perhaps`, '{"count":1}');
    expect(badQuery.body.message).toContain('"deep"');
    const twice = await send("PUT", `${path}?deep=true&deep=false`, '{"count":1}');
    expect(twice.body.message).toContain("twice");
  });

  test("whose body is no JSON object is refused", async () => {
    for (const body of ["{", "[]", "null", "7", '"x"', "\u0000", "{'count':1}"]) {
      expect(await send("PUT", path, body)).toMatchObject({
        status: 400,
        body: { kind: "InvalidArgument" },
      });
    }
    const plain = await send("PUT", path, '{"count":1}', { "content-type": "text/plain" });
    expect(plain.body.message).toContain("content type");
  });

  test("with a prototype in its body changes nobody's prototype", async () => {
    const hostile = await send("PUT", path, '{"count":1,"__proto__":{"polluted":true}}');
    expect(hostile.status).toBe(400);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  test("that is too large is refused before it is read", async () => {
    const body = JSON.stringify({ count: 1, labels: ["x".repeat(RPC_BODY_BYTES_MAX)] });
    expect(await send("PUT", path, body)).toMatchObject({
      status: 400,
      body: { kind: "InvalidArgument" },
    });
  });

  test("from a web page is refused", async () => {
    const headers = { origin: "http://evil.example", "content-type": "application/json" };
    const refused = await send("PUT", path, '{"count":1}', headers);
    expect(refused).toMatchObject({ status: 401, body: { kind: "PermissionDenied" } });
  });

  test("for what does not exist is NotFound", async () => {
    expect(await send("GET", "/v1/nothing")).toMatchObject({
      status: 404,
      body: { kind: "NotFound" },
    });
    expect(await send("DELETE", "/v1/things/absent")).toMatchObject({ status: 404 });
  });
});

describe("the id of a request", () => {
  test("goes with the client's calls into the log, and no further than the call", async () => {
    const input = { name: "pool-1" };
    await withRequestId("outer-1", () => client.remove(input));
    expect(ids.at(-1)).toBe("outer-1");
    await client.remove(input);
    expect(ids.at(-1)).toBeUndefined();
    expect(logged.at(-1)).toContain('"path":"/v1/things/pool-1","status":204');
  });

  test("is not taken when it could break a line", async () => {
    const headers = { "x-request-id": "a b=c" };
    await fetch(`${base}/v1/things/pool-1`, { method: "DELETE", headers });
    expect(ids.at(-1)).toBeUndefined();
  });
});

describe("an error", () => {
  test("has the HTTP status of its code", async () => {
    for (const code of errorCodes) {
      const { status, body } = await send("POST", `/v1/failures/${code}`);
      expect(status).toBe(facesOf(code).http);
      expect(body.kind).toBe(code);
    }
  });

  test("that is a defect is Internal; its stack goes to the log and not to the caller", async () => {
    const { status, body } = await send("POST", "/v1/failures/unheard-of");
    expect({ status, kind: body.kind }).toEqual({ status: 500, kind: "Internal" });
    expect(body.details).not.toContain("rpc.test.ts");
    expect(logged.slice(-2)[0]).toContain("rpc.test.ts");
  });
});
