/**
 * SPDK from a given build directory: its target, configured over its JSON-RPC socket, and what its
 * initiator needs to run. Huge pages are reserved while it is in use and given back afterwards.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HUGE_SPARE_MIB, MEMORY_KEPT_MIB, PERF_MIB, START_TIMEOUT_MS } from "./limits.ts";
import type { PerfOptions, Subsystem } from "./loads.ts";
import { availableMib, freeHugeMib } from "./machine.ts";
import { type Place, runProgram, Service } from "./processes.ts";

const HUGE_PAGE_MIB = 2;
const NR_HUGE_PAGES = "/proc/sys/vm/nr_hugepages";
const MARK_PREFIX = "trilith-bench-huge-";

/** One call to be made of the target. */
export interface RpcCall {
  readonly method: string;
  readonly params?: Readonly<Record<string, unknown>>;
}

/** Makes one call over the target's socket. Rejects with what SPDK says is wrong. */
function rpc(socket: string, { method, params }: RpcCall): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let text = "";
    const connection = createConnection({ path: socket });
    connection.on("error", reject);
    connection.on("close", () => reject(new Error(`${method}: SPDK closed the connection`)));
    connection.on("data", (bytes) => {
      text += bytes.toString();
      let answer: { result?: unknown; error?: { message: string } };
      try {
        answer = JSON.parse(text);
      } catch {
        return; // Not whole yet.
      }
      if (answer.error === undefined) resolve(answer.result);
      else reject(new Error(`${method}: ${answer.error.message}`));
      connection.destroy();
    });
    connection.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
  });
}

function hugePages(): number {
  return Number(readFileSync(NR_HUGE_PAGES, "utf8"));
}

/** Gives back what benchmarks reserved that were ended before they could. */
function sweepHugePages(): void {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(MARK_PREFIX)) continue;
    const path = join(tmpdir(), name);
    if (existsSync(`/proc/${name.slice(MARK_PREFIX.length)}`)) continue;
    const pages = Number(readFileSync(path, "utf8"));
    writeFileSync(NR_HUGE_PAGES, String(Math.max(0, hugePages() - pages)));
    rmSync(path);
  }
}

/** Huge pages of this process: reserved, mounted for DPDK, and given back at the end. */
class HugePages {
  readonly #mount: string;
  readonly #mark = join(tmpdir(), MARK_PREFIX + process.pid);
  #pages = 0;

  constructor(folder: string) {
    this.#mount = join(folder, "huge");
  }

