/** All routes of the engine's API. Imports the shapes only, so that clients pull in nothing else. */
import { bdevRoutes } from "./bdevs.ts";
import { faultRoutes } from "./faults.ts";
import { infoRoutes } from "./info.ts";
import { nexusRoutes } from "./nexuses.ts";
import { poolRoutes } from "./pools.ts";
import { recordRoutes } from "./records.ts";
import { replicaRoutes, snapshotRoutes } from "./replicas.ts";
import type { Handlers, RouteInput, RouteRequest, RouteResult } from "./route.ts";
import { scrubRoutes } from "./scrubs.ts";
import { shareRoutes } from "./shares.ts";
import { standbyRoutes } from "./standbys.ts";
import { statsRoutes } from "./stats.ts";

export const engineContract = {
  ...infoRoutes,
  ...bdevRoutes,
  ...shareRoutes,
  ...poolRoutes,
  ...replicaRoutes,
  ...snapshotRoutes,
  ...nexusRoutes,
  ...scrubRoutes,
  ...standbyRoutes,
  ...statsRoutes,
  ...faultRoutes,
  ...recordRoutes,
} as const;

export type EngineContract = typeof engineContract;
export type EngineMethod = keyof EngineContract;
/** Whoever carries the engine's API out. */
export type EngineHandlers = Handlers<EngineContract>;
export type EngineInput<K extends EngineMethod> = RouteInput<EngineContract[K]>;
export type EngineRequest<K extends EngineMethod> = RouteRequest<EngineContract[K]>;
export type EngineResult<K extends EngineMethod> = RouteResult<EngineContract[K]>;
