/**
 * Kubernetes' API by plain HTTP: what the operator needs of it, and nothing more. Reads in pages,
 * server-side apply, changes of the status alone, watches. Owns no state but the credentials.
 */
import { TrilithError } from "../../errors.ts";
import { type Credentials, credentialsOf } from "./access.ts";
import { errorOfStatus, isConflict } from "./errors.ts";
import type { Access } from "./kubeconfig.ts";
import {
  CONFLICT_ATTEMPTS,
  LIST_PAGE,
  PAGES_MAX,
  REQUEST_TIMEOUT_MS,
  WATCH_SECONDS,
} from "./limits.ts";
import { type KubeList, type KubeObject, pathOf, type Resource } from "./objects.ts";

/** Who changes fields, as server-side apply records it. */
const FIELD_MANAGER = "trilith";

export interface KubeClientOptions {
  readonly access: Access;
  /** Replaced in tests. */
  readonly fetch?: (url: string, init: RequestInit & { tls: object }) => Promise<Response>;
  readonly nowMs?: () => number;
}

interface Asked {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  /** Another form of the answer: a table, say. */
  readonly accept?: string;
}

/** Whom an object is asked of. */
export interface ObjectName {
  readonly namespace?: string | undefined;
  readonly name: string;
}

export type KubeClient = ReturnType<typeof kubeClient>;

function queryText(query: Asked["query"]): string {
  const parts = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
  if (parts.length === 0) return "";
  return `?${parts.map(([k, v]) => `${k}=${encodeURIComponent(String(v))}`).join("&")}`;
}

