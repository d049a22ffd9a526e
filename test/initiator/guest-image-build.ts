/**
 * Builds the guest image: downloads the packages with all they depend on, unpacks them beside each
 * other, picks programs with their libraries and modules with theirs, and writes an archive that
 * the kernel unpacks. The programs needed for that (xz, depmod, ldd's work) are the unpacked ones,
 * run with the unpacked libc, so that nothing depends on what this machine has installed.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { CpioArchive } from "./cpio.ts";
import {
  bootModules,
  furtherModules,
  guestLinks,
  guestPackages,
  guestPrograms,
  loadedLibraries,
  unusedPackages,
} from "./guest-packages.ts";

const LOADER = "lib64/ld-linux-x86-64.so.2";
const LIBRARY_FOLDERS = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
const PROGRAM_FOLDERS = ["bin", "sbin", "usr/bin", "usr/sbin"];
const GUEST_LIBRARIES = "lib/x86_64-linux-gnu";
const OUTPUT_BYTES_MAX = 64 << 20;
const XZ_FILES_PER_CALL = 50;

/** Runs a program; returns its standard output or throws with what it said. */
function run(command: string, args: readonly string[], cwd?: string): string {
  const result = spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: OUTPUT_BYTES_MAX,
    stdio: ["ignore", "pipe", "pipe"],
    ...(cwd === undefined ? {} : { cwd }),
  });
  if (result.status === 0) return result.stdout;
  const said = result.error?.message ?? `${result.stdout}${result.stderr}`.trim();
  throw new Error(`${command} ${args.join(" ").slice(0, 200)}: status ${result.status}\n${said}`);
}

/** True when one of the program's runs succeeds: the second follows an update of the lists. */
function withFreshLists<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (process.getuid?.() !== 0) throw error;
    console.error("initiator: fetching Debian's package lists (apt-get update)");
    run("apt-get", ["-qq", "update"]);
    return action();
  }
}

/** Options that make apt-get answer for an empty machine and keep its files in `archives`. */
function aptOptions(archives: string): string[] {
  const settings = [
    "Dir::State::status=/dev/null",
    `Dir::Cache::archives=${archives}`,
    "Dir::Cache::pkgcache=",
    "Dir::Cache::srcpkgcache=",
    "APT::Sandbox::User=root",
    "APT::Architecture=amd64",
    "Debug::NoLocking=1",
  ];
  return ["-qq", "-y", "--no-install-recommends", ...settings.flatMap((s) => ["-o", s])];
}

/** Downloads `names` and all they depend on into `archives`; returns the files of that set. */
function downloadClosure(names: readonly string[], archives: string, scratch: string): string[] {
  // Listed against an empty folder: `archives` may hold older versions as well.
  const empty = join(scratch, "none");
  mkdirSync(join(empty, "partial"), { recursive: true });
  mkdirSync(join(archives, "partial"), { recursive: true });
  const listed = run("apt-get", [...aptOptions(empty), "--print-uris", "install", ...names]);
  run("apt-get", [...aptOptions(archives), "-d", "install", ...names]);
  const files = [...listed.matchAll(/^'[^']*' (\S+\.deb)/gm)].map((match) => match[1]!);
  if (files.length === 0) throw new Error(`apt-get lists no files for ${names.join(" ")}`);
  return files;
}

/** Downloads the kernel that `name` (a package, or one that only depends on it) stands for. */
function downloadKernel(name: string, archives: string): string {
  const depends = run("apt-cache", ["depends", name]);
  const real = /^\s*Depends: (linux-image-\d\S*)/m.exec(depends)?.[1] ?? name;
  // Named exactly, so that a file left by an earlier build is taken only when it is the same.
  const uri = run("apt-get", [...aptOptions("/nonexistent"), "--print-uris", "download", real]);
  const file = /^'[^']*' (\S+\.deb)/m.exec(uri)?.[1];
  if (file === undefined) throw new Error(`apt-get lists no file for ${real}`);
  if (!existsSync(join(archives, file))) {
    run("apt-get", ["-qq", "-o", "APT::Sandbox::User=root", "download", real], archives);
  }
  return file;
}

