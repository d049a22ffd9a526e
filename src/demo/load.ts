/** The demonstration's load, as the main thread sees it: a thread with a reactor of its own. */
import type { LoadResult, LoadStats } from "../engine/bench/load.ts";
import { startReactorThread } from "../engine/reactor/thread.ts";
import type { LoadMethods, LoadRequest, LoadUser } from "./messages.ts";

export interface DemoLoad {
  stats(): Promise<LoadStats>;
  /** Ends the load, reads everything back, and resolves with the outcome. */
  finish(): Promise<LoadResult>;
  /** Ends the thread. */
  terminate(): Promise<void>;
}

/** Starts the thread and the load; resolves when requests flow. */
export async function startDemoLoad(
  request: LoadRequest,
  onDeath: (error: unknown) => void,
): Promise<DemoLoad> {
  let isEnding = false;
  const thread = await startReactorThread<LoadUser, LoadMethods>({
    name: "the load's thread",
    url: new URL("./load-worker.ts", import.meta.url),
    input: {},
    local: {},
    onDeath: (error) => {
      if (!isEnding) onDeath(error);
    },
  });
  await thread.mailbox.call("start", request);
  return {
    stats: () => thread.mailbox.call("stats", {}),
    finish: () => thread.mailbox.call("finish", {}),
    terminate() {
      isEnding = true;
      return thread.terminate();
    },
  };
}
