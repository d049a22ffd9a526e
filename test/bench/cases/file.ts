/** A file device with O_DIRECT: through the whole engine, and as the executable's own device. */
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type Bench, type Group, iops, type Side } from "../bench.ts";
import { withEngine } from "../engine.ts";
import { fioFile, type Load, loadName, type Subsystem, trilithLoad } from "../loads.ts";
import { freePorts } from "../machine.ts";
import { oursOverTcp, spdkOverTcp } from "../sides.ts";
import { type Spdk, subsystemCalls, transportCalls } from "../spdk.ts";

const TARGET_MIB = 768;
const BLOCK_BYTES = 4096;

const loads: readonly Load[] = (["randread", "randwrite"] as const).flatMap((pattern) =>
  [1, 32].map((depth) => ({ pattern, blockBytes: BLOCK_BYTES, depth })),
);

const servedName = (load: Load): string => `file ${loadName(load)}`;
const directName = (load: Load): string => `file without target ${loadName(load)}`;

/** A file all of whose blocks are written, so that no allocation is measured. */
function writeFile(path: string, mib: number): void {
  const block = crypto.getRandomValues(Buffer.alloc(1 << 16));
  const piece = Buffer.concat(Array.from({ length: 16 }, () => block));
  const fd = openSync(path, "w");
  try {
    for (let i = 0; i < mib; i++) writeSync(fd, piece);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** fio on the file itself, on the core that servers run on. */
function rawSide(bench: Bench, path: string): Side {
  return {
    name: "fio io_uring",
    measure: (load, seconds) => fioFile(path, load, seconds, bench.server, bench.folder),
    aimOf: ({ depth }) => (depth === 32 ? { atLeast: 0.94 } : undefined),
  };
}

/** Sides of SPDK's two file devices, each in a target of its own. */
async function withSpdkFiles(
  bench: Bench,
  spdk: Spdk | null,
  path: string,
  use: (sides: Side[]) => Promise<void>,
): Promise<void> {
  if (spdk === null) {
    await use([]);
    return;
  }
  const sides: Side[] = [];
  const stops: (() => Promise<void>)[] = [];
  try {
    for (const driver of ["aio", "uring"]) {
      const [port] = freePorts(1) as [number];
      const nqn = `nqn.2019-05.io.openebs:spdk-${driver}`;
      const at: Subsystem = { address: "127.0.0.1", port, nqn };
      const params = { name: "File0", filename: path, block_size: BLOCK_BYTES };
      const target = await spdk.startTarget(TARGET_MIB / 2, bench.server, [
        ...transportCalls,
        { method: `bdev_${driver}_create`, params },
        ...subsystemCalls("File0", at, 1),
      ]);
      stops.push(target.stop);
      sides.push(spdkOverTcp(bench, spdk, target, at, `SPDK ${driver}`));
    }
    await use(sides);
  } finally {
    for (const stop of stops) await stop();
  }
}

async function runServed(bench: Bench, path: string): Promise<void> {
  await bench.withSpdk(TARGET_MIB, (spdk) =>
    withEngine(bench, async (engine) => {
      const { at } = await engine.serveDevice(`uring://${path}?blk_size=${BLOCK_BYTES}`);
      const ours = oursOverTcp(bench, spdk, at);
      await withSpdkFiles(bench, spdk, path, async (peers) => {
        const sides = [ours, rawSide(bench, path), ...peers] as const;
        for (const load of loads) await bench.compare(servedName(load), iops, load, sides);
      });
    }),
  );
}

async function runDirect(bench: Bench, path: string): Promise<void> {
  const uri = `uring://${path}?blk_size=${BLOCK_BYTES}`;
  const ours: Side = {
    name: "ours",
    measure: (load, seconds) =>
      trilithLoad(bench.options.executable, uri, load, seconds, bench.server),
  };
  for (const load of loads) {
    await bench.compare(directName(load), iops, load, [ours, rawSide(bench, path)]);
  }
}

async function run(shared: Bench): Promise<void> {
  // Completions of direct I/O need the kernel's workers, which real-time load would keep waiting.
  const bench = shared.withoutRealtime();
  const path = join(bench.options.folder, `trilith-bench-${process.pid}.img`);
  try {
    writeFile(path, bench.options.pace.fileMib);
    if (loads.some((load) => bench.wants(servedName(load)))) await runServed(bench, path);
    if (loads.some((load) => bench.wants(directName(load)))) await runDirect(bench, path);
  } finally {
    rmSync(path, { force: true });
  }
}

export const file: Group = { rows: [...loads.map(servedName), ...loads.map(directName)], run };
