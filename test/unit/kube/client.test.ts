/** The client of Kubernetes' API: pages, conflicts, errors, watches; an API server is played. */
import { describe, expect, test } from "bun:test";
import { kubeClient } from "../../../src/kube/client/client.ts";
import type { KubeObject } from "../../../src/kube/client/objects.ts";
import { pauseMs } from "../../../src/kube/client/pause.ts";
import { startReflector } from "../../../src/kube/client/reflector.ts";
import { lineSplitter, watchEventOf } from "../../../src/kube/client/watch-stream.ts";
import { diskPools } from "../../../src/kube/names.ts";

interface Asked {
  readonly method: string;
  readonly url: URL;
  readonly body: unknown;
  readonly signal: AbortSignal;
}

/** A client whose requests `answer` answers, and what it was asked. */
function played(answer: (asked: Asked) => Response | Promise<Response>) {
  const asked: Asked[] = [];
  const client = kubeClient({
    access: { server: "https://kube", insecure: false, namespace: "default" },
    fetch: async (url, init) => {
      const one = {
        method: init.method!,
        url: new URL(url),
        signal: init.signal!,
        body: init.body === undefined ? undefined : JSON.parse(init.body as string),
      };
      asked.push(one);
      return await answer(one);
    },
  });
  return { client, asked };
}

/** A stream that brings nothing until it is given up. */
function silentUntil(signal: AbortSignal): ReadableStream {
  return new ReadableStream({
    start(controller) {
      signal.addEventListener("abort", () => controller.error(signal.reason));
    },
  });
}

const status = (code: number, reason: string) =>
  Response.json({ kind: "Status", code, reason, message: `${reason} it is` }, { status: code });

const pool = (name: string, resourceVersion: string): KubeObject => ({
  metadata: { name, namespace: "a", resourceVersion, uid: `uid-${name}` },
});

describe("requests", () => {
  test("a long list comes in pages", async () => {
    const { client, asked } = played(({ url }) =>
      url.searchParams.get("continue") === null
        ? Response.json({ metadata: { continue: "more" }, items: [pool("x", "1")] })
        : Response.json({ metadata: { resourceVersion: "7" }, items: [pool("y", "2")] }),
    );
    const { items, resourceVersion } = await client.list(diskPools);
    expect(items.map(({ metadata }) => metadata.name)).toEqual(["x", "y"]);
    expect(resourceVersion).toBe("7");
    expect(asked[0]!.url.pathname).toBe("/apis/openebs.io/v1beta3/diskpools");
  });

  test("a change that met another one is made again on what there is now", async () => {
    let version = 1;
    const { client, asked } = played(({ method, body }) => {
      if (method === "GET") return Response.json(pool("x", String(version)));
      const { resourceVersion } = (body as KubeObject).metadata;
      if (resourceVersion === "1") {
        version = 2;
        return status(409, "Conflict");
      }
      return Response.json(body);
    });
    await client.update(diskPools, { namespace: "a", name: "x" }, () => ({
      metadata: { finalizers: ["f"] },
    }));
    expect(asked.map(({ method }) => method)).toEqual(["GET", "PATCH", "GET", "PATCH"]);
    expect(asked[3]!.body).toEqual({
      metadata: { finalizers: ["f"], resourceVersion: "2", uid: "uid-x" },
    });
  });

  test("an answer that is an error says what was asked, and keeps the server's words", async () => {
    const { client } = played(() => status(403, "Forbidden"));
    await expect(client.get(diskPools, { namespace: "a", name: "x" })).rejects.toMatchObject({
      code: "PermissionDenied",
      status: 403,
      reason: "Forbidden",
      message: "GET /apis/openebs.io/v1beta3/namespaces/a/diskpools/x: Forbidden it is",
    });
  });
});

describe("a watch", () => {
  test("is cut into lines wherever its pieces end", () => {
    const split = lineSplitter(10);
    expect(split('{"a"')).toEqual([]);
    expect(split(":1}\n{}\n\n[")).toEqual(['{"a":1}', "{}"]);
    expect(split("]\n")).toEqual(["[]"]);
    expect(() => split("x".repeat(11))).toThrow("a line without an end");
  });

  test("tells changes, ends and bookmarks; an error is thrown, news of later versions pass", () => {
    const line = (type: string, object: unknown) => watchEventOf(JSON.stringify({ type, object }));
    expect(line("ADDED", pool("x", "1"))).toMatchObject({ type: "changed" });
    expect(line("DELETED", pool("x", "1"))).toMatchObject({ type: "deleted" });
    expect(line("BOOKMARK", pool("", "9"))).toEqual({ type: "bookmark", resourceVersion: "9" });
    expect(line("FUTURE", {})).toBeNull();
    expect(() => line("ERROR", { code: 410, reason: "Expired", message: "old" })).toThrow("old");
    expect(() => watchEventOf("<html>")).toThrow("no JSON");
  });
});

describe("a copy of a resource", () => {
  test("goes on after an end, lists anew after 410, and finds what went meanwhile", async () => {
    const changes: string[] = [];
    const done = Promise.withResolvers<void>();
    const lists = [
      { metadata: { resourceVersion: "10" }, items: [pool("x", "1"), pool("y", "2")] },
      { metadata: { resourceVersion: "20" }, items: [pool("y", "2"), pool("z", "15")] },
    ];
    const bookmark = JSON.stringify({ type: "BOOKMARK", object: pool("", "12") });
    const added = JSON.stringify({ type: "ADDED", object: pool("w", "11") });
    const watched: (string | null)[] = [];
    const { client } = played(({ url, signal }) => {
      if (url.searchParams.get("watch") === null) return Response.json(lists.shift());
      watched.push(url.searchParams.get("resourceVersion"));
      if (watched.length === 1) return new Response(`${added}\n${bookmark}\n`);
      if (watched.length === 2) return status(410, "Expired");
      done.resolve();
      return new Response(silentUntil(signal));
    });
    const reflector = startReflector({
      client,
      resource: diskPools,
      log: () => {},
      random: () => 0,
      changed: (key, object) => changes.push(`${object === undefined ? "-" : "+"}${key}`),
    });
    await done.promise;
    expect(watched).toEqual(["10", "12", "20"]);
    expect(changes).toEqual(["+a/x", "+a/y", "+a/w", "-a/x", "-a/w", "+a/z"]);
    expect([...reflector.objects.keys()].sort()).toEqual(["a/y", "a/z"]);
    await reflector.stop();
  });
});

test("pauses double up to half a minute, and are never all of the same length", () => {
  expect([0, 1, 2, 3].map((failures) => pauseMs(failures, 1))).toEqual([250, 500, 1000, 2000]);
  expect(pauseMs(0, 0)).toBe(125);
  expect(pauseMs(1000, 1)).toBe(30_000);
});
