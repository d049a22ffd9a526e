/** Kernels as the agent of a host sees them: recorded attributes of sysfs, and a kernel that is only played. */
import type { FabricsConnection } from "../../src/host/fabrics.ts";
import type { VolumePath } from "../../src/host/host.ts";
import type { HostKernel } from "../../src/host/kernel.ts";
import {
  type KernelController,
  type KernelView,
  parseKernelView,
  type SysfsTree,
} from "../../src/host/kernel-view.ts";

export const VOLUME = "2c5789a0-2770-4c07-8531-7042f3ef2849";
export const NQN = `nqn.2019-05.io.openebs:${VOLUME}`;
export const HOST_ID = "1f2ebcc4-5619-4a21-9828-9fcae73bae40";
export const HOST_NQN = `nqn.2014-08.org.nvmexpress:uuid:${HOST_ID}`;

/** Attributes of a text of lines `path value`; paths are below `/sys/class`. */
export function treeOf(text: string): SysfsTree {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return new Map(
    lines.map((line) => {
      const space = line.trim().indexOf(" ");
      return [line.trim().slice(0, space), `${line.trim().slice(space + 1)}\n`];
    }),
  );
}

/** Debian 12 (Linux 6.1) with a volume over three paths, of which the first serves; recorded. */
export const THREE_PATHS = treeOf(`
  nvme/nvme0/subsysnqn ${NQN}
  nvme/nvme0/transport tcp
  nvme/nvme0/address traddr=127.222.180.1,trsvcid=8420,src_addr=10.0.2.15
  nvme/nvme0/state live
  nvme/nvme0/hostnqn ${HOST_NQN}
  nvme/nvme0/hostid ${HOST_ID}
  nvme/nvme0/nvme0c0n1/ana_state optimized
  nvme/nvme0/nvme0c0n1/uuid ${VOLUME}
  nvme/nvme0/nvme0c0n1/size 131072
  nvme/nvme1/subsysnqn ${NQN}
  nvme/nvme1/transport tcp
  nvme/nvme1/address traddr=127.222.180.2,trsvcid=8420,src_addr=10.0.2.15
  nvme/nvme1/state live
  nvme/nvme1/hostnqn ${HOST_NQN}
  nvme/nvme1/hostid ${HOST_ID}
  nvme/nvme1/nvme0c1n1/ana_state inaccessible
  nvme/nvme1/nvme0c1n1/uuid ${VOLUME}
  nvme/nvme1/nvme0c1n1/size 131072
  nvme/nvme10/subsysnqn ${NQN}
  nvme/nvme10/transport tcp
  nvme/nvme10/address traddr=127.222.180.3,trsvcid=8420
  nvme/nvme10/state connecting
  nvme/nvme10/hostnqn ${HOST_NQN}
  nvme/nvme10/hostid ${HOST_ID}
  nvme/nvme10/nvme0c10n1/ana_state inaccessible
  nvme/nvme10/nvme0c10n1/uuid ${VOLUME}
  nvme/nvme10/nvme0c10n1/size 131072
  nvme-subsystem/nvme-subsys0/subsysnqn ${NQN}
  nvme-subsystem/nvme-subsys0/nvme0n1/uuid ${VOLUME}
  nvme-subsystem/nvme-subsys0/nvme0n1/size 131072
  nvme-subsystem/nvme-subsys0/nvme0n1/dev 259:1
`);

export const threePaths = (): KernelView => parseKernelView(THREE_PATHS);

/** A controller of the volume. */
export function controller(
  name: string,
  path: VolumePath,
  changes: Partial<KernelController> = {},
): KernelController {
  const namespace = {
    name: `${name}c0n1`,
    uuid: VOLUME,
    ana: "optimized",
    sizeBytes: 1 << 26,
  } as const;
  return {
    name,
    nqn: NQN,
    transport: "tcp",
    ...path,
    state: "live",
    hostNqn: HOST_NQN,
    hostId: HOST_ID,
    namespaces: [namespace],
    ...changes,
  };
}

/** A kernel that connects what it can reach, and tells at once what changes. */
export class PlayedKernel implements HostKernel {
  readonly controllers = new Map<string, KernelController>();
  /** Addresses at which nobody answers, with what connecting to them throws. */
  readonly unreachable = new Map<string, Error>();
  readonly connections: FabricsConnection[] = [];
  readonly removed: string[] = [];
  inUse: readonly string[] = [];
  sizeBytes = 1 << 26;
  /** The kernel lacks what connecting takes. */
  missing: Error | null = null;
  #count = 0;
  #changed: () => void = () => {};

  async prepare(): Promise<void> {
    if (this.missing !== null) throw this.missing;
  }

  view(): KernelView {
    const controllers = [...this.controllers.values()];
    const nqns = [...new Set(controllers.map(({ nqn }) => nqn))];
    const disks = nqns.map((nqn, i) => ({
      name: `nvme${i}n1`,
      nqn,
      uuid: controllers.find((one) => one.nqn === nqn)!.namespaces[0]!.uuid,
      sizeBytes: this.sizeBytes,
      dev: `259:${i}`,
    }));
    return { controllers, disks };
  }

  hostId(): string {
    return HOST_ID;
  }

  async connect(connection: FabricsConnection): Promise<string> {
    this.connections.push(connection);
    const error = this.unreachable.get(connection.address);
    if (error !== undefined) throw error;
    const name = `nvme${this.#count++}`;
    const { nqn, address, port, hostNqn } = connection;
    const uuid = nqn.slice(nqn.lastIndexOf(":") + 1);
    const namespaces = [
      { name: `${name}c0n1`, uuid, ana: "optimized" as const, sizeBytes: 1 << 26 },
    ];
    this.set(controller(name, { address, port }, { nqn, hostNqn, namespaces }));
    return name;
  }

  async remove(name: string): Promise<void> {
    this.removed.push(name);
    this.controllers.delete(name);
    this.#changed();
  }

  async rescan(): Promise<void> {}

  async users(): Promise<readonly string[]> {
    return this.inUse;
  }

  deviceFile(disk: string): string | null {
    return `/dev/${disk}`;
  }

  watch(changed: () => void) {
    this.#changed = changed;
    return { ended: new Promise<void>(() => {}), stop: () => {} };
  }

  /** Puts a controller there, or changes it. */
  set(one: KernelController): void {
    this.controllers.set(one.name, one);
    this.#changed();
  }

  /** As when the kernel gives a controller up. */
  drop(name: string): void {
    this.controllers.delete(name);
    this.#changed();
  }

  /** Names of the controllers, by address. */
  at(address: string): string[] {
    return [...this.controllers.values()]
      .filter((one) => one.address === address)
      .map(({ name }) => name);
  }
}
