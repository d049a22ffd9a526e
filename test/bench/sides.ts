/** Sides of comparisons: a subsystem or an export under the initiator that both have in common. */
import type { Bench, Side } from "./bench.ts";
import { polled } from "./bench.ts";
import { nvmfUri } from "./engine.ts";
import { fioNbd, type PerfOptions, perfLoad, type Subsystem, trilithLoad } from "./loads.ts";
import type { NbdPeer } from "./nbd-peers.ts";
import type { Spdk, SpdkTarget } from "./spdk.ts";

/** Digests that the initiator asks for. */
export interface Digests {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
}

const noDigests: Digests = { headerDigest: false, dataDigest: false };

/** A subsystem of ours: under `spdk_nvme_perf` when there is an SPDK, else under our own load. */
export function oursOverTcp(
  bench: Bench,
  spdk: Spdk | null,
  at: Subsystem,
  name = "ours",
  digests = noDigests,
): Side {
  if (spdk !== null) return overPerf(bench, { ...spdk.perf, ...digests }, at, name);
  const { headerDigest, dataDigest } = digests;
  const uri = `${nvmfUri(at)}?hdgst=${headerDigest}&ddgst=${dataDigest}`;
  return {
    name,
    measure: (load, seconds) =>
      trilithLoad(bench.options.executable, uri, load, seconds, bench.load),
  };
}

function overPerf(bench: Bench, perf: PerfOptions, at: Subsystem, name: string): Side {
  return {
    name,
    measure: (load, seconds) => perfLoad(perf, at, load, seconds, bench.load),
  };
}

/** A subsystem of an SPDK target, which polls. */
export function spdkOverTcp(
  bench: Bench,
  spdk: Spdk,
  target: SpdkTarget,
  at: Subsystem,
  name: string,
  digests = noDigests,
): Side {
  const side = overPerf(bench, { ...spdk.perf, ...digests }, at, name);
  return polled(target.service, side);
}

/** An NBD export under fio. */
export function overNbd(bench: Bench, uri: string, name: string): Side {
  return {
    name,
    measure: (load, seconds) => fioNbd(uri, load, seconds, bench.load, bench.folder),
  };
}

/** Debian's NBD servers under fio: ours is meant to be ahead of them. */
export function nbdPeerSides(bench: Bench, peers: readonly NbdPeer[]): Side[] {
  return peers.map(({ name, uri }) => ({
    ...overNbd(bench, uri, name),
    aimOf: () => ({ atLeast: 1 }),
  }));
}
