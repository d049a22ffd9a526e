/** Requests that only the leader can answer, handed on to it by the node that was asked. */
import { TrilithError } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import { REQUEST_ID_HEADER } from "../ops/request-id.ts";
import { type AnyOperation, isMutation } from "./operation.ts";

/** Set on what was handed on once: it is not handed on again. */
export const FORWARDED_HEADER = "Trilith-Forwarded";

export interface Forwarding {
  readonly log: Log;
  /** Where the leader is: this node, another one, or nowhere. Default: here. */
  readonly leadership?: () => "here" | "elsewhere" | "none";
  /** Has the leader answer. Null, or a rejection: it cannot be reached. */
  readonly forward?: (request: Request) => Promise<Response> | null;
}

export function leadershipOf({ leadership }: Forwarding): "here" | "elsewhere" | "none" {
  return leadership?.() ?? "here";
}

function noLeader(): TrilithError {
  return new TrilithError(
    "Unavailable",
    "the cluster has no leader that can be reached from here",
    "see `trilith cluster status`: a majority of the members has to be up and connected",
  );
}

/** Only whoever asked knows whether to ask again. */
function lostOnTheWay(): TrilithError {
  return new TrilithError(
    "Unavailable",
    "the leader was lost before it answered: the change may have begun",
    "look whether it is there, or repeat it with the same Idempotency-Key",
  );
}

/** The request as the leader gets it. */
function handedOn(request: Request, requestId: string): Request {
  const headers = new Headers(request.headers);
  headers.set(FORWARDED_HEADER, "1");
  headers.set(REQUEST_ID_HEADER, requestId);
  // The token was checked here; the leader trusts its peers, and needs no secret.
  headers.delete("authorization");
  headers.delete("origin");
  return new Request(request, { headers });
}

/**
 * The leader's answer; null when this node is to answer. Throws `Unavailable` for a change when no
 * leader is reached.
 */
export async function leadersAnswer(
  options: Forwarding,
  request: Request,
  operation: AnyOperation,
  requestId: string,
): Promise<Response | null> {
  const leader = leadershipOf(options);
  if (operation.served === "here" || leader === "here") return null;
  const wasForwarded = request.headers.has(FORWARDED_HEADER);
  if (leader === "elsewhere" && !wasForwarded && options.forward !== undefined) {
    try {
      const answer = await options.forward(handedOn(request, requestId));
      if (answer !== null) return new Response(answer.body, answer);
    } catch (error) {
      options.log("warn", "leader not reached", { requestId, error });
      if (isMutation(operation)) throw lostOnTheWay();
    }
  }
  if (isMutation(operation)) throw noLeader();
  return null;
}
