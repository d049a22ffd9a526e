/** Everything that one scrape asks of the node's own engine. */
import type { EngineClient } from "../../engine/rpc/client.ts";
import type { EngineResult } from "../../engine/rpc/contract.ts";
import { ENGINE_TIMEOUT_MS } from "./limits.ts";

/** The calls that are made; a test hands in its own. */
export type EngineSource = Pick<
  EngineClient,
  "getInfo" | "getUsage" | "listPools" | "listReplicas" | "listNexuses" | "listStats"
>;

/** An engine at one moment, nearly. */
export interface EngineReading {
  readonly info: EngineResult<"getInfo">;
  readonly usage: EngineResult<"getUsage">;
  readonly pools: EngineResult<"listPools">;
  readonly replicas: EngineResult<"listReplicas">;
  readonly nexuses: EngineResult<"listNexuses">;
  readonly stats: EngineResult<"listStats">;
}

/** Asks for all of it at once. Rejects with what the first failed call says. */
export async function readEngine(engine: EngineSource): Promise<EngineReading> {
  const options = { timeoutMs: ENGINE_TIMEOUT_MS };
  const [info, usage, pools, replicas, nexuses, stats] = await Promise.all([
    engine.getInfo({}, options),
    engine.getUsage({}, options),
    engine.listPools({}, options),
    engine.listReplicas({}, options),
    engine.listNexuses({}, options),
    engine.listStats({}, options),
  ]);
  return { info, usage, pools, replicas, nexuses, stats };
}
