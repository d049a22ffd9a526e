/** What holds for every request: errors, bodies, headers, forwarding, admission. */
import { beforeEach, describe, expect, test } from "bun:test";
import type { Admission } from "../../../src/api/admission.ts";
import { type Answered, type Api, type ApiOptions, createApi } from "../../../src/api/app.ts";
import { kindOf } from "../../../src/api/errors.ts";
import { BODY_BYTES_MAX } from "../../../src/api/limits.ts";
import { pathParams, pathPattern } from "../../../src/api/request.ts";
import { errorKinds } from "../../../src/api/schemas/cluster.ts";
import { errorCodes, facesOf, TrilithError } from "../../../src/errors.ts";
import { currentRequestId } from "../../../src/ops/request-id.ts";
import { askApi } from "../../support/api/api-client.ts";
import { expectContract } from "../../support/api/expect-contract.ts";
import { furnishedCluster, ids } from "../../support/api/furnished-cluster.ts";
import { type RecordingControl, recordingControl } from "../../support/api/recording-control.ts";
import { GiB, type PlannedCluster } from "../../support/planned-cluster.ts";

let cluster: PlannedCluster;
let control: RecordingControl;
let logged: unknown[][];

beforeEach(() => {
  cluster = furnishedCluster();
  control = recordingControl(cluster);
  logged = [];
});

function apiWith(options: Partial<ApiOptions> = {}): Api {
  return createApi(control, { log: (...entry) => logged.push(entry), ...options });
}

const volume = { policy: { self_heal: true }, replicas: 1, size: GiB, thin: false };
const fresh = "00000000-0000-4000-9000-00000000aaaa";

describe("errors", () => {
  test("of every code have a kind of the contract, with the kind's status", async () => {
    const ask = askApi(apiWith());
    const byKind = new Map<string, Set<number>>();
    for (const code of errorCodes) {
      control.behaviour.failure = new TrilithError(code, "what", "do this");
      const { status, body } = await ask("DELETE", `/volumes/${ids.plain}`);
      expect(body as unknown).toEqual({
        details: kindOf(code) === code ? "" : code,
        message: "what",
        kind: kindOf(code),
        remedy: "do this",
      });
      expect(status).toBe(facesOf(code).http);
      byKind.set(kindOf(code), (byKind.get(kindOf(code)) ?? new Set()).add(status));
    }
    expect([...byKind.values()].every((statuses) => statuses.size === 1)).toBe(true);
    expect([...byKind.keys()].sort()).toEqual([...errorKinds].sort());
  });

  test("that nobody expected tell the caller nothing but the request's id", async () => {
    control.behaviour.failure = new Error("secret detail");
    const { status, body, headers } = await askApi(apiWith())("DELETE", `/volumes/${ids.plain}`);
    expect(status).toBe(500);
    expect(JSON.stringify(body)).not.toContain("secret");
    expect(String(body.details)).toBe(`request ${headers.get("x-request-id")}`);
    expect(logged.filter(([level]) => level === "error")).toHaveLength(1);
  });

  test("name what there is not, and what a path does not know", async () => {
    const ask = askApi(apiWith());
    const none = await ask("GET", "/nothing/here");
    expect([none.status, none.body.kind as unknown]).toEqual([404, "NotFound"]);
    const wrong = await ask("DELETE", "/nodes");
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "GET"]);
    expectContract("GET", "/nodes", 405, wrong.body);
    const patch = await ask("PATCH", `/volumes/${ids.plain}`);
    expect([patch.status, patch.headers.get("allow")?.split(", ").sort()]).toEqual([
      405,
      ["DELETE", "GET", "PUT"],
    ]);
  });
});

