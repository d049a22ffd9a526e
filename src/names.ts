/**
 * How things are named on the wire, written once: NVMe qualified names (mayastor.md 4.1), and addresses
 * in URLs. What one part makes and another compares has to agree to the letter. Imports nothing.
 */

const NQN_PREFIX = "nqn.2019-05.io.openebs:";

/** NQN under which the thing with this UUID is served (a volume's by its volume UUID). */
export function nqnOf(uuid: string): string {
  return NQN_PREFIX + uuid;
}

/** NQN of a node's discovery service. */
export function discoveryNqnOf(nodeName: string): string {
  return `${NQN_PREFIX}discovery:${nodeName}`;
}

/** Host NQN of a node, as hosts of volumes and nexuses are named. */
export function nodeHostNqn(nodeName: string): string {
  return `${NQN_PREFIX}node-name:${nodeName}`;
}

/** Host NQN of a host that is named as requests name it: by its name, or by its NQN. */
export function hostNqnOf(nameOrNqn: string): string {
  return nameOrNqn.startsWith("nqn.") ? nameOrNqn : nodeHostNqn(nameOrNqn);
}

/** Entry of a publish context: `true` when the volume may be published to several hosts at once. */
export const SEVERAL_HOSTS = "severalHosts";

/** An address as the host of a URL: in brackets when it is of IPv6. */
export function urlHost(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/** `10.0.0.1:8420`, `[fd00::1]:8420`. */
export function endpointText(address: string, port: number | string): string {
  return `${urlHost(address)}:${port}`;
}
