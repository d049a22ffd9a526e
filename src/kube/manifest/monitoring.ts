/** What Prometheus' operator reads: where the nodes' metrics are, and what to alert on. Pure. */
import type { ManifestOptions } from "./options.ts";
import { labelsOf } from "./workloads.ts";

const METRICS = "trilith-metrics";

/** Addresses of one family, as the endpoints of the service. */
function endpoints(
  namespace: string,
  family: "IPv4" | "IPv6",
  addresses: readonly string[],
  ports: readonly object[],
): object[] {
  if (addresses.length === 0) return [];
  const labels = { ...labelsOf("metrics"), "kubernetes.io/service-name": METRICS };
  return [
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name: `${METRICS}-${family.toLowerCase()}`, namespace, labels },
      addressType: family,
      endpoints: addresses.map((address) => ({ addresses: [address] })),
      ports,
    },
  ];
}

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
  const v6 = addresses.filter((address) => address.includes(":"));
  const v4 = addresses.filter((address) => !address.includes(":"));
  return [
    { apiVersion: "v1", kind: "Service", metadata, spec: { clusterIP: "None", ports } },
    ...endpoints(namespace, "IPv4", v4, ports),
    ...endpoints(namespace, "IPv6", v6, ports),
    {
      apiVersion: "monitoring.coreos.com/v1",
      kind: "ServiceMonitor",
      metadata,
      spec: {
        selector: { matchLabels: labels },
        serviceDiscoveryRole: "EndpointSlice",
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
