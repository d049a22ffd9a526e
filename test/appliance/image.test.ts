import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { executablePath, projectRoot, runCommand } from "../support/executable.ts";
import { canChangeRoot, runInRoot } from "../support/other-root.ts";
import { tempFolders } from "../support/temp-folder.ts";

const folder = tempFolders();

interface Configuration {
  readonly process: { readonly args: string[]; readonly cwd: string };
}

describe("the container image", () => {
  test.skipIf(!canChangeRoot)("is made, unpacks, and its entry point runs", () => {
    const built = runCommand(["bun", "images/oci.ts"]);
    expect(built.stderr).toBe("");
    expect(built.status).toBe(0);
    const place = folder();
    const archive = join(projectRoot, "dist/trilith-oci.tar");
    expect(runCommand(["tar", "-xf", archive, "-C", place]).status).toBe(0);
    const index = JSON.parse(readFileSync(join(place, "index.json"), "utf8"));
    expect(index.manifests.length).toBe(1);
    const tag: string = index.manifests[0].annotations["org.opencontainers.image.ref.name"];
    const bundle = join(place, "bundle");
    const unpacked = runCommand(["umoci", "unpack", `--image=${place}:${tag}`, bundle]);
    expect(unpacked.status).toBe(0);

    const rootfs = join(bundle, "rootfs");
    const configuration = JSON.parse(
      readFileSync(join(bundle, "config.json"), "utf8"),
    ) as Configuration;
    expect(configuration.process.args).toEqual(["/usr/bin/trilith", "engine"]);
    expect(configuration.process.cwd).toBe("/var/lib/trilith");
    for (const path of ["var/lib/trilith", "tmp", "proc", "dev", "usr/share/doc/trilith/LICENSE"]) {
      expect(`${path} ${existsSync(join(rootfs, path))}`).toBe(`${path} true`);
    }
    expect(existsSync(join(rootfs, "bin/sh"))).toBe(false);

    const [entry] = configuration.process.args;
    const ran = runInRoot(rootfs, entry!, "version");
    expect(ran.stderr).toBe("");
    expect(ran.stdout).toBe(runCommand([executablePath(), "version"]).stdout);
  });

  test.skipIf(!canChangeRoot)("for nodes of Kubernetes has what makes file systems, too", () => {
    const built = runCommand(["bun", "images/oci.ts", "--node"]);
    expect(built.stderr).toBe("");
    expect(built.status).toBe(0);
    const place = folder();
    const archive = join(projectRoot, "dist/trilith-node-oci.tar");
    expect(runCommand(["tar", "-xf", archive, "-C", place]).status).toBe(0);
    const index = JSON.parse(readFileSync(join(place, "index.json"), "utf8"));
    const tag: string = index.manifests[0].annotations["org.opencontainers.image.ref.name"];
    const bundle = join(place, "bundle");
    expect(runCommand(["umoci", "unpack", `--image=${place}:${tag}`, bundle]).status).toBe(0);
    const configuration = JSON.parse(
      readFileSync(join(bundle, "config.json"), "utf8"),
    ) as Configuration;
    expect(configuration.process.args).toEqual(["/usr/bin/trilith", "csi", "--node"]);
    const rootfs = join(bundle, "rootfs");
    for (const program of ["mkfs.ext4", "mkfs.xfs", "xfs_admin", "blkid", "mount", "sync"]) {
      const ran = runInRoot(rootfs, `/usr/bin/${program}`, program === "sync" ? "--version" : "-V");
      expect(`${program} ${ran.status} ${ran.stdout}${ran.stderr}`).toMatch(/ 0 .*\d\.\d/);
    }
  });
});
