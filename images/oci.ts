/**
 * Packs the executable into a container image, `dist/trilith-oci.tar`: an OCI archive, made with
 * Debian's umoci, without a daemon. It holds the executable, the C library it needs, and nothing
 * else: no shell, no package manager.
 *
 *   bun images/oci.ts        (after images/build.ts; `npm run image` does both)
 *   bun images/oci.ts --node
 *
 * With `--node` the programs that make, check and grow file systems come along, from the Debian packages
 * of this machine: `dist/trilith-node-oci.tar`, for nodes of Kubernetes without the appliance (the
 * DaemonSet of `trilith kubernetes manifest --daemonset`).
 *
 * Load it with `podman load -i`, `skopeo copy oci-archive:...` or `buildah pull oci-archive:...`.
 * To run it: the container must be allowed io_uring (most default seccomp profiles forbid it), and
 * the disks it is to use must be passed in.
 */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { commitDate, commitOf, root, version } from "./source.ts";

const executable = join(root, "dist/trilith");
const isNode = process.argv.includes("--node");
const archiveName = isNode ? "trilith-node-oci.tar" : "trilith-oci.tar";
const archive = join(root, "dist", archiveName);

/** What the node service runs (src/csi/node/command.ts), and what those programs run, by package. */
const nodePrograms: Readonly<Record<string, readonly string[]>> = {
  "util-linux": ["blkid", "blockdev", "fsfreeze"],
  mount: ["mount", "umount"],
  e2fsprogs: ["mkfs.ext4", "e2fsck", "resize2fs", "tune2fs"],
  // xfs_admin is a script, which runs xfs_db.
  xfsprogs: ["mkfs.xfs", "xfs_growfs", "xfs_io", "xfs_admin", "xfs_db", "xfs_repair"],
  "btrfs-progs": ["mkfs.btrfs", "btrfs", "btrfstune"],
  coreutils: ["sync"],
  dash: ["sh"],
};

/** NVMe/TCP, discovery, engine RPC, metrics, HTTP API. */
const ports = [8420, 8009, 10124, 9502, 8081];
const STATE_FOLDER = "/var/lib/trilith";

function run(command: string, ...args: string[]): string {
  const result = spawnSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  if (result.status === 0) return result.stdout;
  const why = result.error?.message ?? result.stderr.trim();
  throw new Error(`${command} ${args.join(" ")}: ${why}`);
}

/** Shared libraries that a program is linked with, and the loader, as real files. */
function neededLibraries(program: string): string[] {
  const paths = [...run("ldd", program).matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!);
  return paths.filter((path) => path !== program);
}

/** Copies a program and what it is linked with. */
function addProgram(target: string, program: string, name: string): void {
  const isScript = readFileSync(program).subarray(0, 2).toString() === "#!";
  for (const path of isScript ? [] : neededLibraries(program)) {
    const place = join(target, path);
    mkdirSync(dirname(place), { recursive: true });
    copyFileSync(realpathSync(path), place);
  }
  copyFileSync(realpathSync(program), join(target, "usr/bin", name));
}

/** The programs of the node service. Throws for those that this machine does not have. */
function addNodePrograms(target: string): void {
  const places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  const missing = new Set<string>();
  for (const [name, programs] of Object.entries(nodePrograms)) {
    for (const program of programs) {
      const found = places.map((place) => join(place, program)).find((path) => existsSync(path));
      if (found === undefined) missing.add(name);
      else addProgram(target, found, program);
    }
  }
  if (missing.size > 0) throw new Error(`apt-get install ${[...missing].join(" ")}, then again`);
}

/** Fills the root file system of the image. */
function fillRoot(target: string): void {
  for (const folder of ["usr/bin", "usr/lib", "usr/lib64", "etc", "dev", "proc", "sys", "run"]) {
    mkdirSync(join(target, folder), { recursive: true });
  }
  mkdirSync(join(target, "tmp"), { mode: 0o1777 });
  mkdirSync(join(target, STATE_FOLDER), { recursive: true, mode: 0o750 });
  for (const link of ["bin", "lib", "lib64"]) symlinkSync(`usr/${link}`, join(target, link));
  addProgram(target, executable, "trilith");
  if (isNode) addNodePrograms(target);
  writeFileSync(join(target, "etc/passwd"), `root:x:0:0:root:${STATE_FOLDER}:/sbin/nologin\n`);
  writeFileSync(join(target, "etc/group"), "root:x:0:\n");
  writeFileSync(join(target, "etc/nsswitch.conf"), "hosts: files dns\n");
  const licences = join(target, "usr/share/doc");
  mkdirSync(join(licences, "trilith"), { recursive: true });
  copyFileSync(join(root, "LICENSE"), join(licences, "trilith/LICENSE"));
  const packages = ["libc6", "liburing2", "libisal2", ...(isNode ? Object.keys(nodePrograms) : [])];
  for (const name of packages) {
    const copyright = `/usr/share/doc/${name}/copyright`;
    if (!existsSync(copyright)) continue;
    mkdirSync(join(licences, name));
    cpSync(copyright, join(licences, name, basename(copyright)), { dereference: true });
  }
}

function settings(): string[] {
  const created = commitDate().toISOString();
  const labels: Record<string, string> = {
    title: "Trilith",
    description: "Replicated NVMe block storage in one executable",
    licenses: "Apache-2.0",
    version,
    revision: commitOf(["."]),
    created,
  };
  return [
    "--config.entrypoint=/usr/bin/trilith",
    ...(isNode ? ["--config.cmd=csi", "--config.cmd=--node"] : ["--config.cmd=engine"]),
    `--config.workingdir=${STATE_FOLDER}`,
    `--config.volume=${STATE_FOLDER}`,
    ...ports.map((port) => `--config.exposedports=${port}/tcp`),
    ...Object.entries(labels).map(
      ([name, value]) => `--config.label=org.opencontainers.image.${name}=${value}`,
    ),
    "--os=linux",
    "--architecture=amd64",
    `--created=${created}`,
    "--no-history",
  ];
}

function pack(folder: string): void {
  const layout = join(folder, "layout");
  const bundle = join(folder, "bundle");
  const image = `${layout}:${version}`;
  const rootless = process.getuid?.() === 0 ? [] : ["--rootless"];
  run("umoci", "init", `--layout=${layout}`);
  run("umoci", "new", `--image=${image}`);
  run("umoci", "unpack", ...rootless, `--image=${image}`, bundle);
  fillRoot(join(bundle, "rootfs"));
  run("umoci", "repack", "--no-history", `--image=${image}`, bundle);
  run("umoci", "config", ...settings(), `--image=${image}`);
  run("umoci", "gc", `--layout=${layout}`);
  const owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name"];
  const date = `--mtime=@${Math.floor(commitDate().getTime() / 1000)}`;
  const partial = `${archive}.${process.pid}`;
  run("tar", ...owner, date, "-C", layout, "-cf", partial, "oci-layout", "index.json", "blobs");
  renameSync(partial, archive);
}

if (!existsSync(executable)) {
  console.error("image: dist/trilith is not there\n  run `npm run build` first");
  process.exit(1);
}
const folder = mkdtempSync(join(tmpdir(), "trilith-image-"));
try {
  pack(folder);
} finally {
  rmSync(folder, { recursive: true });
}
const megabytes = (statSync(archive).size / 1e6).toFixed(0);
console.log(`image: dist/${archiveName}, ${megabytes} MB, trilith ${version}, linux/amd64`);
