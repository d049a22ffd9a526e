/** Parameters that several operations share. */
import * as v from "valibot";
import type { FrontendNode } from "../../control/model.ts";
import { hostNqnOf } from "../../names.ts";
import { AnyName, Uuid } from "../schemas/fields.ts";

export const idParams = v.object({ id: AnyName });
export const nodeParams = v.object({ node_id: AnyName });
export const poolParams = v.object({ pool_id: AnyName });
export const nodePoolParams = v.object({ node_id: AnyName, pool_id: AnyName });
export const nexusParams = v.object({ nexus_id: Uuid });
export const nodeNexusParams = v.object({ node_id: AnyName, nexus_id: Uuid });
export const volumeParams = v.object({ volume_id: Uuid });
export const snapshotParams = v.object({ snapshot_id: Uuid });

/** A host as requests name it: by its name, or by its NQN. */
export function frontendNode(name: string): FrontendNode {
  return { name, nqn: hostNqnOf(name) };
}

/** What forced removal is asked with, from a body that may be left out. */
export function forcedRemoval(body: {
  readonly purge: boolean;
  readonly accept_volume_loss: boolean;
  readonly accept_snapshot_loss: boolean;
}) {
  return {
    purge: body.purge,
    acceptVolumeLoss: body.accept_volume_loss,
    acceptSnapshotLoss: body.accept_snapshot_loss,
  };
}
