import { afterEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { errorKinds } from "../../../src/api/schemas/cluster.ts";
import { chooseEndpoint, parseEndpointUrl } from "../../../src/client/endpoint.ts";
import { timeLimitMs } from "../../../src/client/http.ts";
import { errorCodes, facesOf } from "../../../src/errors.ts";
import { selfSigned } from "../../support/api/self-signed.ts";
import { apiStandIn } from "../../support/api-stand-in.ts";
import { tempFolders } from "../../support/temp-folder.ts";
import { againstApi, nodes, runLine, VOLUME, volume } from "./fixtures.ts";

const run = againstApi();
const folder = tempFolders();

/** A server that speaks TCP only: what it does with a connection is up to `act`. */
async function rawServer(act: (socket: Socket, count: number) => void) {
  let count = 0;
  const server: Server = createServer((socket) => {
    socket.on("error", () => {});
    act(socket, ++count);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  raw.push(server);
  return { url: `http://127.0.0.1:${(server.address() as { port: number }).port}`, server };
}
const raw: Server[] = [];
afterEach(async () => {
  for (const server of raw.splice(0)) await new Promise((resolve) => server.close(resolve));
});

describe("an error of the API", () => {
  for (const kind of errorKinds) {
    test(`${kind} ends with its status, message and remedy`, async () => {
      const { http, exit } = facesOf(kind);
      const ran = await run("get nodes", {
        "GET /nodes": {
          status: http,
          body: { kind, message: "it went wrong", details: "", remedy: "mend it" },
        },
      });
      expect(ran.status).toBe(exit);
      expect(ran.out).toBe("");
      expect(ran.err).toBe("error: it went wrong\n  mend it");
    });
  }

  test("that a server of Mayastor sends is told with its details and a remedy of ours", async () => {
    const ran = await run(`scale volume ${VOLUME} 3`, {
      "*": {
        status: 507,
        body: {
          kind: "ResourceExhausted",
          message: "NotEnoughResources",
          details: "no pool has room",
        },
      },
    });
    expect(ran.status).toBe(8);
    expect(ran.err).toBe(
      "error: NotEnoughResources: no pool has room\n  see what room there is: `trilith get pools`",
    );
  });

  test("of no known kind goes by its status", async () => {
    for (const code of errorCodes) {
      const { http, exit } = facesOf(code);
      if (http === 500 || exit === 1) continue;
      const ran = await run("get nodes", {
        "*": () => new Response("upstream is away", { status: http }),
      });
      expect(ran.err).toMatch(/^error: http:\S+ answered \d+: upstream is away\n {2}is that the/);
      expect(
        errorCodes.filter((one) => facesOf(one).http === http).map((c) => facesOf(c).exit),
      ).toContain(ran.status);
    }
  });

  test("that is no JSON at all is no success either", async () => {
    const ran = await run("get nodes", { "*": new Response("<html>hello</html>") });
    expect(ran.status).toBe(9);
    expect(ran.err).toMatch(/answered something that is no JSON: <html>/);
  });
});

describe("an API that cannot be reached", () => {
  test("where nothing listens", async () => {
    const { url, server } = await rawServer(() => {});
    await new Promise((resolve) => server.close(resolve));
    raw.pop();
    const ran = await runLine("get nodes", { env: { TRILITH_REST: url } });
    expect(ran.status).toBe(9);
    expect(ran.err).toBe(
      `error: ${url} cannot be reached: nothing listens there\n` +
        "  start it with `systemctl start trilith`, or name a node with --rest http://<node>:8081",
    );
  });

  test("by a socket that is not there", async () => {
    const path = join(folder(), "none.sock");
    const ran = await runLine(["get", "nodes", "-r", path]);
    expect(ran.status).toBe(9);
    expect(ran.err).toStartWith(`error: unix:${path} cannot be reached: nothing listens there`);
  });

  test.skipIf(process.getuid?.() !== 0)("by a socket that is not for this user", async () => {
    const where = folder();
    const path = join(where, "api.sock");
    const api = apiStandIn({ "GET /nodes": { body: nodes } }, path);
    try {
      chmodSync(where, 0o700);
      const nobody = 65534;
      const line = [join(import.meta.dir, "../../../src/main.ts"), "get", "nodes", "-r", path];
      const child = Bun.spawn([process.execPath, ...line], {
        uid: nobody,
        gid: nobody,
        env: { HOME: "/", PATH: process.env.PATH },
        cwd: "/",
        stdout: "pipe",
        stderr: "pipe",
      });
      const text = await child.stderr.text();
      expect(text).toStartWith(`error: unix:${path} may not be opened\n  run as root`);
      expect(await child.exited).toBe(11);
    } finally {
      await api.stop();
    }
  });

  test("within its time is given up", async () => {
    const { url } = await rawServer(() => {});
    const ran = await runLine(`get nodes -r ${url} -t 50ms`);
    expect(ran.status).toBe(10);
    expect(ran.err).toStartWith(`error: no answer from ${url} within 0.05 s`);
  });

  test("for a moment is tried again, with the same key", async () => {
    const keys = new Set<string | null>();
    const busy = { kind: "Unavailable", message: "there is no leader", details: "" };
    let attempts = 0;
    const ran = await run(`scale volume ${VOLUME} 3`, {
      "*": ({ headers }) => {
        keys.add(headers.get("idempotency-key"));
        return ++attempts < 3 ? { status: 503, body: busy } : { body: volume };
      },
    });
    expect(ran.status).toBe(0);
    expect(ran.api.asked).toHaveLength(3);
    expect(keys.size).toBe(1);
  });

  test("for longer is an error", async () => {
    const busy = { kind: "Unavailable", message: "there is no leader", details: "" };
    const pauses: number[] = [];
    const ran = await run(
      "get nodes",
      { "*": { status: 503, body: busy } },
      {
        sleep: async (ms) => {
          pauses.push(ms);
        },
      },
    );
    expect(ran.status).toBe(9);
    expect(ran.err).toStartWith("error: there is no leader\n");
    expect(pauses).toEqual([250, 500, 1000]);
  });

  test("because the connection breaks is tried again", async () => {
    const body = JSON.stringify(nodes);
    const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
    const { url } = await rawServer((socket, count) => {
      socket.once("data", () => {
        if (count === 1) socket.resetAndDestroy();
        else socket.end(`${head}\r\nconnection: close\r\n\r\n${body}`);
      });
    });
    const ran = await runLine(`get nodes -r ${url} -o json`);
    expect(ran.err).toBe("");
    expect(JSON.parse(ran.out)).toEqual(nodes);
  });
});

test("a change is given the time that the server takes at most, unless a limit is given", () => {
  const endpoint = { url: "http://x", name: "x" };
  const limits = (timeoutGiven: boolean) =>
    (["GET", "PUT", "POST", "DELETE"] as const).map((method) =>
      timeLimitMs({ endpoint, timeoutMs: 10_000, timeoutGiven }, method),
    );
  expect(limits(false)).toEqual([10_000, 60_000, 60_000, 60_000]);
  expect(limits(true)).toEqual([10_000, 10_000, 10_000, 10_000]);
});

describe("the API's address", () => {
  test("is the socket of this machine, when there is one", () => {
    expect(chooseEndpoint(undefined, () => true).unix).toBe("/run/trilith/api.sock");
    expect(chooseEndpoint("", () => false).url).toBe("http://127.0.0.1:8081");
    expect(chooseEndpoint("node-1", () => true).url).toBe("http://node-1:8081");
  });

  const forms: [given: string, url: string, unix?: string][] = [
    ["http://10.0.0.1:8081/", "http://10.0.0.1:8081"],
    ["http://10.0.0.1:8081/v0", "http://10.0.0.1:8081"],
    ["https://api.example/storage/v0/", "https://api.example/storage"],
    ["http://plain.example", "http://plain.example"],
    ["10.0.0.1", "http://10.0.0.1:8081"],
    ["10.0.0.1:9000", "http://10.0.0.1:9000"],
    ["[::1]", "http://[::1]:8081"],
    ["unix:/run/a.sock", "http://localhost", "/run/a.sock"],
    ["unix:///run/a.sock", "http://localhost", "/run/a.sock"],
    ["/run/a.sock", "http://localhost", "/run/a.sock"],
  ];
  for (const [given, url, unix] of forms) {
    test(`may be written ${given}`, () => {
      const found = parseEndpointUrl(given);
      expect([found.url, found.unix]).toEqual([url, unix]);
    });
  }

  test("may be a unix socket that somebody serves", async () => {
    const path = join(folder(), "api.sock");
    const api = apiStandIn({ "GET /nodes": { body: nodes } }, path);
    try {
      const ran = await runLine(["get", "nodes", "-o", "json", "-r", `unix:${path}`]);
      expect(ran.err).toBe("");
      expect(JSON.parse(ran.out)).toEqual(nodes);
      expect(api.problems).toEqual([]);
    } finally {
      await api.stop();
    }
  });

  test("may be one of TLS, whose authority has to be known", async () => {
    const { cert, key, ca } = await selfSigned("node-1");
    const where = folder();
    const file = join(where, "ca.crt");
    writeFileSync(file, ca);
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { cert, key },
      fetch: () => Response.json(nodes),
    });
    try {
      const line = ["get", "nodes", "-o", "json", "-r", `https://127.0.0.1:${server.port}`];
      const known = await runLine([...line, "--ca", file]);
      expect([known.status, known.err]).toEqual([0, ""]);
      expect(JSON.parse(known.out)).toEqual(nodes);
      const unknown = await runLine(line, { env: { TRILITH_DATA_DIR: where } });
      expect(unknown.status).toBe(9);
      expect(unknown.err).toMatch(/cannot be trusted: .*\n {2}name the cluster's certificate/);
      // On a node the cluster's authority is at hand.
      mkdirSync(join(where, "cluster"));
      writeFileSync(join(where, "cluster/ca.crt"), ca);
      const onNode = await runLine(line, { env: { TRILITH_DATA_DIR: where } });
      expect([onNode.status, onNode.err]).toEqual([0, ""]);
      for (const wrong of [join(where, "none"), where]) {
        const unread = await runLine([...line, "--ca", wrong]);
        expect(unread.status).toBe(2);
        expect(unread.err).toContain("the certificate authority cannot be read: ");
      }
    } finally {
      await server.stop(true);
    }
  });

  test("may ask for a token, which comes from the option or the environment", async () => {
    const answers = { "GET /nodes": { body: nodes } };
    const shown = async (line: string, env: Record<string, string> = {}) => {
      const ran = await run(line, answers, { env });
      return ran.api.asked[0]!.headers.get("authorization");
    };
    expect(await shown("get nodes")).toBeNull();
    expect(await shown("get nodes", { TRILITH_TOKEN: "t1" })).toBe("Bearer t1");
    expect(await shown("get nodes --token t2", { TRILITH_TOKEN: "t1" })).toBe("Bearer t2");
  });
});
