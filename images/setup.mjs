#!/usr/bin/env node
/**
 * Prepares a checkout: npm packages, the two native libraries, and the Debian packages that the
 * tests, the benchmarks or the container image need. Runs before every npm script; does nothing,
 * quickly, when nothing is missing.
 *
 *   node images/setup.mjs [--test] [--nightly] [--bench] [--image]
 *
 * Plain Node (18 or newer) without any package, because it runs before there are any.
 */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { installCsiSanity } from "./csi-sanity.mjs";
import { buildKubernetesPrograms } from "./kubernetes-programs.mjs";
import { patchPackage } from "./patch.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const LIBRARY_FOLDER = "/usr/lib/x86_64-linux-gnu";
const APT_LISTS = "/var/lib/apt/lists";
const APT_LISTS_DAYS_MAX = 1;
const DAY_MS = 86_400_000;

/** Libraries that travel inside the executable, and the Debian package each comes from. */
const libraries = [
  { file: "liburing.so.2", name: "liburing2" },
  { file: "libisal.so.2", name: "libisal2" },
];

/** Changes to npm packages; each patch says at its top what it changes and why. */
const patches = [
  {
    package: "@coaty/consensus.raft",
    version: "1.0.0",
    file: "images/patches/coaty-consensus-raft-1.0.0.patch",
  },
];

/**
 * Debian packages by purpose. A package counts as there when one of its files is: the program may
 * have come another way. `for` is what it is needed for.
 */
const packages = {
  "--test": [
    { name: "fio", file: ["/usr/bin/fio"], for: "load and verification" },
    {
      name: "qemu-system-x86",
      file: ["/usr/bin/qemu-system-x86_64"],
      for: "a Linux host to serve",
    },
    {
      name: "iproute2",
      file: ["/sbin/ip", "/usr/sbin/ip", "/usr/bin/ip"],
      for: "networks to break",
    },
    { name: "qemu-utils", file: ["/usr/bin/qemu-img"], for: "an NBD client" },
    { name: "libnbd-bin", file: ["/usr/bin/nbdcopy"], for: "an NBD client" },
    { name: "nbdkit", file: ["/usr/sbin/nbdkit", "/usr/bin/nbdkit"], for: "an NBD peer" },
    { name: "shellcheck", file: ["/usr/bin/shellcheck"], for: "checking install.sh" },
    { name: "systemd", file: ["/usr/bin/systemd-analyze"], for: "checking the units" },
    { name: "umoci", file: ["/usr/bin/umoci"], for: "the container image" },
    { name: "e2fsprogs", file: ["/sbin/mkfs.ext4"], for: "file systems on volumes" },
    { name: "xfsprogs", file: ["/sbin/mkfs.xfs", "/usr/sbin/mkfs.xfs"], for: "the same" },
    { name: "btrfs-progs", file: ["/bin/btrfs", "/usr/bin/btrfs"], for: "the same" },
    { name: "etcd-server", file: ["/usr/bin/etcd"], for: "Kubernetes' API server" },
    { name: "openssl", file: ["/usr/bin/openssl"], for: "its keys" },
  ],
  "--nightly": [
    { name: "debootstrap", file: ["/usr/sbin/debootstrap"], for: "a Debian machine to install on" },
  ],
  "--bench": [
    { name: "fio", file: ["/usr/bin/fio"], for: "load" },
    { name: "qemu-utils", file: ["/usr/bin/qemu-nbd"], for: "a peer" },
    { name: "nbdkit", file: ["/usr/sbin/nbdkit", "/usr/bin/nbdkit"], for: "a peer" },
    { name: "etcd-server", file: ["/usr/bin/etcd"], for: "a peer of the control plane" },
  ],
  "--image": [{ name: "umoci", file: ["/usr/bin/umoci"], for: "the container image" }],
};

function say(text) {
  console.log(`setup: ${text}`);
}

/** Ends with a message: what is wrong and what to do. */
function fail(what, remedy) {
  console.error(`setup: ${what}`);
  if (remedy) console.error(`  ${remedy}`);
  process.exit(1);
}

/** Runs a command with its output shown on standard error; true when it succeeded. */
function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], ...options });
  if (result.error) console.error(`setup: ${command}: ${result.error.message}`);
  return result.status === 0;
}

const isRoot = process.getuid?.() === 0;
const hasApt = existsSync("/usr/bin/apt-get");
let listsUpdated = false;

// ------------------------------------------------------------------------------- npm packages

/** True when node_modules holds what the lock file says (packages of other platforms aside). */
function npmPackagesCurrent() {
  const installedPath = join(root, "node_modules/.package-lock.json");
  if (!existsSync(installedPath)) return false;
  const installed = JSON.parse(readFileSync(installedPath, "utf8")).packages;
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "" || entry.link) return true;
    const present = installed[path];
    if (present === undefined) return entry.optional === true;
    return present.version === entry.version && existsSync(join(root, path));
  });
}

function bunWorks() {
  const bun = join(root, "node_modules/.bin/bun");
  return spawnSync(bun, ["--version"], { stdio: "ignore" }).status === 0;
}

