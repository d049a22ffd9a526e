/** The scrubs of one reactor's nexuses, as the API has them. */
import type { Nexus, ScrubRecord } from "../nexus/index.ts";
import type { Scrub as ScrubBody } from "../rpc/scrubs.ts";
import type { ShardEvent, ShardMethods } from "./methods.ts";

export type ScrubMethods = Pick<
  ShardMethods,
  "startScrub" | "getScrub" | "stopScrub" | "pauseScrub" | "resumeScrub" | "configureScrub"
>;

const noCounts = {
  comparedBytes: 0,
  skippedBytes: 0,
  mismatchedBytes: 0,
  repairedBytes: 0,
  transientBytes: 0,
} as const;

export function scrubBody(record: ScrubRecord): ScrubBody {
  const { offsetBytes, sizeBytes, etaMs, endTimeMs, error } = record;
  return {
    ...record,
    progressPercent: sizeBytes === 0 ? 100 : Math.floor((offsetBytes * 100) / sizeBytes),
    childUris: [...record.childUris],
    findings: record.findings.map((one) => ({ ...one, childUris: [...one.childUris] })),
    etaMs: etaMs ?? null,
    endTimeMs: endTimeMs ?? null,
    error: error ?? null,
  };
}

/** `find` gives a nexus by its UUID, or throws `NotFound`. */
export function scrubMethods(find: (uuid: string) => Nexus): ScrubMethods {
  return {
    startScrub: async ({ uuid, id, offsetBytes, counts, bytesPerSecLimit, repair }) => {
      const plan = {
        id,
        offsetBytes,
        counts: counts ?? noCounts,
        bytesPerSec: bytesPerSecLimit,
        isRepairing: repair,
      };
      return scrubBody(find(uuid).scrubs.start(plan));
    },
    getScrub: async ({ uuid }) => scrubBody(find(uuid).scrubs.current()),
    stopScrub: async ({ uuid }) => scrubBody(await find(uuid).scrubs.stop()),
    pauseScrub: async ({ uuid }) => scrubBody(find(uuid).scrubs.pause()),
    resumeScrub: async ({ uuid }) => scrubBody(find(uuid).scrubs.resume()),
    configureScrub: async ({ uuid, bytesPerSecLimit }) =>
      scrubBody(find(uuid).scrubs.configure(bytesPerSecLimit)),
  };
}

type ScrubNexusEvent = Extract<
  Parameters<Nexus["core"]["emit"]>[0],
  { readonly kind: "scrub-started" | "scrub-ended" | "scrub-mismatch" }
>;

/** An event of a scrub as it is told and logged. */
export function scrubEvent(uuid: string, event: ScrubNexusEvent): ShardEvent {
  if (event.kind === "scrub-mismatch") {
    const { offsetBytes, lengthBytes, kind, isRepaired, childUris, reason } = event.finding;
    const fields = { offsetBytes, lengthBytes, what: kind, isRepaired, uris: childUris.join(" ") };
    return { kind: event.kind, subject: uuid, message: reason, fields };
  }
  const { id, state, offsetBytes, comparedBytes, mismatchedBytes, repairedBytes, error } =
    event.scrub;
  const fields = { id, state, offsetBytes, comparedBytes, mismatchedBytes, repairedBytes };
  return { kind: event.kind, subject: uuid, message: error ?? "", fields };
}
