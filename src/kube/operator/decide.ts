/**
 * What is to be done for the object of a pool: pure, from what Kubernetes and the cluster show now, so
 * that it comes to the same whatever was missed, repeated or cut off. One step at a time; after it
 * everything is looked at again.
 */

import type { CreatePoolBody, Node, Pool, PurgeBody } from "../../client/types.ts";
import { type ErrorCode, TrilithError } from "../../errors.ts";
import { keyOf } from "../client/objects.ts";
import { manifestOf } from "../manifest-file.ts";
import { DELETE_ANNOTATION, EXPAND_ANNOTATION, POOL_FINALIZER } from "../names.ts";
import { poolOf, type WantedPool } from "../pool-object.ts";
import { type PoolObject, type PoolProblem, recordedView } from "./pool-view.ts";

export type Step =
  | { readonly do: "nothing" }
  | { readonly do: "hold"; readonly problem: PoolProblem }
  | { readonly do: "add-finalizer" }
  | { readonly do: "remove-finalizer"; readonly destroyed: boolean }
  | {
      readonly do: "create";
      readonly node: string;
      readonly id: string;
      readonly body: CreatePoolBody;
    }
  | { readonly do: "label"; readonly id: string; readonly key: string; readonly value: string }
  | { readonly do: "expand"; readonly id: string }
  | { readonly do: "delete"; readonly id: string; readonly force: PurgeBody };

/** The cluster as an object of a pool sees it. */
export interface Surroundings {
  readonly pool: Pool | null;
  readonly nodes: readonly Node[];
  /** Another object, older, that declares a pool of the same name; its key. */
  readonly rival: string | null;
}

const noForce: PurgeBody = {
  purge: false,
  accept: false,
  accept_volume_loss: false,
  accept_snapshot_loss: false,
};

const problem = (code: string, message: string): Step => ({
  do: "hold",
  problem: { code, message },
});

/** `purge=true,accept=true,accept-data-loss=true`, or `purge-accept-all` (mayastor.md 7.1). */
export function parseDeleteOptions(text: string | undefined): PurgeBody {
  const given = new Map(
    (text ?? "")
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "")
      .map((part) => {
        const [key, value] = part.split("=");
        return [key!.trim(), (value ?? "true").trim() === "true"] as const;
      }),
  );
  const all = given.get("purge-accept-all") === true;
  const has = (key: string) => all || given.get(key) === true;
  const loss = has("accept-data-loss");
  return {
    purge: has("purge"),
    accept: has("accept"),
    accept_volume_loss: loss || has("accept-volume-loss"),
    accept_snapshot_loss: loss || has("accept-snapshot-loss"),
  };
}

/** Which of Mayastor's codes an error of the API is shown as. */
const codeByError: Partial<Record<ErrorCode, string>> = {
  ForeignDisk: "ForeignPoolName",
  Conflict: "ForeignPoolName",
  NotFound: "DiskNotFound",
  DeviceGone: "DiskNotFound",
  DeviceIo: "DiskReadIoError",
  InUse: "DiskClaimed",
  Corrupted: "InvalidSuperBlock",
  InvalidArgument: "InvalidDiskUri",
  Unavailable: "Unreachable",
  Timeout: "TimeOut",
  DeadlineExceeded: "TimeOut",
  Unimplemented: "EncryptionSecretError",
};

/** An error as an object shows it: what happened, and what to do about it. */
export function problemOf(error: TrilithError): PoolProblem {
  const message = error.remedy === "" ? error.message : `${error.message}; ${error.remedy}`;
  return { code: codeByError[error.code] ?? "Unknown", message };
}

/** The pool that an object asks for, or why it asks for none. */
function wantedOf(object: PoolObject): WantedPool | PoolProblem {
  try {
    const where = `${object.kind ?? "DiskPool"} ${keyOf(object)}`;
    return poolOf(manifestOf(object, where));
  } catch (error) {
    if (error instanceof TrilithError) return problemOf(error);
    throw error;
  }
}

