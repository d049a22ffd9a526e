/** A client of the HTTP API of this very process: no network, and no token. */
import type { Api } from "../api/app.ts";
import { type RestClient, restClient } from "../client/client.ts";
import { TIMEOUT_DEFAULT_MS } from "../client/limits.ts";

export function ownRest(api: Api): RestClient {
  return restClient({
    endpoint: { url: "http://localhost", name: "this node's API" },
    timeoutMs: TIMEOUT_DEFAULT_MS,
    timeoutGiven: false,
    fetch: async (url, init) => await api.fetch(new Request(url, init)),
  });
}
