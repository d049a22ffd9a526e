/**
 * What the node service remembers of a volume, in a file per volume below /run, which is gone after a
 * reboot as the mounts are. Mounts tell the truth about mounts; the record tells what they do not show:
 * that a volume is staged as a raw block device, with which flags, and which publications are complete.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeFileWhole } from "../../ops/durable-file.ts";

const Access = v.variant("kind", [
  v.object({ kind: v.literal("block") }),
  v.object({ kind: v.literal("mount"), fsType: v.string(), flags: v.array(v.string()) }),
]);
const StageRecord = v.object({
  volumeUuid: v.string(),
  stagingPath: v.string(),
  access: Access,
  readOnly: v.boolean(),
  publications: v.array(v.object({ targetPath: v.string(), readOnly: v.boolean() })),
});

export type Access = v.InferOutput<typeof Access>;
export type StageRecord = v.InferOutput<typeof StageRecord>;

export const RECORDS_DIR_DEFAULT = "/run/trilith/csi";

export interface StageRecords {
  /** Null: nothing is known. One that cannot be understood counts as none. */
  read(volumeUuid: string): StageRecord | null;
  write(record: StageRecord): void;
  remove(volumeUuid: string): void;
  /** Folder for a volume's short mounts. */
  scratchPath(volumeUuid: string): string;
}

/** The records in a folder, which is made when it is needed. */
export function stageRecords(folder: string = RECORDS_DIR_DEFAULT): StageRecords {
  const pathOf = (volumeUuid: string) => join(folder, `${volumeUuid}.json`);
  return {
    read(volumeUuid) {
      let text: string;
      try {
        text = readFileSync(pathOf(volumeUuid), "utf8");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
        throw error;
      }
      try {
        const parsed = v.safeParse(StageRecord, JSON.parse(text));
        return parsed.success ? parsed.output : null;
      } catch {
        return null; // Not JSON: the mounts have to do.
      }
    },
    write(record) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeFileWhole(pathOf(record.volumeUuid), JSON.stringify(record), 0o600);
    },
    remove(volumeUuid) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeFileWhole(pathOf(volumeUuid), null, 0o600);
    },
    scratchPath: (volumeUuid) => join(folder, `${volumeUuid}.mount`),
  };
}

/** True when both ask for the same: same mode, same file system, same flags in whatever order. */
export function isSameAccess(a: Access, b: Access): boolean {
  if (a.kind === "block" || b.kind === "block") return a.kind === b.kind;
  const flags = (access: { readonly flags: readonly string[] }) => [...access.flags].sort().join();
  return a.fsType === b.fsType && flags(a) === flags(b);
}
