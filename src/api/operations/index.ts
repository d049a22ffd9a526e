/** All operations of the HTTP API under `/v0`. */
import type { AnyOperation } from "../operation.ts";
import { clusterOperations } from "./cluster.ts";
import { hostOperations } from "./hosts.ts";
import { nexusOperations } from "./nexuses.ts";
import { nodeOperations } from "./nodes.ts";
import { poolOperations } from "./pools.ts";
import { replicaOperations } from "./replicas.ts";
import { scrubOperations } from "./scrubs.ts";
import { snapshotOperations } from "./snapshots.ts";
import { volumeOperations } from "./volumes.ts";

export const operations: readonly AnyOperation[] = [
  ...nodeOperations,
  ...poolOperations,
  ...replicaOperations,
  ...nexusOperations,
  ...snapshotOperations,
  ...volumeOperations,
  ...scrubOperations,
  ...hostOperations,
  ...clusterOperations,
];
