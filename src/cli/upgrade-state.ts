/** How far an upgrade of the cluster is, told from the versions that its nodes run. */
import type { Node } from "../client/types.ts";

export interface UpgradeState {
  /** Oldest version that runs. */
  readonly from: string;
  /** Newest version that runs. */
  readonly to: string;
  readonly status: string;
}

/** Versions in order: numbers by value, a pre-release before its release (semver 11, in short). */
export function compareVersions(a: string, b: string): number {
  const parts = (text: string) => {
    const [release, pre] = text.replace(/^v/, "").split("-", 2);
    return { numbers: release!.split(".").map((part) => Number.parseInt(part, 10) || 0), pre };
  };
  const [left, right] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(left.numbers.length, right.numbers.length); i++) {
    const difference = (left.numbers[i] ?? 0) - (right.numbers[i] ?? 0);
    if (difference !== 0) return difference;
  }
  if (left.pre === right.pre) return 0;
  if (left.pre === undefined) return 1;
  if (right.pre === undefined) return -1;
  return left.pre < right.pre ? -1 : 1;
}

/** What the versions of the nodes say. */
export function versionsOf(nodes: readonly Node[]): UpgradeState {
  const known = nodes
    .flatMap((node) => node.state?.version ?? node.spec?.version ?? [])
    .filter((version) => version !== "")
    .sort(compareVersions);
  const from = known[0] ?? "unknown";
  const to = known.at(-1) ?? "unknown";
  const done = known.filter((version) => version === to).length;
  const status =
    from === to ? `All nodes run ${to}` : `Upgrading: ${done} of ${nodes.length} nodes done`;
  return { from, to, status };
}
