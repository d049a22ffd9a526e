/** The cluster as the agent asks it for volumes' paths, over any of several addresses of its HTTP API. */
import type { RestClient } from "../client/client.ts";
import { followEvents } from "../client/event-stream.ts";
import { targetAddress } from "../client/target-address.ts";
import type { VolumePath as RestPath } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import { FOLLOW_AGAIN_MS } from "./limits.ts";
import type { PathSource } from "./path-book.ts";
import type { KnownPath } from "./plan.ts";

/** Paths as the API names them; those of nodes that have never been heard of are left out. */
export function knownPaths(paths: readonly RestPath[]): KnownPath[] {
  return paths
    .filter(({ uri }) => uri !== "")
    .map(({ uri, state }) => {
      const { address, port } = targetAddress(uri);
      return { address, port: Number(port), isPending: state === "pending" };
    });
}

/** Tries one address after the other, beginning with the one that answered last. */
export class ClusterClients {
  readonly #clients: readonly RestClient[];
  #preferred = 0;

  /** At least one. */
  constructor(clients: readonly RestClient[]) {
    this.#clients = clients;
  }

  get current(): RestClient {
    return this.#clients[this.#preferred]!;
  }

  async call<T>(act: (client: RestClient) => Promise<T>): Promise<T> {
    let failure: unknown;
    for (let tried = 0; tried < this.#clients.length; tried++) {
      try {
        return await act(this.current);
      } catch (error) {
        failure = error;
        const isAway =
          error instanceof TrilithError && /^(Unavailable|Timeout|Deadline)/.test(error.code);
        if (!isAway) throw error;
        this.next();
      }
    }
    throw failure;
  }

  next(): void {
    this.#preferred = (this.#preferred + 1) % this.#clients.length;
  }
}

async function followForever(
  clients: ClusterClients,
  signal: AbortSignal,
  changed: (volumeUuid: string | null) => void,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await followEvents(
        clients.current.options,
        null,
        signal,
        ({ target }) => changed(target),
        () => changed(null),
      );
    } catch {
      // Who cannot be heard is asked from time to time all the same.
      clients.next();
    }
    if (!signal.aborted) await Bun.sleep(FOLLOW_AGAIN_MS);
  }
}

/** The cluster behind these clients as a source of paths. */
export function clusterPaths(clients: ClusterClients): PathSource {
  return {
    ask: async (volumeUuid) => knownPaths(await clients.call((one) => one.paths(volumeUuid))),
    follow: (signal, changed) => void followForever(clients, signal, changed),
  };
}
