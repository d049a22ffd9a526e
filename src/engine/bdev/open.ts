/** Opens a block device by its URI, whatever its kind. */
import { TrilithError } from "../../errors.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { Bdev } from "./bdev.ts";
import { openFileBdev } from "./file.ts";
import { openMemoryBdev } from "./memory.ts";
import { assertNumericAddress } from "./nvmf/connect.ts";
import { openNvmfBdev } from "./nvmf/nvmf-bdev.ts";
import { type NvmeHost, type NvmfSettings, nvmfDefaults } from "./nvmf/options.ts";
import { type BdevUri, parseBdevUri } from "./uri.ts";

export type { NvmeHost } from "./nvmf/options.ts";

export interface OpenOptions {
  /** Needed for `nvmf` URIs. */
  readonly host?: NvmeHost;
  /** Settings of the NVMe/TCP initiator that differ from `nvmfDefaults`. */
  readonly nvmf?: Partial<NvmfSettings>;
  /** Finds devices that are open already, for `bdev` URIs. Such a device is shared, not reopened. */
  readonly lookup?: (name: string) => Bdev | undefined;
}

/**
 * Opens the device that `uri` (text, or already parsed) names, on `reactor`.
 * Errors: those of `parseBdevUri`, `openMemoryBdev`, `openFileBdev` and `openNvmfBdev`; a host name
 * instead of a numeric address is `InvalidArgument`; an unknown open device is `NotFound`.
 */
export async function openBdev(
  reactor: Reactor,
  uri: string | BdevUri,
  options: OpenOptions = {},
): Promise<Bdev> {
  const parsed = typeof uri === "string" ? parseBdevUri(uri) : uri;
  switch (parsed.driver) {
    case "malloc":
    case "null":
      return openMemoryBdev(reactor, parsed);
    case "uring":
    case "aio":
      return openFileBdev(reactor, parsed);
    case "nvmf": {
      const text = typeof uri === "string" ? uri : `nvmf+tcp://${parsed.address}/${parsed.nqn}`;
      assertNumericAddress(parsed.address, text);
      if (options.host === undefined) {
        throw new TrilithError(
          "InvalidArgument",
          `device URI "${text}": this engine has no host NQN to connect with`,
        );
      }
      const host = { ...options.host, nqn: parsed.hostNqn ?? options.host.nqn };
      return openNvmfBdev(reactor, parsed, host, { ...nvmfDefaults, ...options.nvmf });
    }
    case "bdev": {
      const found = options.lookup?.(parsed.name);
      if (found !== undefined) return found;
      throw new TrilithError("NotFound", `no open device is named "${parsed.name}"`);
    }
  }
}
