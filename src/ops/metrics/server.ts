/** Serves metrics over HTTP: `GET /metrics`, as Prometheus asks for them. */
import { TrilithError } from "../../errors.ts";
import { endpointText } from "../../names.ts";
import type { Log } from "../log.ts";
import { CONTENT_TYPE } from "./exposition.ts";
import { GZIP_BYTES_MIN } from "./limits.ts";
import type { Metrics } from "./metrics.ts";

export const METRICS_PORT_DEFAULT = 9502;

export interface MetricsServer {
  readonly url: string;
  stop(): Promise<void>;
}

async function answer(request: Request, metrics: Metrics, log: Log): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (pathname !== "/metrics") {
    return new Response("metrics are at /metrics\n", { status: pathname === "/" ? 200 : 404 });
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    return new Response("only GET\n", { status: 405, headers: { allow: "GET, HEAD" } });
  }
  const headers = { "content-type": CONTENT_TYPE, vary: "accept-encoding" };
  try {
    const bytes = new TextEncoder().encode(await metrics.scrape());
    const zipped = /\bgzip\b/.test(request.headers.get("accept-encoding") ?? "");
    if (!zipped || bytes.length < GZIP_BYTES_MIN) return new Response(bytes, { headers });
    return new Response(Bun.gzipSync(bytes, { level: 1 }), {
      headers: { ...headers, "content-encoding": "gzip" },
    });
  } catch (error) {
    log("error", "metrics could not be collected", { error });
    return new Response("metrics could not be collected: see the log\n", { status: 500 });
  }
}

/** Serves `metrics`. `InUse` when the address is taken. */
export function serveMetrics(
  metrics: Metrics,
  at: { readonly address: string; readonly port: number },
  log: Log,
): MetricsServer {
  let server: ReturnType<typeof Bun.serve>;
  try {
    server = Bun.serve({
      hostname: at.address,
      port: at.port,
      fetch: (request) => answer(request, metrics, log),
    });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new TrilithError(
      "InUse",
      `cannot serve metrics on ${at.address}:${at.port}: ${text}`,
      `see \`ss -ltnp sport = :${at.port}\`, or choose another port with --metrics`,
    );
  }
  return {
    url: `http://${endpointText(at.address, server.port!)}`,
    stop: () => server.stop(true),
  };
}
