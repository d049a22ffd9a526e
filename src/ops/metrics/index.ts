/**
 * Metrics for Prometheus: own text exposition, collectors per subject, and the HTTP endpoint. Imports
 * the engine's RPC client and types of the control plane.
 */
export { catalog, sampleNames } from "./catalog.ts";
export type { ClusterReading, VolumeStatusName } from "./cluster.ts";
export { type ControlInstruments, controlInstruments } from "./control.ts";
export type { EngineSource } from "./engine-source.ts";
export { createMetrics, type Metrics, type MetricsSources } from "./metrics.ts";
export { METRICS_PORT_DEFAULT, type MetricsServer, serveMetrics } from "./server.ts";