/** JSON of an answer, or its text when it is none. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function headersOf(credentials: Credentials, asked: Asked): Record<string, string> {
  return {
    accept: asked.accept ?? "application/json",
    "user-agent": "trilith",
    ...(credentials.token === undefined ? {} : { authorization: `Bearer ${credentials.token}` }),
    ...(asked.body === undefined
      ? {}
      : { "content-type": asked.contentType ?? "application/json" }),
  };
}

/** A client of an API server. Functions reject with a `KubeError`, or `Unavailable` for no answer. */
export function kubeClient(options: KubeClientOptions) {
  const { access } = options;
  const credentials = credentialsOf(access, options.nowMs ?? Date.now);
  const send = options.fetch ?? ((url, init) => fetch(url, init));

  async function open(asked: Asked, signal: AbortSignal): Promise<Response> {
    const now = credentials();
    const url = `${access.server}${asked.path}${queryText(asked.query)}`;
    try {
      return await send(url, {
        method: asked.method,
        headers: headersOf(now, asked),
        ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
        tls: now.tls,
        redirect: "error",
        signal,
        // Bun ends requests after five minutes by itself; whoever asks sets the limit here.
        ...({ timeout: false } as object),
      });
    } catch (error) {
      if (signal.aborted) throw error;
      const { code, message } = error as { code?: string; message?: string };
      throw new TrilithError(
        "Unavailable",
        `Kubernetes' API server ${access.server} cannot be reached: ${message ?? code ?? String(error)}`,
        "check the address in the kubeconfig, and its certificate authority",
      );
    }
  }

  async function call<T>(asked: Asked): Promise<T> {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const what = `${asked.method} ${asked.path}`;
    try {
      const response = await open(asked, signal);
      const body = parsed(await response.text());
      if (!response.ok) throw errorOfStatus(response.status, body, what);
      return body as T;
    } catch (error) {
      if (error instanceof TrilithError) throw error;
      if (signal.aborted) {
        throw new TrilithError("Timeout", `${what}: no answer within ${REQUEST_TIMEOUT_MS} ms`);
      }
      throw new TrilithError("Unavailable", `${what}: ${(error as Error).message}`);
    }
  }

  /** All objects of a resource, with the version that a watch goes on from. */
  async function list<T extends KubeObject>(
    resource: Resource,
    namespace?: string,
  ): Promise<{ readonly items: T[]; readonly resourceVersion: string }> {
    const items: T[] = [];
    let next: string | undefined;
    for (let pages = 0; pages < PAGES_MAX; pages++) {
      const page = await call<KubeList<T>>({
        method: "GET",
        path: pathOf(resource, { namespace }),
        query: { limit: LIST_PAGE, continue: next },
      });
      items.push(...page.items);
      next = page.metadata.continue || undefined;
      if (next === undefined) {
        return { items, resourceVersion: page.metadata.resourceVersion ?? "" };
      }
    }
    throw new TrilithError("Internal", `the list of ${resource.plural} has no end`);
  }

  const get = <T extends KubeObject>(resource: Resource, at: ObjectName) =>
    call<T>({ method: "GET", path: pathOf(resource, at) });
  const patch = <T extends KubeObject>(
    resource: Resource,
    at: ObjectName,
    body: unknown,
    subresource?: string,
  ) =>
    call<T>({
      method: "PATCH",
      path: pathOf(resource, at, subresource),
      body,
      contentType: "application/merge-patch+json",
      query: { fieldManager: FIELD_MANAGER },
    });

  return {
    server: access.server,
    namespace: access.namespace,
    call,
    list,
    get,
    /** Merges into an object (RFC 7386); a `resourceVersion` in it makes it conditional. */
    patch,
    create: <T extends KubeObject>(
      resource: Resource,
      namespace: string | undefined,
      body: object,
    ) =>
      call<T>({
        method: "POST",
        path: pathOf(resource, { namespace }),
        body,
        query: { fieldManager: FIELD_MANAGER },
      }),
    remove: (resource: Resource, at: ObjectName, uid?: string) =>
      call<unknown>({
        method: "DELETE",
        path: pathOf(resource, at),
        ...(uid === undefined ? {} : { body: { preconditions: { uid } } }),
      }),
    /** Makes the fields given be so, and leaves all others alone (server-side apply). */
    apply: <T extends KubeObject>(resource: Resource, at: ObjectName, body: object) =>
      call<T>({
        method: "PATCH",
        path: pathOf(resource, at),
        body,
        contentType: "application/apply-patch+yaml",
        query: { fieldManager: FIELD_MANAGER, force: true },
      }),
    /**
     * Reads an object, has `change` say what to merge into it (null: nothing), and merges it
     * unless the object changed meanwhile; then again. Returns the object as it is in the end.
     */
    async update<T extends KubeObject>(
      resource: Resource,
      at: ObjectName,
      change: (object: T) => object | null,
      subresource?: string,
    ): Promise<T> {
      for (let attempt = 1; ; attempt++) {
        const object = await get<T>(resource, at);
        const changes = change(object);
        if (changes === null) return object;
        const { resourceVersion, uid } = object.metadata;
        const given = changes as { readonly metadata?: object };
        const body = { ...changes, metadata: { ...given.metadata, resourceVersion, uid } };
        try {
          return await patch<T>(resource, at, body, subresource);
        } catch (error) {
          if (!isConflict(error) || attempt >= CONFLICT_ATTEMPTS) throw error;
        }
      }
    },
    /** The stream of changes after a version. Throws a `KubeError` when it is refused. */
    async watch(
      resource: Resource,
      resourceVersion: string,
      signal: AbortSignal,
    ): Promise<ReadableStream<Uint8Array>> {
      const path = pathOf(resource);
      const query = {
        watch: 1,
        allowWatchBookmarks: true,
        resourceVersion,
        timeoutSeconds: WATCH_SECONDS,
      };
      const response = await open({ method: "GET", path, query }, signal);
      if (!response.ok) {
        throw errorOfStatus(response.status, parsed(await response.text()), `watch ${path}`);
      }
      if (response.body === null) throw new TrilithError("Unavailable", `watch ${path}: empty`);
      return response.body;
    },
  };
}
