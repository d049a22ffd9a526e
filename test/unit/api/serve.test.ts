/** Where the API listens, and whom it lets in there. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Api, createApi } from "../../../src/api/app.ts";
import { isLoopback, type Listen, type ServedApi, serveApi } from "../../../src/api/serve.ts";
import { recordingControl } from "../../support/api/recording-control.ts";
import { selfSigned } from "../../support/api/self-signed.ts";
import { PlannedCluster } from "../../support/planned-cluster.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const folder = tempFolders();
let api: Api;
const served: ServedApi[] = [];

beforeEach(() => {
  const control = recordingControl(PlannedCluster.ofNodes(1));
  api = createApi(control, { log: () => {}, verifyToken: (token) => token === "good" });
});
afterEach(async () => {
  await Promise.all(served.splice(0).map((one) => one.stop()));
});

async function serve(...listens: Listen[]): Promise<ServedApi> {
  const one = await serveApi(api, listens, () => {});
  served.push(one);
  return one;
}

async function refusal(...listens: Listen[]): Promise<string> {
  const error = await serve(...listens).catch((thrown: { code: string }) => thrown);
  return "code" in error ? error.code : "none";
}

describe("a unix socket", () => {
  test("is the owner's alone, and needs no token", async () => {
    const path = join(folder(), "run/api.sock");
    const { urls } = await serve({ kind: "unix", path });
    expect(urls).toEqual([`unix:${path}`]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const response = await fetch("http://localhost/v0/nodes", { unix: path });
    expect([response.status, ((await response.json()) as unknown[]).length]).toEqual([200, 1]);
  });

  test("that a killed process left is taken over; one that is served, or a file, is not", async () => {
    const path = join(folder(), "api.sock");
    await serve({ kind: "unix", path });
    expect(await refusal({ kind: "unix", path })).toBe("InUse");
    const left = join(folder(), "left.sock");
    const killed = Bun.spawnSync([
      process.execPath,
      "-e",
      `Bun.serve({ unix: ${JSON.stringify(left)}, fetch: () => new Response("") }); process.kill(process.pid, "SIGKILL");`,
    ]);
    expect([killed.signalCode, statSync(left).isSocket()]).toEqual(["SIGKILL", true]);
    await serve({ kind: "unix", path: left });
    expect((await fetch("http://localhost/livez", { unix: left })).status).toBe(200);
    const file = join(folder(), "file");
    writeFileSync(file, "mine");
    expect(await refusal({ kind: "unix", path: file })).toBe("InUse");
  });
});

describe("the loopback", () => {
  test("is served without TLS, and by address only", async () => {
    const { urls } = await serve({ kind: "tcp", address: "127.0.0.1", port: 0 });
    const url = urls[0]!;
    expect((await fetch(`${url}/v0/nodes`)).status).toBe(200);
    const rebound = await fetch(`${url}/v0/nodes`, { headers: { host: "evil.example" } });
    expect(rebound.status).toBe(401);
    const port = Number(new URL(url).port);
    expect(await refusal({ kind: "tcp", address: "127.0.0.1", port })).toBe("InUse");
  });

  test("is told from other addresses", () => {
    expect(["127.0.0.1", "127.3.2.1", "::1", "localhost"].every(isLoopback)).toBe(true);
    expect(["0.0.0.0", "10.0.0.1", "::", "128.0.0.1", "127.0.0.1.example"].some(isLoopback)).toBe(
      false,
    );
  });

  test("takes a body that is too long to its end, and says so", async () => {
    const { urls } = await serve({ kind: "tcp", address: "127.0.0.1", port: 0 });
    const response = await fetch(`${urls[0]}/v0/volumes`, {
      method: "POST",
      body: "x".repeat(1024 * 1024 + 1000),
      headers: { "content-type": "application/json" },
    });
    expect([response.status, ((await response.json()) as { kind: string }).kind]).toEqual([
      413,
      "InvalidArgument",
    ]);
  });

  test("streams events over a connection, until the server stops", async () => {
    const control = recordingControl(PlannedCluster.ofNodes(1));
    api = createApi(control, { log: () => {} });
    const one = await serve({ kind: "tcp", address: "127.0.0.1", port: 0 });
    const response = await fetch(`${one.urls[0]}/v0/events`, {
      headers: { accept: "text/event-stream" },
    });
    const reader = response.body!.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe(": events\n\n");
    expect(control.listeners()).toBe(1);
    await reader.cancel();
    while (control.listeners() > 0) await Bun.sleep(1);
  });
});

describe("other addresses", () => {
  test("are refused without TLS", async () => {
    expect(await refusal({ kind: "tcp", address: "0.0.0.0", port: 0 })).toBe("InvalidArgument");
  });

  test("are served with TLS, to whoever has a token; a renewed certificate is taken at once", async () => {
    const first = await selfSigned("one");
    const one = await serve({ kind: "tcp", address: "0.0.0.0", port: 0, tls: first });
    const url = one.urls[0]!.replace("0.0.0.0", "127.0.0.1");
    expect(url).toStartWith("https://");
    const ask = (ca: string, headers: Record<string, string> = {}) =>
      fetch(`${url}/v0/nodes`, { headers, tls: { ca }, keepalive: false });
    expect((await ask(first.ca)).status).toBe(401);
    const authorization = "Bearer good";
    expect((await ask(first.ca, { authorization })).status).toBe(200);
    expect((await ask(first.ca, { authorization: "Bearer bad" })).status).toBe(401);
    const port = Number(new URL(url).port);
    expect(await refusal({ kind: "tcp", address: "0.0.0.0", port, tls: first })).toBe("InUse");
    const second = await selfSigned("two");
    one.renew(second);
    expect((await ask(second.ca, { authorization })).status).toBe(200);
    await expect(ask(first.ca, { authorization })).rejects.toThrow();
  });
});
