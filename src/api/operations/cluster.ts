/** What concerns the cluster as a whole: specs, events, membership, plan, warnings, status. */
import * as v from "valibot";
import type { Control } from "../../control/control.ts";
import type { Plan, Warning as PlanWarning } from "../../control/planner/plan.ts";
import { nodeStatus } from "../../control/planner/status.ts";
import { TrilithError } from "../../errors.ts";
import { eventStream, eventsPage } from "../events.ts";
import {
  EVENTS_PAGE_DEFAULT,
  EVENTS_PAGE_MAX,
  TOKEN_VALID_SECONDS_DEFAULT,
  TOKEN_VALID_SECONDS_MAX,
} from "../limits.ts";
import { contractOperation, ownOperation } from "../operation.ts";
import { nodeOf } from "../records.ts";
import { renderCluster, renderPlan, renderSpecs, renderStatus } from "../render/cluster.ts";
import { timeText } from "../render/time.ts";
import {
  Cluster,
  Events,
  NewToken,
  NewTokenBody,
  PlanView,
  RebuildBody,
  RebuildReport,
  Settings,
  SettingsBody,
  Specs,
  Status,
  Token,
  TransferBody,
  Warning,
} from "../schemas/cluster.ts";
import { queryCount } from "../schemas/fields.ts";

const EVENT_ID_MAX = 999_999_999_999_999;

const views = [
  contractOperation({
    id: "get_specs",
    method: "get",
    path: "/specs",
    tag: "Specs",
    summary: "What the store holds of pools, replicas, nexuses and volumes",
    result: Specs,
    handle: async (_request, scope) => renderSpecs(await scope.state()),
  }),
  ownOperation({
    id: "get_status",
    method: "get",
    path: "/status",
    tag: "Cluster",
    summary: "The cluster on one screen: nodes, pools, volumes, rebuilds, warnings",
    result: Status,
    handle: async (_request, scope) => {
      const state = await scope.state();
      const { warnings } = await planOrNothing(scope.control);
      return renderStatus(state, renderCluster(scope.control), warnings);
    },
  }),
  ownOperation({
    id: "get_warnings",
    method: "get",
    path: "/warnings",
    tag: "Cluster",
    summary: "What needs an operator's attention, and what to do about it",
    result: v.array(Warning),
    handle: async (_request, scope) => [...(await planOrNothing(scope.control)).warnings],
  }),
  ownOperation({
    id: "get_plan",
    method: "get",
    path: "/plan",
    tag: "Cluster",
    summary: "What the cluster would do next, and why",
    result: PlanView,
    handle: async (_request, scope) => renderPlan(await scope.control.plan()),
  }),
  ownOperation({
    id: "get_events",
    method: "get",
    path: "/events",
    tag: "Events",
    summary: "What happened: a page of it, or a stream with `Accept: text/event-stream`",
    description:
      "A stream begins after `since` (or the header `Last-Event-ID`, with which browsers go on by " +
      "themselves) and never ends. Left out, a stream begins now, and a page with the oldest kept. " +
      "An event `gap` says that events were dropped before they could be sent.",
    query: v.strictObject({
      since: v.optional(queryCount(EVENT_ID_MAX)),
      limit: v.optional(queryCount(EVENTS_PAGE_MAX, 1), String(EVENTS_PAGE_DEFAULT)),
    }),
    result: Events,
    alsoMedia: "text/event-stream",
    served: "here",
    handle: async ({ query }, { control, request }) => {
      const wantsStream = (request.headers.get("accept") ?? "").includes("text/event-stream");
      if (wantsStream) return eventStream(control, request, query.since);
      return eventsPage(control, query.since ?? 0, query.limit);
    },
  }),
];

/** Without a leader there is no plan, and a status is wanted all the same: that is the first to be told. */
async function planOrNothing(control: Control): Promise<Pick<Plan, "warnings">> {
  try {
    return await control.plan();
  } catch (error) {
    if (error instanceof TrilithError && error.code === "Unavailable")
      return { warnings: [leaderless(control)] };
    throw error;
  }
}

function leaderless(control: Control): PlanWarning {
  const voters = control.members().filter(({ isVoter }) => isVoter);
  const names = voters.map(({ nodeId }) => nodeId).join(", ");
  const needed = Math.floor(voters.length / 2) + 1;
  return {
    severity: "critical",
    subject: "store",
    message:
      `no node leads: it takes no change and observes nothing until ${needed} of ` +
      `${voters.length} voters (${names}) reach each other`,
    remedy:
      "on each: systemctl status trilith; if a majority is lost for good: trilith cluster recover",
  };
}

