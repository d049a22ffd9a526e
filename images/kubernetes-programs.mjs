/**
 * Builds the programs of Kubernetes that the tests run: API server, controllers, and the CSI sidecars,
 * at the versions that `test/kubernetes/programs/go.mod` pins. Plain Node without packages. Takes some
 * minutes the first time; the result is kept in `node_modules/.cache/kubernetes`.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const moduleFolder = join(root, "test/kubernetes/programs");
const cache = join(root, "node_modules/.cache/kubernetes");

const packages = [
  "k8s.io/kubernetes/cmd/kube-apiserver",
  "k8s.io/kubernetes/cmd/kube-controller-manager",
  "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
  "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher",
  "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
];

/** Without optimisation and debug information: that halves the time, and tests do not need it. */
const flags = ["-trimpath", "-ldflags=-s -w", "-gcflags=all=-N -l"];

/** Changes with the versions. */
function key() {
  const hash = createHash("sha256").update(flags.join(" "));
  for (const name of ["go.mod", "go.sum"]) hash.update(readFileSync(join(moduleFolder, name)));
  return hash.digest("hex").slice(0, 12);
}

/** Folder of the programs; null when they have not been built. */
export function kubernetesPrograms() {
  const folder = join(cache, key());
  return existsSync(folder) ? folder : null;
}

/** Builds them when they are not there. False: there is no Go, or it failed; `say` has told why. */
export function buildKubernetesPrograms(say) {
  if (kubernetesPrograms() !== null) return true;
  if (spawnSync("go", ["version"], { stdio: "ignore" }).status !== 0) {
    say("no Go here: the tests with a real Kubernetes API server are skipped");
    return false;
  }
  say("building Kubernetes' API server, controllers and CSI sidecars (some minutes, once)");
  mkdirSync(cache, { recursive: true });
  const folder = join(cache, key());
  const partial = `${folder}.${process.pid}`;
  mkdirSync(partial, { recursive: true });
  const built = spawnSync("nice", ["go", "build", ...flags, "-o", `${partial}/`, ...packages], {
    cwd: moduleFolder,
    stdio: ["ignore", 2, 2],
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "-mod=readonly" },
  });
  if (built.status !== 0) {
    rmSync(partial, { recursive: true });
    say("they could not be built: the tests with a real Kubernetes API server are skipped");
    return false;
  }
  // Whole or not at all; those of other versions are no longer needed.
  renameSync(partial, folder);
  for (const name of readdirSync(cache)) {
    if (name !== key() && !name.startsWith(`${key()}.`)) {
      rmSync(join(cache, name), { recursive: true, force: true });
    }
  }
  return true;
}
