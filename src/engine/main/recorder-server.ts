/** Serves a recorder over HTTP, for engines that share one. */
import { TrilithError } from "../../errors.ts";
import { endpointText } from "../../names.ts";
import type { Log } from "../../ops/log.ts";
import { type Recorder, recorderHandlers } from "../recorder.ts";
import { recorderContract } from "../rpc/records.ts";
import { contractApp } from "../rpc.ts";

export interface RecorderServer {
  readonly url: string;
  stop(): Promise<void>;
}

/** Serves `recorder`. `InUse` when the address is taken. */
export function serveRecorder(
  recorder: Recorder,
  at: { readonly address: string; readonly port: number },
  log: Log,
): RecorderServer {
  const app = contractApp(recorderContract, recorderHandlers(recorder), log);
  let server: ReturnType<typeof Bun.serve>;
  try {
    server = Bun.serve({ hostname: at.address, port: at.port, fetch: app.fetch });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new TrilithError(
      "InUse",
      `cannot serve the recorder on ${at.address}:${at.port}: ${text}`,
      `see \`ss -ltnp sport = :${at.port}\`, or choose another port`,
    );
  }
  return {
    url: `http://${endpointText(at.address, server.port!)}`,
    stop: () => server.stop(true),
  };
}