  /** Has at least `mib` more MiB reserved. False when the machine does not give them. */
  reserve(mib: number): boolean {
    const pages = mib / HUGE_PAGE_MIB;
    const before = hugePages();
    if (availableMib() < mib + MEMORY_KEPT_MIB) return false;
    try {
      writeFileSync(this.#mark, String(this.#pages + pages));
      writeFileSync(NR_HUGE_PAGES, String(before + pages));
      if (hugePages() < before + pages) throw new Error("not enough memory in one piece");
      this.#pages += pages;
      this.#mountOnce();
      return true;
    } catch {
      writeFileSync(this.#mark, String(this.#pages));
      if (hugePages() > before) writeFileSync(NR_HUGE_PAGES, String(before));
      return false;
    }
  }

  /** Reserves what others have taken of the `mib` that something about to start needs. */
  topUp(mib: number): void {
    const missing = mib - freeHugeMib();
    if (missing > 0) this.reserve(missing + HUGE_SPARE_MIB / 2);
  }

  #mountOnce(): void {
    if (existsSync(this.#mount)) return;
    mkdirSync(this.#mount);
    const options = ["-t", "hugetlbfs", "-o", "pagesize=2M", "none", this.#mount];
    const mounted = Bun.spawnSync(["mount", ...options]);
    if (mounted.exitCode === 0) return;
    rmSync(this.#mount, { recursive: true });
    throw new Error(mounted.stderr.toString());
  }

  giveBack(): void {
    if (existsSync(this.#mount)) {
      Bun.spawnSync(["umount", "--lazy", this.#mount]);
      rmSync(this.#mount, { recursive: true, force: true });
    }
    if (this.#pages > 0) {
      writeFileSync(NR_HUGE_PAGES, String(Math.max(0, hugePages() - this.#pages)));
    }
    this.#pages = 0;
    rmSync(this.#mark, { force: true });
  }
}

export class Spdk {
  readonly #bin: string;
  readonly #folder: string;
  readonly #env: Record<string, string>;
  readonly #huge: HugePages;
  /** Whether huge pages were to be had; with ordinary pages SPDK is a little slower. */
  readonly usesHugePages: boolean;

  /** `build` is the directory SPDK was built in; `folder` holds what it writes. */
  constructor(build: string, folder: string, targetMib: number) {
    this.#bin = join(build, "build/bin");
    for (const name of ["nvmf_tgt", "spdk_nvme_perf"]) {
      const path = join(this.#bin, name);
      if (!existsSync(path)) throw new Error(`${path} is missing: is SPDK built there?`);
    }
    this.#folder = folder;
    this.#env = { RUNTIME_DIRECTORY: folder, XDG_RUNTIME_DIR: folder };
    sweepHugePages();
    this.#huge = new HugePages(folder);
    this.usesHugePages = this.#huge.reserve(targetMib + PERF_MIB + HUGE_SPARE_MIB);
    // Before the folder is removed that the huge pages are mounted in.
    process.prependListener("exit", this.#giveBack);
  }

  readonly #giveBack = (): void => this.#huge.giveBack();

  #memoryArguments(): string[] {
    return this.usesHugePages ? [] : ["--no-huge"];
  }

  /** Others on the machine may have taken huge pages that were reserved here. */
  #prepare(mib: number): void {
    if (this.usesHugePages) this.#huge.topUp(mib);
  }

  /** What `perfLoad` needs. */
  get perf(): PerfOptions {
    return {
      prepare: () => this.#prepare(PERF_MIB),
      program: join(this.#bin, "spdk_nvme_perf"),
      memoryArguments: this.#memoryArguments(),
      env: this.#env,
    };
  }

  /** First line of what SPDK says it is. */
  async version(place: Place): Promise<string> {
    const text = await runProgram([join(this.#bin, "nvmf_tgt"), "--version"], place, 10_000);
    return text.trim().split("\n")[0]!;
  }

  /** Starts a target and makes `calls`; `before` are made in this order when it is stopped. */
  async startTarget(
    mib: number,
    place: Place,
    calls: readonly RpcCall[],
    before: readonly RpcCall[] = [],
  ): Promise<SpdkTarget> {
    const socket = join(this.#folder, `spdk-${Date.now()}.sock`);
    const mask = `0x${(1n << BigInt(place.core)).toString(16)}`;
    const command = [join(this.#bin, "nvmf_tgt"), ...this.#memoryArguments(), "-s", String(mib)];
    command.push("-m", mask, "-r", socket, "--no-pci", "--disable-cpumask-locks");
    command.push("--num-trace-entries", "0");
    this.#prepare(mib);
    const service = new Service("nvmf_tgt", command, place, this.#folder, this.#env);
    try {
      const answers = () => rpc(socket, { method: "spdk_get_version" }).then(Boolean, () => false);
      await service.serves(answers, START_TIMEOUT_MS, 1);
      for (const call of calls) await rpc(socket, call);
    } catch (error) {
      await service.stop();
      throw error;
    }
    return { service, stop: () => stopTarget(service, socket, before) };
  }

  /** Gives the huge pages back. Everything that uses them has ended. */
  close(): void {
    process.off("exit", this.#giveBack);
    this.#huge.giveBack();
  }
}

export interface SpdkTarget {
  readonly service: Service;
  stop(): Promise<void>;
}

async function stopTarget(
  service: Service,
  socket: string,
  before: readonly RpcCall[],
): Promise<void> {
  service.resume();
  for (const call of before) await rpc(socket, call).catch(() => {});
  await service.stop();
}

/** Calls that make the NVMe/TCP transport, which come before any subsystem. */
export const transportCalls: readonly RpcCall[] = [
  { method: "nvmf_create_transport", params: { trtype: "TCP" } },
];

/** Calls that serve a device as a subsystem. `index` makes its identifiers differ from others'. */
export function subsystemCalls(device: string, at: Subsystem, index: number): RpcCall[] {
  const { nqn, address, port } = at;
  const tail = String(index).padStart(12, "0");
  return [
    {
      method: "nvmf_create_subsystem",
      params: { nqn, allow_any_host: true, serial_number: `SPDK${tail}` },
    },
    {
      method: "nvmf_subsystem_add_ns",
      params: {
        nqn,
        // Identifiers of their own: the device's would clash with those of whoever mirrors it here.
        namespace: {
          bdev_name: device,
          uuid: `5bdc0000-0000-4000-8000-${tail}`,
          nguid: `5BDC0000000040008000${tail}`,
        },
      },
    },
    {
      method: "nvmf_subsystem_add_listener",
      params: {
        nqn,
        listen_address: { trtype: "TCP", adrfam: "ipv4", traddr: address, trsvcid: String(port) },
      },
    },
  ];
}

/** A memory device of SPDK. */
export function mallocCall(name: string, mib: number): RpcCall {
  const params = { name, num_blocks: (mib << 20) / 512, block_size: 512 };
  return { method: "bdev_malloc_create", params };
}
