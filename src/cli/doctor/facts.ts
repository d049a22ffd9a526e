/** What `trilith doctor` finds out about a machine. Types only; `gather.ts` fills them in. */

/** Who listens on a port. */
export interface PortUser {
  /** Null: it belongs to somebody whose processes cannot be seen. */
  readonly pid: number | null;
  readonly command: string | null;
}

export interface Facts {
  /** `uname -r`. */
  readonly kernel: string;
  readonly nvmeTcp: "loaded" | "built in" | "available" | "missing";
  /** Of `nvme_core.multipath`; null: the module is not loaded. */
  readonly nvmeMultipath: boolean | null;
  /** The command `nvme` is installed. */
  readonly nvmeCli: boolean;
  /** Null: a ring with registered memory could be made; else why not. */
  readonly ioUringError: string | null;
  readonly hugePages: {
    readonly total: number;
    readonly free: number;
    readonly sizeBytes: number;
    /** `/sys/kernel/mm/transparent_hugepage/enabled`; null: unknown. */
    readonly transparent: "always" | "madvise" | "never" | null;
  };
  /** Limits of this process; null: none. */
  readonly memlockBytes: number | null;
  readonly openFiles: number | null;
  readonly memory: { readonly totalBytes: number; readonly availableBytes: number };
  readonly isRoot: boolean;
  /** By port: who listens there. Absent: it is free. */
  readonly listeners: ReadonlyMap<number, PortUser>;
  readonly disks: readonly {
    readonly path: string;
    readonly sizeBytes: number;
    readonly available: boolean;
    /** Why it is not available. */
    readonly reason: string;
  }[];
  readonly clock: {
    /** Null: nobody could be asked. */
    readonly synchronized: boolean | null;
    readonly by: string | null;
  };
  readonly firewall: {
    readonly kind: "none" | "firewalld" | "ufw" | "nftables" | "iptables" | "unknown";
    /** Ports that it lets in; null: it could not be told. */
    readonly openPorts: readonly number[] | null;
  };
  readonly dataDir: {
    readonly path: string;
    readonly exists: boolean;
    /** Permission bits, e.g. 0o750. */
    readonly mode: number;
    readonly freeBytes: number;
    readonly writable: boolean;
  };
}