describe("bodies", () => {
  const put = (body: string | Uint8Array | ReadableStream, type = "application/json") =>
    apiWith().request(`/v0/volumes/${fresh}`, {
      method: "PUT",
      body,
      headers: { "content-type": type },
    });
  const kindAnd = async (response: Response) => [
    response.status,
    ((await response.json()) as { kind: string }).kind,
  ];

  test("that are too long get 413 in the contract's form, announced or not", async () => {
    const long = JSON.stringify({ ...volume, labels: { a: "x".repeat(BODY_BYTES_MAX) } });
    expect(await kindAnd(await put(long))).toEqual([413, "InvalidArgument"]);
    const chunks = new ReadableStream({
      start(controller) {
        const chunk = new Uint8Array(64 * 1024).fill(0x20);
        for (let n = 0; n < 20; n += 1) controller.enqueue(chunk);
        controller.close();
      },
    });
    expect(await kindAnd(await put(chunks))).toEqual([413, "InvalidArgument"]);
    expect(control.calls).toEqual([]);
  });

  test("that are no JSON object of the shape get 400 with the field's name", async () => {
    expect(await kindAnd(await put("{"))).toEqual([400, "Deserialize"]);
    expect(await kindAnd(await put("[]"))).toEqual([400, "Deserialize"]);
    expect(await kindAnd(await put("null"))).toEqual([400, "Deserialize"]);
    expect(await kindAnd(await put(""))).toEqual([400, "Deserialize"]);
    expect(await kindAnd(await put(new Uint8Array([0x7b, 0xff, 0x7d])))).toEqual([
      400,
      "Deserialize",
    ]);
    const { size: _size, ...without } = volume;
    const lacking = (await (await put(JSON.stringify(without))).json()) as { message: string };
    expect(lacking.message).toContain('"size"');
    const wrong = JSON.stringify({ ...volume, policy: { self_heal: 1 } });
    const named = (await (await put(wrong)).json()) as { message: string };
    expect(named.message).toContain('"policy.self_heal"');
    const beyond = JSON.stringify(volume).replace(String(GiB), "1e300");
    expect((await put(beyond)).status).toBe(400);
    expect(control.calls).toEqual([]);
  });

  test("of another content type get 415", async () => {
    const text = JSON.stringify(volume);
    expect(await kindAnd(await put(text, "text/plain"))).toEqual([415, "InvalidArgument"]);
    expect((await put(text, "application/json; charset=utf-8")).status).toBe(200);
  });

  test("may hold fields that the contract does not know; ours may not", async () => {
    const ask = askApi(apiWith());
    const known = await ask("PUT", `/volumes/${fresh}?later=1`, { ...volume, encrypted: true });
    expect(known.status).toBe(200);
    expect(known.headers.get("trilith-ignored-fields")).toBe("later, encrypted");
    const own = await ask("POST", "/volumes", { ...volume, encrypted: true });
    expect([own.status, String(own.body.message)]).toEqual([
      400,
      'the body has an unknown field "encrypted"',
    ]);
    expect((await ask("GET", "/events?later=1")).status).toBe(400);
  });
});

describe("paths and queries", () => {
  test("that are wrong get 400 and change nothing", async () => {
    const ask = askApi(apiWith());
    for (const [method, path] of [
      ["GET", "/volumes/none"],
      ["GET", "/volumes?max_entries=x"],
      ["GET", "/volumes?max_entries=-1"],
      ["GET", "/volumes?max_entries=1&max_entries=2"],
      ["GET", "/volumes?max_entries=1&starting_token=1.5"],
      ["GET", "/volumes/%zz"],
      ["PUT", `/volumes/${ids.plain}/replica_count/two`],
      ["DELETE", `/volumes/${ids.plain}/target?force=yes`],
      ["PUT", "/nodes/node-1/cordon/a%20b"],
      ["PUT", "/nodes/node-1/label/a%ff=b"],
    ] as const) {
      const { status, body } = await ask(method, path);
      expect([path, status, body.kind as unknown]).toEqual([path, 400, "InvalidArgument"]);
    }
    expect(control.calls).toEqual([]);
  });

  test("that are endless get 414", async () => {
    const { status } = await askApi(apiWith())("GET", `/nodes?node_id=${"x".repeat(20_000)}`);
    expect(status).toBe(414);
  });

  test("are taken apart by the template", () => {
    const label = pathPattern("/nodes/{id}/label/{key}={value}");
    expect(pathParams(label, "/nodes/n%2F1/label/a%2Fb=c=d")).toEqual({
      id: "n/1",
      key: "a/b",
      value: "c=d",
    });
    const share = pathPattern("/volumes{volume_id}/share");
    expect(pathParams(share, "/volumesabc/share")).toEqual({ volume_id: "abc" });
    expect(pathParams(share, "/volumes/abc/share")).toBeNull();
    const child = pathPattern("/nexuses/{nexus_id}/children/{child_id}");
    expect(pathParams(child, "/nexuses/n/children/a://b/c")).toEqual({
      nexus_id: "n",
      child_id: "a://b/c",
    });
  });
});

