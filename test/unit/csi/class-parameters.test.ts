/** What parameters of a StorageClass mean, and which are refused. */
import { describe, expect, test } from "bun:test";
import { knownParameters, volumeClassOf } from "../../../src/csi/class-parameters.ts";
import { TrilithError } from "../../../src/errors.ts";

const read = (parameters: Record<string, string>) => volumeClassOf(parameters, "storage class");

function refusal(parameters: Record<string, string>): TrilithError {
  try {
    read(parameters);
  } catch (error) {
    if (error instanceof TrilithError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("a class", () => {
  test("without parameters has one thick replica", () => {
    expect(read({})).toEqual({
      replicas: 1,
      thin: false,
      maxSnapshots: null,
      affinityGroup: false,
      topology: null,
      restorePolicy: "strict",
      dataLocality: null,
      ignored: [],
    });
  });

  test("of any generation is read", () => {
    const all = {
      repl: "3",
      protocol: "nvmf",
      thin: "true",
      fsType: "xfs",
      ioTimeout: "30",
      nvmeCtrlLossTmo: "1980",
      stsAffinityGroup: "true",
      maxSnapshots: "5",
      cloneFsIdAsVolumeId: "true",
      snapshotRestorePolicy: "bestEffort",
      dataLocality: "preferred",
      "csi.storage.k8s.io/pvc/name": "data-0",
      "csi.storage.k8s.io/fstype": "ext4",
    };
    expect(read(all)).toMatchObject({
      replicas: 3,
      thin: true,
      maxSnapshots: 5,
      affinityGroup: true,
      restorePolicy: "bestEffort",
      dataLocality: "preferred",
      ignored: [],
    });
    const diamanti = { mirrorCount: "2", perfTier: "high", fsType: "xfs" };
    expect(read(diamanti)).toMatchObject({ replicas: 2, ignored: ["perfTier"] });
    expect(read({ local: "yes" })).toMatchObject({ ignored: ["local"] });
  });

  test("chooses pools and nodes by labels", () => {
    expect(read({ poolAffinityTopologyLabel: "disk: nvme\nzone: a\n" }).topology).toEqual({
      pool_topology: { labelled: { inclusion: { disk: "nvme", zone: "a" }, exclusion: {} } },
    });
    expect(read({ nodeSpreadTopologyKey: "zone" }).topology).toEqual({
      node_topology: { labelled: { inclusion: {}, exclusion: { zone: "" } } },
    });
    const both = { nodeHasTopologyKey: "rack", poolAffinityTopologyKey: "zone" };
    expect(read(both).topology).toEqual({
      pool_topology: { labelled: { inclusion: {}, exclusion: {}, affinity_key: ["zone"] } },
      node_topology: { labelled: { inclusion: { rack: "" }, exclusion: {} } },
    });
    const error = refusal({ nodeHasTopologyKey: "a", poolHasTopologyKey: "b" });
    expect(error.message).toContain("Multiple topology parameters are not allowed");
  });
});

describe("a parameter", () => {
  test("that is not known is refused with those that are, unless the class allows it", () => {
    const error = refusal({ replicas: "3", repl: "2", colour: "red" });
    expect(error.code).toBe("InvalidArgument");
    expect(error.message).toContain("replicas is not known (nor colour)");
    for (const name of knownParameters) expect(error.remedy).toContain(name);
    expect(read({ replicas: "3", allowUnknownParameters: "true" })).toMatchObject({
      replicas: 1,
      ignored: ["replicas"],
    });
  });

  const wrong: [Record<string, string>, TrilithError["code"], string][] = [
    [{ repl: "0" }, "InvalidArgument", "1 or more"],
    [{ repl: "two" }, "InvalidArgument", "whole number"],
    [{ repl: "256" }, "InvalidArgument", "up to 255"],
    [{ repl: "2", mirrorCount: "3" }, "InvalidArgument", "mirrorCount is 3, and repl is 2"],
    [{ thin: "perhaps" }, "InvalidArgument", '"true" or "false"'],
    [{ protocol: "iscsi" }, "InvalidArgument", "served by nvmf"],
    [{ fsType: "ntfs" }, "InvalidArgument", "ext4, xfs, btrfs"],
    [{ nvmeCtrlLossTmo: "-5" }, "InvalidArgument", "whole number"],
    [{ nvmeKeepAliveTmo: "4294967296" }, "InvalidArgument", "up to 4294967295"],
    [{ snapshotRestorePolicy: "lax" }, "InvalidArgument", "strict, bestEffort"],
    [{ dataLocality: "always" }, "InvalidArgument", "none, preferred"],
    [{ encrypted: "true" }, "Unimplemented", "not encrypted"],
    [{ rwxBlock: "true" }, "Unimplemented", "two writers"],
    [{ poolClusterSize: "4MiB" }, "Unimplemented", "cluster size"],
  ];
  for (const [parameters, code, words] of wrong) {
    test(`${JSON.stringify(parameters)} is refused in words`, () => {
      const error = refusal(parameters);
      expect([error.code, error.message]).toEqual([code, expect.stringContaining(words)]);
      expect(error.message).toStartWith("storage class");
    });
  }
});