function installNpmPackages() {
  if (!npmPackagesCurrent()) {
    say("installing npm packages (npm ci)");
    // Development packages are always needed here: Bun itself is one.
    if (!run("npm", ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"])) {
      fail("`npm ci` failed", "see its messages above; it needs to reach an npm registry");
    }
  }
  if (bunWorks()) return;
  // npm may be told not to run install scripts; Bun's puts its executable into place.
  say("putting Bun into place");
  if (!run(process.execPath, ["node_modules/bun/install.js"]) || !bunWorks()) {
    fail("Bun from npm does not run here", "it needs x86-64 Linux with glibc (Debian 12 or newer)");
  }
}

function applyPatches() {
  for (const { package: name, version, file } of patches) {
    try {
      const changed = patchPackage(join(root, "node_modules", name), version, join(root, file));
      if (changed) say(`${file} applied to ${name}`);
    } catch (error) {
      fail(
        `${file} does not fit ${name}: ${error.message}`,
        "remove node_modules and run this again; if that does not help, the patch needs work",
      );
    }
  }
}

// ----------------------------------------------------------------------------- Debian packages

/** True when there are package lists and they were fetched lately. */
function aptListsFresh() {
  if (!existsSync(APT_LISTS)) return false;
  if (!readdirSync(APT_LISTS).some((name) => /_Packages(\.\w+)?$/.test(name))) return false;
  // The lists themselves carry the server's dates; this folder is touched by every update.
  const partial = join(APT_LISTS, "partial");
  if (!existsSync(partial)) return false;
  return Date.now() - statSync(partial).mtimeMs < APT_LISTS_DAYS_MAX * DAY_MS;
}

function aptUpdate() {
  if (listsUpdated || !isRoot) return false;
  say("fetching Debian's package lists (apt-get update)");
  listsUpdated = true;
  return run("apt-get", ["-qq", "update"]);
}

const aptEnvironment = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };

/** Runs apt-get with fresh lists, and once more after an update when that fails. */
function apt(args, options = {}) {
  if (!aptListsFresh()) aptUpdate();
  const quiet = ["-qq", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"];
  const command = [...quiet, ...args];
  const environment = { env: aptEnvironment, ...options };
  return (
    run("apt-get", command, environment) || (aptUpdate() && run("apt-get", command, environment))
  );
}

function installDebianPackages(purposes) {
  const missing = new Map();
  for (const purpose of purposes) {
    for (const entry of packages[purpose]) {
      if (!entry.file.some((file) => existsSync(file))) missing.set(entry.name, entry.for);
    }
  }
  if (missing.size === 0) return;
  const names = [...missing.keys()];
  const reasons = [...missing].map(([name, reason]) => `${name} (${reason})`).join(", ");
  const command = `apt-get install --no-install-recommends ${names.join(" ")}`;
  if (!hasApt) fail(`missing: ${reasons}`, `on Debian: ${command}`);
  if (!isRoot) fail(`missing Debian packages: ${reasons}`, `run as root: ${command}`);
  say(`installing ${reasons}`);
  if (!apt(["install", "--no-install-recommends", ...names])) {
    fail("apt-get could not install them", `see its messages above; by hand: ${command}`);
  }
}

// ---------------------------------------------------------------------------- native libraries

/** Takes a library's file out of its Debian package without installing the package. */
function libraryFromPackage(library) {
  const folder = mkdtempSync(join(tmpdir(), "trilith-setup-"));
  const sandbox = isRoot ? ["-o", "APT::Sandbox::User=root"] : [];
  const downloaded = apt([...sandbox, "download", library.name], { cwd: folder });
  const archive = downloaded && readdirSync(folder).find((name) => name.endsWith(".deb"));
  if (archive && run("dpkg-deb", ["-x", join(folder, archive), folder])) {
    return { path: join(folder, LIBRARY_FOLDER, library.file), folder };
  }
  rmSync(folder, { recursive: true });
  return undefined;
}

function installLibraries() {
  for (const library of libraries) {
    const target = join(root, "ffi/native", library.file);
    if (existsSync(target)) continue;
    mkdirSync(dirname(target), { recursive: true });
    const installed = [LIBRARY_FOLDER, "/usr/lib64", "/usr/lib"]
      .map((folder) => join(folder, library.file))
      .find((path) => existsSync(path));
    let found = { path: installed, folder: undefined };
    if (installed === undefined) {
      say(`fetching ${library.name} from Debian for ${library.file}`);
      found = (hasApt && libraryFromPackage(library)) || found;
    }
    if (found.path === undefined) {
      fail(
        `${library.file} is missing`,
        isRoot
          ? `install it (Debian: apt-get install ${library.name}) and run this again`
          : `run as root: apt-get update && apt-get install ${library.name}`,
      );
    }
    // Renamed into place, so that nobody ever sees half a library.
    const partial = `${target}.${process.pid}`;
    copyFileSync(found.path, partial);
    renameSync(partial, target);
    if (found.folder !== undefined) rmSync(found.folder, { recursive: true });
    say(`ffi/native/${library.file} is in place`);
  }
}

// ------------------------------------------------------------------------------------------ main

const purposes = process.argv.slice(2);
const unknown = purposes.find((argument) => !(argument in packages));
if (unknown !== undefined) {
  fail(`unknown option ${unknown}`, `known: ${Object.keys(packages).join(" ")}`);
}
if (process.platform !== "linux" || process.arch !== "x64") {
  fail(`this is ${process.platform} on ${process.arch}`, "Trilith runs on x86-64 Linux");
}
installNpmPackages();
applyPatches();
installLibraries();
installDebianPackages(purposes);
if (purposes.includes("--test")) buildKubernetesPrograms(say);
if (purposes.includes("--test")) installCsiSanity(say);
