/**
 * Nodes whose engine is about to stop in order: they are drained under a label that names the process,
 * which is taken away when another one answers there.
 */
import type { Uuid } from "../model.ts";

const PREFIX = "engine-stops-";

/** Label of the drain of a node whose engine, the process with this UUID, stops. */
export function stoppingLabel(instanceUuid: Uuid): string {
  return `${PREFIX}${instanceUuid}`;
}

/** Labels among these of processes that are over, `present` being the one that answers now. */
export function outlived(labels: readonly string[], present: Uuid): string[] {
  return labels.filter((label) => label.startsWith(PREFIX) && label !== stoppingLabel(present));
}
