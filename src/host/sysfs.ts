/** Reads what `kernel-view.ts` understands out of `/sys`. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { SysfsTree } from "./kernel-view.ts";

const controllerFiles = ["subsysnqn", "transport", "address", "state", "hostnqn", "hostid"];
const namespaceFiles = ["ana_state", "uuid", "size", "dev"];

/** Names in a folder; none when it is not there (any more). */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Attributes of all NVMe controllers and subsystems. `root`: where sysfs is mounted. */
export function readSysfs(root = "/sys"): SysfsTree {
  const tree = new Map<string, string>();
  const classes = join(root, "class");
  const take = (path: string): void => {
    try {
      tree.set(path, readFileSync(join(classes, path), "utf8"));
    } catch {
      // Not every kernel has every attribute, and controllers go while they are read.
    }
  };
  const takeNamespaces = (folder: string): void => {
    for (const name of namesIn(join(classes, folder))) {
      if (!/^nvme\d+(c\d+)?n\d+$/.test(name)) continue;
      for (const file of namespaceFiles) take(`${folder}/${name}/${file}`);
    }
  };
  for (const name of namesIn(join(classes, "nvme"))) {
    if (!/^nvme\d+$/.test(name)) continue;
    for (const file of controllerFiles) take(`nvme/${name}/${file}`);
    takeNamespaces(`nvme/${name}`);
  }
  for (const name of namesIn(join(classes, "nvme-subsystem"))) {
    take(`nvme-subsystem/${name}/subsysnqn`);
    takeNamespaces(`nvme-subsystem/${name}`);
  }
  return tree;
}
