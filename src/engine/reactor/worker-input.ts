/** What the main thread passes to the thread of an engine's reactor. */
import type { ShardOptions } from "../shard/methods.ts";
import type { ThreadInput } from "./thread.ts";

export interface WorkerInput extends ThreadInput {
  readonly shard: ShardOptions;
}
