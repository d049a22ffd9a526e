/** Serves a recorder over HTTP, for engines that share one. */
import { TrilithError } from "../../errors.ts";
import { endpointText } from "../../names.ts";
import type { Log } from "../../ops/log.ts";
import { type Recorder, recorderHandlers } from "../recorder.ts";
import { recorderContract, type VacationHandlers, vacationContract } from "../rpc/records.ts";
import { contractApp } from "../rpc.ts";

export interface RecorderServer {
  readonly url: string;
  stop(): Promise<void>;
}

/** Serves `recorder`, and `vacation` to the node's engine when it stops. `InUse`: the address is taken. */
export function serveRecorder(
  recorder: Recorder,
  at: { readonly address: string; readonly port: number },
  log: Log,
  vacation?: VacationHandlers,
): RecorderServer {
  const records = contractApp(recorderContract, recorderHandlers(recorder), log);
  const leaving = vacation === undefined ? null : contractApp(vacationContract, vacation, log);
  const fetch = (request: Request) => {
    const isLeaving = new URL(request.url).pathname === vacationContract.vacate.path;
    return (isLeaving && leaving !== null ? leaving : records).fetch(request);
  };
  let server: ReturnType<typeof Bun.serve>;
  try {
    server = Bun.serve({ hostname: at.address, port: at.port, fetch, idleTimeout: 0 });
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
