/** What Prometheus' operator reads: where the nodes' metrics are, and what to alert on. Pure. */
import type { ManifestOptions } from "./options.ts";
import { labelsOf } from "./workloads.ts";

const METRICS = "trilith-metrics";

/**
 * The appliances are no pods: a service without a selector, with their addresses as its endpoints,
 * makes them known.
 */
export function monitoringOf(
  namespace: string,
  { addresses, port, groups }: NonNullable<ManifestOptions["prometheus"]>,
): object[] {
  const labels = labelsOf("metrics");
  const metadata = { name: METRICS, namespace, labels };
  const ports = [{ name: "metrics", port, protocol: "TCP" }];
  return [
    { apiVersion: "v1", kind: "Service", metadata, spec: { clusterIP: "None", ports } },
    {
      apiVersion: "v1",
      kind: "Endpoints",
      metadata,
      subsets: [{ addresses: addresses.map((ip) => ({ ip })), ports }],
    },
    {
      apiVersion: "monitoring.coreos.com/v1",
      kind: "ServiceMonitor",
      metadata,
      spec: {
        selector: { matchLabels: labels },
        endpoints: [{ port: "metrics", path: "/metrics", honorLabels: true }],
      },
    },
    {
      apiVersion: "monitoring.coreos.com/v1",
      kind: "PrometheusRule",
      metadata: { ...metadata, name: "trilith" },
      spec: { groups },
    },
  ];
}
