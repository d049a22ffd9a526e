/**
 * Installs csi-sanity, the Kubernetes project's own test of CSI drivers, at a pinned version. Plain Node
 * without packages. The result is kept in `node_modules/.cache/csi-sanity`.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const MODULE = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity";
const VERSION = "v5.6.0";
const cache = join(root, "node_modules/.cache/csi-sanity");
const folder = join(cache, VERSION);

/** Path of the program; null when it has not been installed. */
export function csiSanity() {
  const path = join(folder, "csi-sanity");
  return existsSync(path) ? path : null;
}

/** Installs it when it is not there. False: there is no Go, or it failed; `say` has told why. */
export function installCsiSanity(say) {
  if (csiSanity() !== null) return true;
  if (spawnSync("go", ["version"], { stdio: "ignore" }).status !== 0) {
    say("no Go here: csi-sanity is skipped");
    return false;
  }
  say(`building csi-sanity ${VERSION} (once)`);
  const partial = `${folder}.${process.pid}`;
  mkdirSync(partial, { recursive: true });
  // Static, so that it runs in a guest as well.
  const built = spawnSync("nice", ["go", "install", "-trimpath", `${MODULE}@${VERSION}`], {
    stdio: ["ignore", 2, 2],
    env: { ...process.env, CGO_ENABLED: "0", GOBIN: partial },
  });
  if (built.status !== 0) {
    rmSync(partial, { recursive: true });
    say("csi-sanity could not be built: it is skipped");
    return false;
  }
  renameSync(partial, folder);
  for (const name of readdirSync(cache)) {
    if (name !== VERSION) rmSync(join(cache, name), { recursive: true, force: true });
  }
  return true;
}
