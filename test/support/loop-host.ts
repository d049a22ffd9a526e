/**
 * A host agent over loop devices: what the CSI node service does with devices, mounts and file systems is
 * real, only the way to the volume is short. A volume is a sparse file, which may be "on another node" by
 * being attached there again.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { TrilithError } from "../../src/errors.ts";
import type { ConnectedVolume, HostAgent } from "../../src/host/host.ts";
import { nqnOf } from "../../src/names.ts";

function losetup(...args: string[]): string {
  const result = spawnSync("losetup", args, { encoding: "utf8" });
  if (result.status !== 0) throw new Error(`losetup ${args.join(" ")}: ${result.stderr}`);
  return result.stdout.trim();
}

/** Bytes of a block device, as the kernel has it. */
function sizeOf(device: string): number {
  return Number(readFileSync(`/sys/class/block/${basename(device)}/size`, "utf8")) * 512;
}

export interface LoopHost extends HostAgent {
  /** Calls so far, by name. */
  readonly calls: { connect: number; disconnect: number };
  /** What `problems` tells. */
  readonly troubles: Map<string, TrilithError>;
  /** Device of a volume that is connected. */
  deviceOf(volumeUuid: string): string;
  /** Takes every device away. */
  end(): void;
}

/** An agent for volumes that are files. */
export function loopHost(files: ReadonlyMap<string, string>): LoopHost {
  const devices = new Map<string, string>();
  const calls = { connect: 0, disconnect: 0 };
  const troubles = new Map<string, TrilithError>();
  const fileOf = (uuid: string): string => {
    const file = files.get(uuid);
    if (file === undefined) throw new TrilithError("Unavailable", `no volume ${uuid}`);
    return file;
  };
  const connected = (uuid: string): ConnectedVolume => ({
    volumeUuid: uuid,
    nqn: nqnOf(uuid),
    paths: [],
    device: devices.get(uuid) ?? null,
    sizeBytes: devices.has(uuid) ? sizeOf(devices.get(uuid)!) : null,
  });
  return {
    calls,
    troubles,
    deviceOf: (uuid) => devices.get(uuid)!,
    end: () => {
      for (const device of devices.values()) losetup("--detach", device);
      devices.clear();
    },
    async connect({ volumeUuid }) {
      calls.connect++;
      const file = fileOf(volumeUuid);
      if (!devices.has(volumeUuid)) devices.set(volumeUuid, losetup("--find", "--show", file));
      return connected(volumeUuid);
    },
    async disconnect(volumeUuid) {
      calls.disconnect++;
      const device = devices.get(volumeUuid);
      if (device === undefined) return;
      losetup("--detach", device);
      devices.delete(volumeUuid);
    },
    list: async () => [...devices.keys()].map(connected),
    async rescan(volumeUuid) {
      const device = devices.get(volumeUuid)!;
      losetup("--set-capacity", device);
      return sizeOf(device);
    },
    problems: () => troubles,
  };
}
