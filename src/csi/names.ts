/** Names that Kubernetes knows the driver and its nodes by (mayastor.md 3, 3.2). */
import { TrilithError } from "../errors.ts";

export const DRIVER_NAME_DEFAULT = "io.openebs.csi-mayastor";

/** Node topology: the name of the node, which is the storage node's where it is one. */
export const TOPOLOGY_NODE = "openebs.io/nodename";
/** Node topology: every node that can use volumes has it, with the value `mayastor`. */
export const TOPOLOGY_CSI_NODE = "openebs.io/csi-node";
export const TOPOLOGY_CSI_NODE_VALUE = "mayastor";
/** Labels of zones, which pass from Kubernetes' nodes to ours and back under the same names. */
export const TOPOLOGY_ZONE = "topology.kubernetes.io/zone";
export const TOPOLOGY_REGION = "topology.kubernetes.io/region";

/** Where the kubelet expects the sockets of plugins, and learns of them. */
export const KUBELET_DIR_DEFAULT = "/var/lib/kubelet";

/** Socket of a driver's node service, below the kubelet's folder. */
export function pluginSocket(kubeletDir: string, driverName: string): string {
  return `${kubeletDir}/plugins/${driverName}/csi.sock`;
}

/** Socket by which the kubelet learns of the driver. */
export function registrationSocket(kubeletDir: string, driverName: string): string {
  return `${kubeletDir}/plugins_registry/${driverName}-reg.sock`;
}

/** A driver's name: a domain name (CSI: GetPluginInfo). Throws `InvalidArgument`. */
export function checkDriverName(name: string): string {
  const label = "[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?";
  if (name.length <= 63 && new RegExp(`^${label}(?:\\.${label})*$`).test(name)) return name;
  throw new TrilithError(
    "InvalidArgument",
    `"${name}" is no name of a CSI driver`,
    `it has to be a domain name of at most 63 characters, such as ${DRIVER_NAME_DEFAULT}`,
  );
}