const membership = [
  ownOperation({
    id: "get_cluster",
    method: "get",
    path: "/cluster",
    tag: "Cluster",
    summary: "Members of the cluster and state of its store, as the node that is asked sees them",
    result: Cluster,
    served: "here",
    handle: async (_request, scope) => renderCluster(scope.control),
  }),
  ownOperation({
    id: "get_cluster_tokens",
    method: "get",
    path: "/cluster/tokens",
    tag: "Cluster",
    summary: "Tokens that were given out, without their secrets",
    result: v.array(Token),
    handle: async (_request, scope) => {
      const { tokens } = (await scope.state()).stored;
      return [...tokens.values()].map(({ id, kind, expiresAtMs, note }) => ({
        id,
        kind,
        expiresAt: timeText(expiresAtMs),
        note,
      }));
    },
  }),
  ownOperation({
    id: "post_cluster_token",
    method: "post",
    path: "/cluster/tokens",
    tag: "Cluster",
    summary: "Makes a token: for a node to join with, or for a client of this interface",
    body: NewTokenBody,
    bodyOptional: true,
    result: NewToken,
    status: 201,
    handle: async ({ body }, { control, context }) => {
      const seconds = body.validSeconds ?? TOKEN_VALID_SECONDS_DEFAULT;
      if (seconds > TOKEN_VALID_SECONDS_MAX) {
        throw new TrilithError(
          "InvalidArgument",
          `a token is valid for at most ${TOKEN_VALID_SECONDS_MAX} s`,
        );
      }
      const made = await control.createToken(body.kind, seconds * 1000, body.note, context);
      return { id: made.id, token: made.token, expiresAt: timeText(made.expiresAtMs) };
    },
  }),
  ownOperation({
    id: "put_cluster_leader",
    method: "put",
    path: "/cluster/leader",
    tag: "Cluster",
    summary: "Hands leadership to another node",
    body: TransferBody,
    result: Cluster,
    handle: async ({ body }, { control, context, state }) => {
      const now = await state();
      nodeOf(now, body.node);
      if (nodeStatus(now, body.node) === "Offline") {
        throw new TrilithError("FailedPrecondition", `node ${body.node} is offline`);
      }
      await control.transferLeadership(body.node, context);
      return renderCluster(control);
    },
  }),
  ownOperation({
    id: "post_cluster_rebuild",
    method: "post",
    path: "/cluster/rebuild",
    tag: "Cluster",
    summary: "Makes records of what disks hold and the store does not know, or says which",
    description:
      "The way out when the store of every node is lost. Engines open the pools that they find on " +
      "their disks, to read them; records that are there stay as they are.",
    body: RebuildBody,
    bodyOptional: true,
    result: RebuildReport,
    handle: async ({ body }, { control, context }) => {
      const disks = body.disks.map(({ node, pool, uri }) => ({
        nodeId: node,
        poolName: pool,
        uri,
      }));
      const report = await control.rebuildFromDisks(disks, body.apply, context);
      return {
        ...report,
        pools: report.pools.map(({ nodeId, ...pool }) => ({ ...pool, node: nodeId })),
        volumes: report.volumes.map(({ servedBy, ...volume }) => ({
          ...volume,
          ...(servedBy === null ? {} : { servedBy }),
        })),
        problems: [...report.problems],
      };
    },
  }),
];

const settings = [
  ownOperation({
    id: "get_settings",
    method: "get",
    path: "/settings",
    tag: "Cluster",
    summary: "Settings of the cluster, with their defaults filled in",
    result: Settings,
    handle: async (_request, scope) => ({ ...(await scope.state()).settings }),
  }),
  ownOperation({
    id: "put_settings",
    method: "put",
    path: "/settings",
    tag: "Cluster",
    summary: "Changes settings of the cluster; what is left out stays as it is",
    body: SettingsBody,
    result: Settings,
    handle: async ({ body }, { control, context }) => {
      const entries = Object.entries(body).filter(([, value]) => value !== undefined);
      return { ...(await control.changeSettings(Object.fromEntries(entries), context)) };
    },
  }),
];

export const clusterOperations = [...views, ...membership, ...settings];
