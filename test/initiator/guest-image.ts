/**
 * The guest: Debian's kernel and an initial file system with nvme-cli, fio, file system tools and
 * what they need. Built once per machine from Debian packages that `apt-get` downloads; nothing is
 * installed. Keeps its files in `$XDG_CACHE_HOME/trilith-initiator`, or in
 * `node_modules/.cache/initiator` without that variable.
 *
 *   bun test/initiator/guest-image.ts [kernel package]      builds it beforehand
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { buildGuestImage } from "./guest-image-build.ts";
import { IMAGE_BUILD_TIMEOUT_MS, IMAGE_KEPT_MS } from "./limits.ts";

/** Debian 12's kernel, 6.1. In-band authentication and TLS begin with linux-image-6.12-cloud-amd64. */
export const KERNEL_DEFAULT = "linux-image-cloud-amd64";

/** Paths of a built image. */
export interface GuestImage {
  readonly kernel: string;
  readonly initramfs: string;
}

const root = join(import.meta.dir, "../..");

function cacheFolder(): string {
  const xdg = process.env.XDG_CACHE_HOME;
  if (xdg !== undefined && xdg !== "") return join(xdg, "trilith-initiator");
  return join(root, "node_modules/.cache/initiator");
}

/** Changes whenever the builder does, so that an image of an older one is not used. */
function imageKey(): string {
  const hash = createHash("sha256");
  for (const name of ["guest-image-build.ts", "guest-packages.ts", "cpio.ts"]) {
    hash.update(readFileSync(join(import.meta.dir, name)));
  }
  return hash.digest("hex").slice(0, 12);
}

function imageAt(folder: string): GuestImage | undefined {
  const image = { kernel: join(folder, "vmlinuz"), initramfs: join(folder, "initramfs.cpio") };
  return existsSync(image.kernel) && existsSync(image.initramfs) ? image : undefined;
}

/** The image with the given kernel; builds it first when it is not there. */
export async function guestImage(kernelPackage: string = KERNEL_DEFAULT): Promise<GuestImage> {
  const cache = cacheFolder();
  const folder = join(cache, `${kernelPackage}-${imageKey()}`);
  const present = imageAt(folder);
  if (present !== undefined) return present;
  mkdirSync(cache, { recursive: true });
  // Of several test processes one builds, the others wait for the lock and find the result.
  const builder = Bun.spawn(
    ["flock", join(cache, "lock"), process.execPath, import.meta.path, kernelPackage],
    { stdio: ["ignore", "inherit", "inherit"], timeout: IMAGE_BUILD_TIMEOUT_MS },
  );
  const status = await builder.exited;
  const built = imageAt(folder);
  if (status !== 0 || built === undefined) {
    throw new Error(`building the guest image failed (status ${status}); see its messages above`);
  }
  return built;
}

/**
 * Builds the image under its final name and drops images of older builders. Those of the last days stay:
 * another checkout that shares the cache may use them.
 */
function buildInPlace(kernelPackage: string): void {
  const cache = cacheFolder();
  const name = `${kernelPackage}-${imageKey()}`;
  if (imageAt(join(cache, name)) !== undefined) return;
  mkdirSync(cache, { recursive: true });
  buildGuestImage(kernelPackage, join(cache, "packages"), join(cache, name));
  for (const other of readdirSync(cache)) {
    if (!other.startsWith(`${kernelPackage}-`) || other === name) continue;
    const ageMs = Date.now() - statSync(join(cache, other)).mtimeMs;
    if (ageMs > IMAGE_KEPT_MS) rmSync(join(cache, other), { recursive: true });
  }
}

if (import.meta.main) {
  buildInPlace(process.argv[2] ?? KERNEL_DEFAULT);
}
