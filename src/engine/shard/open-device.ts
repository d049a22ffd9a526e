/** Opens devices on behalf of the API. */
import { TrilithError } from "../../errors.ts";
import type { Bdev } from "../bdev/bdev.ts";
import type { BdevUri } from "../bdev/uri.ts";
import { FORMER_ENGINE_MS, FORMER_ENGINE_POLL_MS } from "./limits.ts";
import type { ShardContext } from "./shard.ts";

/**
 * Opens a device; errors are those of `openBdev`. Soon after the start a device that is in use is
 * waited for a little: the rings of an engine that was killed hold its disks until the kernel has
 * taken them down.
 */
export async function openDevice(
  context: ShardContext,
  uri: string | BdevUri,
  what: string,
): Promise<Bdev> {
  const { reactor, options, startedNs } = context;
  for (;;) {
    reactor.activity = what;
    try {
      return await context.openBdev(reactor, uri, { host: options.host });
    } catch (error) {
      const isInUse = error instanceof TrilithError && error.code === "InUse";
      if (!isInUse || reactor.now > startedNs + FORMER_ENGINE_MS * 1e6) throw error;
    } finally {
      reactor.activity = "";
    }
    await reactor.sleep(FORMER_ENGINE_POLL_MS);
  }
}