/** Path of the first that exists, or undefined. */
function firstOf(paths: readonly string[]): string | undefined {
  return paths.find((path) => existsSync(path));
}

/** The unpacked packages, and programs run out of them. */
class Stage {
  readonly root: string;
  readonly #loader: string;
  readonly #libraryPath: string;

  constructor(root: string) {
    this.root = root;
    const candidates = [LOADER, `usr/${LOADER}`, "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"];
    // The unpacked link may be absolute and then leads to this machine's own loader.
    const found = candidates
      .map((path) => join(root, path))
      .map((path) =>
        isLink(path) ? join(root, resolve("/", dirname(LOADER), readlinkSync(path))) : path,
      )
      .find((path) => existsSync(path));
    if (found === undefined) throw new Error("the packages hold no dynamic loader");
    this.#loader = found;
    this.#libraryPath = LIBRARY_FOLDERS.map((folder) => join(root, folder)).join(":");
  }

  get loader(): string {
    return this.#loader;
  }

  program(name: string): string {
    const path = firstOf(PROGRAM_FOLDERS.map((folder) => join(this.root, folder, name)));
    if (path === undefined) throw new Error(`no package holds the program ${name}`);
    return path;
  }

  library(name: string): string {
    const path = firstOf(LIBRARY_FOLDERS.map((folder) => join(this.root, folder, name)));
    if (path === undefined) throw new Error(`no package holds the library ${name}`);
    return path;
  }