/** A pool with this name, on this node and disk, is this object's. */
function isOurs(pool: Pool, wanted: WantedPool): boolean {
  return pool.spec?.node === wanted.node && pool.spec.disks[0] === wanted.body.disks[0];
}

function nodeProblem(nodes: readonly Node[], name: string): Step | null {
  const node = nodes.find(({ id }) => id === name);
  if (node === undefined) {
    const known = nodes.map(({ id }) => id).join(", ");
    return problem("NodeIsUnknown", `Unable to find io-engine node ${name}; there are: ${known}`);
  }
  const status = node.state?.status ?? "Unknown";
  if (status === "Online") return null;
  return problem("NodeIsOffline", `node ${name} is ${status}; the pool is made when it is back`);
}

function decideDeletion(
  object: PoolObject,
  wanted: WantedPool | PoolProblem,
  { pool, rival }: Surroundings,
): Step {
  if (object.metadata.finalizers?.includes(POOL_FINALIZER) !== true) return { do: "nothing" };
  // What another object declares, or was never this one's, is not this one's to delete.
  const ours = "kind" in wanted && pool !== null && rival === null && isOurs(pool, wanted);
  if (!ours) {
    const wasThere = recordedView(object).crState !== "Creating";
    return { do: "remove-finalizer", destroyed: pool === null && wasThere };
  }
  const force = parseDeleteOptions(object.metadata.annotations?.[DELETE_ANNOTATION]);
  // A pool that answers is deleted in order whatever the annotation says.
  const isAway = (pool.state?.status ?? "Unknown") !== "Online";
  return { do: "delete", id: wanted.id, force: isAway ? force : noForce };
}

function decideUpkeep(object: PoolObject, wanted: WantedPool, pool: Pool): Step {
  if (pool.spec?.node !== wanted.node) {
    return problem(
      "ForeignPoolName",
      `there is a pool ${wanted.id} on node ${pool.spec?.node}; a pool does not move: give this one another name`,
    );
  }
  if (pool.spec.status === "Deleting") {
    return problem("PoolDeleted", `pool ${wanted.id} is being deleted`);
  }
  if (!isOurs(pool, wanted)) {
    // The API knows whether both mean the same disk, and says so when they do not.
    const labels = { ...wanted.body.labels, ...pool.spec.labels };
    return {
      do: "create",
      node: wanted.node,
      id: wanted.id,
      body: { ...wanted.body, labels },
    };
  }
  const label = Object.entries(wanted.body.labels ?? {}).find(
    ([key, value]) => pool.spec?.labels?.[key] !== value,
  );
  if (label !== undefined) {
    return { do: "label", id: wanted.id, key: label[0], value: label[1] };
  }
  const asked = object.metadata.annotations?.[EXPAND_ANNOTATION] === "true";
  if (asked && pool.state?.status === "Online") return { do: "expand", id: wanted.id };
  return { do: "nothing" };
}

/** The next step for an object. */
export function decide(object: PoolObject, seen: Surroundings): Step {
  const wanted = wantedOf(object);
  if (object.metadata.deletionTimestamp !== undefined) {
    return decideDeletion(object, wanted, seen);
  }
  if (!("kind" in wanted)) return { do: "hold", problem: wanted };
  if (seen.rival !== null) {
    return problem(
      "ForeignPoolName",
      `pool ${wanted.id} is declared by ${seen.rival} already; give this one another name`,
    );
  }
  if (object.metadata.finalizers?.includes(POOL_FINALIZER) !== true) return { do: "add-finalizer" };
  if (seen.pool !== null) return decideUpkeep(object, wanted, seen.pool);
  if (recordedView(object).crState === "Created") {
    return problem(
      "PoolDeleted",
      "The pool has been deleted through an external API request; it is not made again: delete this object, or apply it anew",
    );
  }
  const away = nodeProblem(seen.nodes, wanted.node);
  return away ?? { do: "create", node: wanted.node, id: wanted.id, body: wanted.body };
}
