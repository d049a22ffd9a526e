/**
 * Makes a node known to the cluster as a host of volumes (mayastor.md 3.3): the controller publishes to
 * hosts that are known only. Said again from time to time; not taken back at the end, for what is published
 * to a node stays so while its driver is restarted.
 */
import type { RestClient } from "../client/client.ts";
import type { Log } from "../ops/log.ts";
import { KNOWN_AGAIN_MS, KNOWN_RETRY_MS } from "./limits.ts";
import { pauseUnless } from "./pause.ts";

export interface NodeName {
  /** Name of the Kubernetes node, which is the id that CSI knows it by. */
  readonly nodeName: string;
  /** What tells where it is. */
  readonly topology: Readonly<Record<string, string>>;
}

export interface KnownNodeOptions extends NodeName {
  /** Where its services are. */
  readonly endpoint: string;
  readonly client: RestClient;
  readonly log: Log;
}

/** Registers the node until it is stopped. */
export function keepNodeKnown(options: KnownNodeOptions): { stop(): Promise<void> } {
  const { nodeName, topology, endpoint, client, log } = options;
  const ending = new AbortController();
  let wasKnown = false;
  const keeping = (async () => {
    while (!ending.signal.aborted) {
      let pauseMs = KNOWN_AGAIN_MS;
      try {
        await client.registerAppNode(nodeName, endpoint, topology);
        if (!wasKnown)
          log("info", "the cluster knows this node as a host of volumes", { nodeName });
        wasKnown = true;
      } catch (error) {
        log("warn", "this node could not be made known to the cluster", { nodeName, error });
        pauseMs = KNOWN_RETRY_MS;
      }
      await pauseUnless(ending.signal, pauseMs);
    }
  })();
  return {
    async stop() {
      ending.abort();
      await keeping;
    },
  };
}