  /** Runs an unpacked program as `name`. */
  run(name: string, args: readonly string[], calledAs = name): string {
    const loading = ["--library-path", this.#libraryPath, "--argv0", calledAs];
    return run(this.#loader, [...loading, this.program(name), ...args]);
  }

  /** Paths of the shared libraries that a program needs. */
  librariesOf(path: string): string[] {
    const result = spawnSync(this.#loader, ["--library-path", this.#libraryPath, "--list", path], {
      encoding: "utf8",
    });
    // A static program has none: the loader says so and fails.
    return [...result.stdout.matchAll(/=> (\/\S+)/g)].map((match) => match[1]!);
  }
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
}

function addPrograms(archive: CpioArchive, stage: Stage): void {
  const libraries = new Map<string, string>();
  for (const name of loadedLibraries) libraries.set(name, stage.library(name));
  for (const name of guestPrograms) {
    const path = stage.program(name);
    archive.file(`bin/${name}`, readFileSync(path), 0o755);
    for (const library of stage.librariesOf(path)) libraries.set(basename(library), library);
  }
  for (const [name, path] of libraries) {
    archive.file(`${GUEST_LIBRARIES}/${name}`, readFileSync(path), 0o755);
  }
  archive.file(LOADER, readFileSync(stage.loader), 0o755);
  const taken = new Set([...guestPrograms, ...Object.keys(guestLinks), "busybox"]);
  for (const [link, target] of Object.entries(guestLinks)) archive.symlink(`bin/${link}`, target);
  const busybox = stage.program("busybox");
  archive.file("bin/busybox", readFileSync(busybox), 0o755);
  for (const name of run(busybox, ["--list"]).trim().split("\n")) {
    if (!taken.has(name)) archive.symlink(`bin/${name}`, "busybox");
  }
}

function addBase(archive: CpioArchive, stage: Stage): void {
  for (const path of ["bin", "usr", "lib", "lib64", "etc/nvme", "root", "usr/share", "var/log"]) {
    archive.directory(path);
  }
  for (const path of ["proc", "sys", "dev", "run", "tmp", "mnt", "host"]) archive.directory(path);
  archive.symlink("sbin", "bin");
  archive.symlink("usr/bin", "../bin");
  archive.symlink("usr/sbin", "../bin");
  archive.symlink("usr/lib", "../lib");
  archive.symlink("etc/mtab", "/proc/mounts");
  archive.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
  archive.file("etc/group", "root:x:0:\n");
  archive.file("etc/hosts", "127.0.0.1 localhost\n");
  archive.file("etc/mke2fs.conf", readFileSync(join(stage.root, "etc/mke2fs.conf")));
}

/** Name of a module as `modules.dep` and `modprobe` compare it. */
function moduleName(path: string): string {
  return basename(path).replace(/\.ko$/, "").replaceAll("-", "_");
}

/** Adds the modules wanted and those they need, with the tables that modprobe reads. */
function addModules(archive: CpioArchive, stage: Stage, kernelRoot: string): void {
  const version = readdirSync(join(kernelRoot, "lib/modules"))[0]!;
  const folder = join(kernelRoot, "lib/modules", version);
  const compressed = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ko.xz"))
    .map((name) => join(folder, name));
  for (let i = 0; i < compressed.length; i += XZ_FILES_PER_CALL) {
    stage.run("xz", ["-d", ...compressed.slice(i, i + XZ_FILES_PER_CALL)]);
  }
  stage.run("kmod", ["-b", kernelRoot, version], "depmod");

  const wanted = new Set([...bootModules, ...furtherModules].map(moduleName));
  const picked = new Set<string>();
  const table = readFileSync(join(folder, "modules.dep"), "utf8").trim().split("\n");
  for (const line of table) {
    const [path, needs] = line.split(":") as [string, string];
    if (!wanted.has(moduleName(path))) continue;
    picked.add(path);
    for (const need of needs.trim().split(" ")) if (need !== "") picked.add(need);
  }
  const target = `lib/modules/${version}`;
  for (const path of picked) archive.file(`${target}/${path}`, readFileSync(join(folder, path)));
  const names = new Set([...picked].map(moduleName));
  archive.file(
    `${target}/modules.dep`,
    table
      .filter((line) => picked.has(line.split(":")[0]!))
      .join("\n")
      .concat("\n"),
  );
  for (const name of ["modules.alias", "modules.symbols"]) {
    const lines = readFileSync(join(folder, name), "utf8").split("\n");
    const kept = lines.filter((line) => names.has(line.slice(line.lastIndexOf(" ") + 1)));
    archive.file(`${target}/${name}`, kept.join("\n").concat("\n"));
  }
  for (const name of ["modules.order", "modules.builtin", "modules.builtin.modinfo"]) {
    archive.file(`${target}/${name}`, readFileSync(join(folder, name)));
  }
  archive.file("etc/boot-modules", bootModules.join("\n").concat("\n"));
}

function writeArchive(archive: CpioArchive, path: string): void {
  const fd = openSync(path, "w");
  for (const part of archive.finish()) writeSync(fd, part);
  closeSync(fd);
}

/**
 * Builds the image with kernel package `kernelPackage` into `folder` (`vmlinuz` and
 * `initramfs.cpio`), which appears when it is complete. `archives` keeps downloaded packages.
 */
export function buildGuestImage(kernelPackage: string, archives: string, folder: string): void {
  console.error(`initiator: building the guest image (once) in ${folder}`);
  const scratch = `${folder}.${process.pid}`;
  const stageRoot = join(scratch, "stage");
  const kernelRoot = join(scratch, "kernel");
  const result = join(scratch, "result");
  for (const path of [stageRoot, kernelRoot, result]) mkdirSync(path, { recursive: true });
  try {
    const { tools, kernel } = withFreshLists(() => ({
      tools: downloadClosure(guestPackages, archives, scratch),
      kernel: downloadKernel(kernelPackage, archives),
    }));
    for (const file of tools) {
      if (!unusedPackages.test(file)) run("dpkg-deb", ["-x", join(archives, file), stageRoot]);
    }
    run("dpkg-deb", ["-x", join(archives, kernel), kernelRoot]);
    const image = readdirSync(join(kernelRoot, "boot")).find((name) => name.startsWith("vmlinuz"));
    if (image === undefined) throw new Error(`${kernel} holds no kernel`);
    copyFileSync(join(kernelRoot, "boot", image), join(result, "vmlinuz"));

    const stage = new Stage(stageRoot);
    const archive = new CpioArchive();
    addBase(archive, stage);
    addPrograms(archive, stage);
    addModules(archive, stage, kernelRoot);
    writeArchive(archive, join(result, "initramfs.cpio"));
    renameSync(result, folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
