/** What the main thread passes to the Worker of a reactor. */
import type { MessagePort } from "node:worker_threads";
import type { LibraryFds } from "../../../ffi/index.ts";
import type { ShardOptions } from "../shard/methods.ts";

export interface WorkerInput {
  /** Read by `ffi/library.ts`. */
  readonly libraries: LibraryFds;
  readonly port: MessagePort;
  /** An eventfd: written when messages are on the port. */
  readonly wakeFd: number;
  readonly shard: ShardOptions;
}