describe("headers", () => {
  test("carry the request's id in, through and out", async () => {
    const ask = askApi(apiWith());
    const seen: (string | undefined)[] = [];
    const { destroyVolume } = control;
    Object.assign(control, {
      destroyVolume: (...given: Parameters<typeof destroyVolume>) => {
        seen.push(currentRequestId());
        return destroyVolume(...given);
      },
    });
    const given = { "x-request-id": "my-id/1" };
    const { headers } = await ask("DELETE", `/volumes/${ids.plain}`, undefined, given);
    expect(headers.get("x-request-id")).toBe("my-id/1");
    expect(control.calls[0]?.context.requestId).toBe("my-id/1");
    expect(seen).toEqual(["my-id/1"]);
    const other = await ask("GET", "/nodes", undefined, { "x-request-id": 'a"b' });
    expect(other.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  });

  test("carry the idempotency key, of changes only", async () => {
    const ask = askApi(apiWith());
    const key = { "idempotency-key": "key-1" };
    await ask("PUT", "/nodes/node-1/cordon/a", undefined, key);
    expect(control.calls[0]?.context.idempotencyKey).toBe("key-1");
    const long = { "idempotency-key": "k".repeat(256) };
    expect((await ask("PUT", "/nodes/node-1/cordon/b", undefined, long)).status).toBe(400);
    const spaced = { "idempotency-key": "a b" };
    expect((await ask("PUT", "/nodes/node-1/cordon/b", undefined, spaced)).status).toBe(400);
    expect((await ask("GET", "/nodes", undefined, long)).status).toBe(200);
    expect(control.calls).toHaveLength(1);
  });

  test("are told to whoever counts requests", async () => {
    const answered: Answered[] = [];
    const ask = askApi(apiWith({ answered: (one) => answered.push(one) }));
    await ask("GET", `/volumes/${ids.absent}`);
    await ask("GET", "/nothing");
    expect(answered).toMatchObject([
      { operation: "get_volume", method: "GET", status: 404 },
      { operation: "", method: "GET", status: 404 },
    ]);
  });
});

describe("a node that does not lead", () => {
  const elsewhere = () => "elsewhere" as const;
  const json = (body: unknown) => Response.json(body, { status: 200 });

  test("hands requests on, once, without the caller's token", async () => {
    const asked: Request[] = [];
    const forward = async (request: Request) => {
      asked.push(request);
      return json([]);
    };
    const api = apiWith({ leadership: elsewhere, forward });
    const headers = { authorization: "Bearer secret", "x-request-id": "r1" };
    const response = await api.request("/v0/nodes?node_id=a", { headers });
    expect([response.status, await response.json()]).toEqual([200, []]);
    expect(response.headers.get("trilith-stale")).toBeNull();
    const [one] = asked;
    expect(new URL(one!.url).pathname + new URL(one!.url).search).toBe("/v0/nodes?node_id=a");
    expect(one!.headers.get("authorization")).toBeNull();
    expect(one!.headers.get("trilith-forwarded")).toBe("1");
    expect(one!.headers.get("x-request-id")).toBe("r1");
    const again = await api.request(one!);
    expect(again.headers.get("trilith-stale")).toBe("true");
    expect(asked).toHaveLength(1);
  });

  test("hands on the body of a change, and the leader's refusal back", async () => {
    let body: unknown;
    const forward = async (request: Request) => {
      body = await request.json();
      return Response.json({ details: "", message: "no", kind: "Conflict" }, { status: 409 });
    };
    const ask = askApi(apiWith({ leadership: elsewhere, forward }));
    const { status } = await ask("PUT", `/volumes/${fresh}`, volume);
    expect([status, body]).toEqual([409, volume]);
    expect(control.calls).toEqual([]);
  });

  test("answers reads from what it has, and says so, when the leader is not reached", async () => {
    const forwards = [() => null, () => Promise.reject(new Error("gone"))];
    for (const forward of forwards) {
      const ask = askApi(apiWith({ leadership: elsewhere, forward }));
      const read = await ask("GET", `/volumes/${ids.plain}`);
      expect([read.status, read.headers.get("trilith-stale")]).toEqual([200, "true"]);
      const change = await ask("DELETE", `/volumes/${ids.plain}`);
      expect([change.status, change.body.kind as unknown]).toEqual([503, "Unavailable"]);
      expect(String(change.body.remedy)).not.toBe("");
    }
    expect(control.calls).toEqual([]);
  });

  test("answers by itself what concerns itself", async () => {
    const forward = () => Promise.reject(new Error("not to be asked"));
    const ask = askApi(apiWith({ leadership: elsewhere, forward }));
    for (const path of ["/cluster", "/events"]) {
      const { status, headers } = await ask("GET", path);
      expect([status, headers.get("trilith-stale")]).toEqual([200, null]);
    }
  });

  test("that has just lost the lead answers reads from what it has, and says so", async () => {
    const state = cluster.state();
    Object.assign(control, {
      state: () => Promise.reject(new TrilithError("Unavailable", "lost")),
      localState: () => state,
    });
    const read = await askApi(apiWith())("GET", `/volumes/${ids.plain}`);
    expect([read.status, read.headers.get("trilith-stale")]).toEqual([200, "true"]);
  });

  test("without a leader serves reads of its own state, and a status without a plan", async () => {
    const state = cluster.state();
    Object.assign(control, {
      state: () => Promise.reject(new TrilithError("Unavailable", "no leader")),
      plan: () => Promise.reject(new TrilithError("Unavailable", "no leader")),
    });
    const ask = askApi(apiWith({ leadership: () => "none", localState: () => state }));
    for (const path of ["/nodes", "/volumes", "/status", "/specs"]) {
      expect((await ask("GET", path)).headers.get("trilith-stale")).toBe("true");
    }
    expect((await ask("GET", "/plan")).status).toBe(503);
    const warnings = (await ask("GET", "/warnings")).body as unknown;
    expect(warnings).toMatchObject([{ severity: "critical", subject: "store" }]);
    expect((await ask("GET", "/status")).body.warnings as unknown).toEqual(warnings);
    const change = await ask("PUT", `/volumes/${fresh}`, volume);
    expect([change.status, change.body.kind as unknown]).toEqual([503, "Unavailable"]);
  });
});

describe("admission", () => {
  const withToken: Admission = { requiresToken: true, requiresAddressAsHost: false };
  const loopback: Admission = { requiresToken: false, requiresAddressAsHost: true };
  const status = async (
    admission: Admission,
    headers: Record<string, string>,
    path = "/v0/nodes",
    method = "GET",
  ) => {
    const api = apiWith({ verifyToken: async (token) => token === "good" });
    const request = new Request(`http://127.0.0.1:8081${path}`, { headers, method });
    return (await api.fetch(request, { admission })).status;
  };

  test("where a token is needed, only with a valid one", async () => {
    expect(await status(withToken, {})).toBe(401);
    expect(await status(withToken, { authorization: "Bearer bad" })).toBe(401);
    expect(await status(withToken, { authorization: "Basic good" })).toBe(401);
    expect(await status(withToken, { authorization: "Bearer good" })).toBe(200);
    expect(await status(withToken, { authorization: "bearer good" })).toBe(200);
    expect(await status(withToken, {}, "/openapi.json")).toBe(401);
    const api = apiWith();
    const request = new Request("http://h/v0/nodes", { headers: { authorization: "Bearer x" } });
    const response = await api.fetch(request, { admission: withToken });
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
    expectContract("GET", "/nodes", response.status, await response.json());
  });

  test("probes and the page need none", async () => {
    for (const path of ["/livez", "/readyz", "/"])
      expect(await status(withToken, {}, path)).toBe(200);
  });

  test("no names on the loopback, and no pages of others anywhere", async () => {
    expect(await status(loopback, { host: "127.0.0.1:8081" })).toBe(200);
    expect(await status(loopback, { host: "localhost:8081" })).toBe(200);
    expect(await status(loopback, { host: "[::1]:8081" })).toBe(200);
    expect(await status(loopback, { host: "evil.example" })).toBe(401);
    const host = "127.0.0.1:8081";
    expect(await status(loopback, { host, origin: "http://127.0.0.1:8081" })).toBe(200);
    expect(await status(loopback, { host, origin: "http://evil.example" })).toBe(401);
    expect(await status(loopback, { host, origin: "null" })).toBe(401);
  });
});

describe("beside the operations", () => {
  test("probes say whether the node lives and can serve", async () => {
    const live = await apiWith().request("/livez");
    expect(live.status).toBe(200);
    expect((await apiWith().request("/readyz")).status).toBe(200);
    control.behaviour.leader = null;
    const ready = await apiWith().request("/readyz");
    expect([ready.status, await ready.json()]).toEqual([
      503,
      { status: "not ready", reasons: ["there is no leader"] },
    ]);
  });

  test("the document is served where Mayastor's clients and others look for it", async () => {
    const one = await (await apiWith().request("/openapi.json")).json();
    const other = await (await apiWith().request("/v0/api/spec")).json();
    expect(one).toEqual(other);
    const moved = await apiWith().request("/v0/swagger-ui");
    expect([moved.status, moved.headers.get("location")]).toEqual([302, "/"]);
  });

  test("the explorer is one page that needs and admits nothing else", async () => {
    const response = await apiWith().request("/");
    const page = await response.text();
    expect(response.headers.get("content-type")).toContain("text/html");
    expect(page.match(/https?:\/\//g)).toBeNull();
    expect(page.match(/\s(on\w+|style|src)="/g)).toBeNull();
    const policy = response.headers.get("content-security-policy")!;
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("unsafe");
    for (const element of ["script", "style"]) {
      const text = new RegExp(`<${element}>([\\s\\S]*?)</${element}>`).exec(page)![1]!;
      const digest = new Bun.CryptoHasher("sha256").update(text).digest("base64");
      expect(policy).toContain(`${element}-src 'sha256-${digest}'`);
      expect(page.split(`<${element}>`)).toHaveLength(2);
    }
    // The script at least compiles.
    const script = /<script>([\s\S]*?)<\/script>/.exec(page)![1]!;
    expect(() => new Bun.Transpiler({ loader: "js" }).transformSync(script)).not.toThrow();
  });
});
