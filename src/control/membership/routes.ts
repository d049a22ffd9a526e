/**
 * What the port for other nodes serves of membership.
 *
 * | path                           | who       | what |
 * |--------------------------------|-----------|------|
 * | GET /join/authority            | everybody | the authority's certificate (PEM) |
 * | POST /join                     | everybody | a join; passed on to the leader |
 * | POST /membership/join          | members   | a join that a member passes on |
 * | GET /membership/authority-key  | members   | the authority's key (PEM) |
 * | POST /membership/announcement  | members   | what a node says about itself: endpoints, version |
 * | GET /membership/ping           | members   | who this is |
 */
import * as v from "valibot";
import { TrilithError } from "../../errors.ts";
import { errorResponse } from "../../net/secure-server.ts";
import type { NodeId, NodeRecord } from "../model.ts";
import { acceptJoin, JoinRequest, type JoinServiceOptions } from "./join-service.ts";
import { parsePeerEndpoint } from "./names.ts";

export interface MembershipRoutesOptions extends JoinServiceOptions {
  /** Sends a request to the leader; `Unavailable` when there is none. */
  readonly toLeader: (request: Request) => Promise<Response>;
}

export const Announcement = v.strictObject({
  peerEndpoint: v.pipe(v.string(), v.maxLength(512)),
  engineEndpoint: v.pipe(v.string(), v.maxLength(512)),
  hostNqn: v.pipe(v.string(), v.maxLength(512)),
  version: v.pipe(v.string(), v.maxLength(128)),
});
/** What a node says about itself. */
export type Announcement = v.InferOutput<typeof Announcement>;

export interface MembershipRoutes {
  /** Serves `/join` and below. */
  join(request: Request): Promise<Response>;
  /** Serves `/membership/*`; undefined for other paths. */
  members(request: Request, peer: NodeId): Promise<Response> | undefined;
}

async function bodyOf<S extends v.GenericSchema>(
  request: Request,
  schema: S,
): Promise<v.InferOutput<S>> {
  let value: unknown;
  try {
    value = await request.json();
  } catch {
    throw new TrilithError("InvalidArgument", "the body is not JSON");
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new TrilithError("InvalidArgument", `${v.getDotPath(issue) ?? "body"}: ${issue.message}`);
}

/** Writes what a node says about itself into its record, when that says otherwise. Leader only. */
export async function recordAnnouncement(
  store: JoinServiceOptions["store"],
  nodeId: NodeId,
  said: Announcement,
): Promise<void> {
  parsePeerEndpoint(said.peerEndpoint, 0);
  parsePeerEndpoint(said.engineEndpoint, 0);
  const differs = (node: NodeRecord) =>
    node.peerEndpoint !== said.peerEndpoint ||
    node.engineEndpoint !== said.engineEndpoint ||
    node.hostNqn !== said.hostNqn ||
    node.version !== said.version;
  const present = store.view().nodes.get(nodeId);
  if (present !== undefined && !differs(present)) return;
  await store.transact((view) => {
    const node = view.nodes.get(nodeId);
    if (node === undefined) throw new TrilithError("NotFound", `there is no node ${nodeId}`);
    const changes = differs(node) ? [{ table: "nodes", put: { ...node, ...said } } as const] : [];
    return { value: null, changes, events: [] };
  });
}

async function answer(act: () => Promise<Response>): Promise<Response> {
  try {
    return await act();
  } catch (error) {
    return errorResponse(error);
  }
}

export function membershipRoutes(options: MembershipRoutesOptions): MembershipRoutes {
  const { dataDir, store } = options;
  const accept = async (request: Request): Promise<Response> =>
    Response.json(await acceptJoin(options, await bodyOf(request, JoinRequest)));

  return {
    join: (request) =>
      answer(async () => {
        const { pathname } = new URL(request.url);
        const what = `${request.method} ${pathname}`;
        if (what === "GET /join/authority") {
          return new Response(dataDir.credentials().caPem, {
            headers: { "content-type": "application/x-pem-file" },
          });
        }
        if (what !== "POST /join") throw new TrilithError("NotFound", `there is no ${what}`);
        if (store.isLeader()) return accept(request);
        const body = await request.text();
        return options.toLeader(
          new Request("https://peer.invalid/membership/join", { method: "POST", body }),
        );
      }),
    members(request, peer) {
      const { pathname } = new URL(request.url);
      if (!pathname.startsWith("/membership/")) return undefined;
      return answer(async () => {
        const what = `${request.method} ${pathname}`;
        switch (what) {
          case "POST /membership/join":
            return accept(request);
          case "GET /membership/authority-key":
            return new Response(dataDir.authority().keyPem, {
              headers: { "cache-control": "no-store" },
            });
          case "POST /membership/announcement":
            await recordAnnouncement(store, peer, await bodyOf(request, Announcement));
            return new Response(null, { status: 204 });
          case "GET /membership/ping": {
            const { clusterId, nodeId, raftId } = dataDir.identity;
            return Response.json({ clusterId, nodeId, raftId });
          }
          default:
            throw new TrilithError("NotFound", `there is no ${what}`);
        }
      });
    },
  };
}
