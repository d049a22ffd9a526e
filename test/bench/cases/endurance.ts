/** Full load for a minute: does memory stay, does collection stop the data path, how late is the last. */
import { ARENA_BYTES_DEFAULT } from "../../../src/engine/reactor/limits.ts";
import type { Bench, Group } from "../bench.ts";
import { BenchEngine, mallocUri, nvmfUri } from "../engine.ts";
import { MEMORY_MIB } from "../limits.ts";
import { type Load, perfLoad, type Sample, type Subsystem, trilithLoad } from "../loads.ts";
import { freePorts } from "../machine.ts";
import { pairedRow, plainRow } from "../rows.ts";
import { mallocCall, type Spdk, subsystemCalls, transportCalls } from "../spdk.ts";

const TARGET_MIB = 1024;
const load: Load = { pattern: "randrw", blockBytes: 4096, depth: 128 };
/** How often the heaps are looked at, as a control plane's heartbeat would. */
const LOOK_MS = 500;
/** Looks at the beginning, while code is being compiled, that do not count. */
const LOOKS_SKIPPED = 4;
/** A reactor's heap counts its arena in, so it is larger than this. */
const ARENA_KIB = ARENA_BYTES_DEFAULT / 1024;
const PREFIX = "full load 4k randrw qd 128";

const names = {
  iops: `${PREFIX}, rate`,
  p99: `${PREFIX}, p99`,
  p999: `${PREFIX}, p99.9`,
  heap: `${PREFIX}, growth of the reactor's heap`,
  pause: `${PREFIX}, longest pause for collection`,
  pauses: `${PREFIX}, pauses for collection`,
  stalls: `${PREFIX}, turns over 20 ms`,
} as const;

async function measure(bench: Bench, spdk: Spdk | null, at: Subsystem): Promise<Sample> {
  const { enduranceSeconds } = bench.options.pace;
  if (spdk === null) {
    const uri = nvmfUri(at);
    return await trilithLoad(bench.options.executable, uri, load, enduranceSeconds, bench.load);
  }
  const options = { ...spdk.perf, percentiles: true };
  return await perfLoad(options, at, load, enduranceSeconds, bench.load);
}

interface Look {
  readonly heapBytes: number;
  readonly stalls: number;
}

async function look(engine: BenchEngine): Promise<Look> {
  const [reactor] = (await engine.rpc.getUsage()).reactors;
  return { heapBytes: reactor!.heapBytes, stalls: reactor!.stalls };
}

/** Looks at the engine every half second until `done`. */
async function watch(engine: BenchEngine, done: Promise<unknown>): Promise<Look[]> {
  const looks: Look[] = [];
  let ended = false;
  const end = () => {
    ended = true;
  };
  done.then(end, end);
  while (!ended) {
    looks.push(await look(engine));
    await Bun.sleep(LOOK_MS);
  }
  return looks;
}

async function measureSpdk(bench: Bench, spdk: Spdk): Promise<Sample> {
  const [port] = freePorts(1) as [number];
  const at = { address: "127.0.0.1", port, nqn: "nqn.2019-05.io.openebs:spdk" };
  const device = mallocCall("Malloc0", MEMORY_MIB);
  const calls = [...transportCalls, device, ...subsystemCalls("Malloc0", at, 1)];
  const target = await spdk.startTarget(TARGET_MIB, bench.server, calls);
  try {
    return await measure(bench, spdk, at);
  } finally {
    await target.stop();
  }
}

/** Rows that a peer has too. */
function addSamples(bench: Bench, ours: Sample, theirs: Sample | null): void {
  const values = [
    { name: names.iops, unit: "IOPS", of: (sample: Sample) => sample.iops },
    { name: names.p99, unit: "us", of: (sample: Sample) => sample.p99Us },
    { name: names.p999, unit: "us", of: (sample: Sample) => sample.p999Us },
  ];
  for (const { name, unit, of } of values) {
    const value = of(ours);
    const peer = theirs === null ? null : of(theirs);
    if (!bench.wants(name) || value === null) continue;
    const frame = { case: name, unit };
    if (peer === null) bench.add(plainRow(frame, value));
    else bench.add(pairedRow(frame, "SPDK", [value], [peer]));
  }
}

async function runOurs(bench: Bench, spdk: Spdk | null): Promise<Sample> {
  const { server: place, folder } = bench;
  const { executable } = bench.options;
  const engine = await BenchEngine.start({ executable, place, folder, logCollections: true });
  try {
    const { at } = await engine.serveDevice(mallocUri("full", MEMORY_MIB));
    const before = engine.collections().length;
    const done = measure(bench, spdk, at);
    const looks = await watch(engine, done);
    const sample = await done;
    const collections = engine.collections().slice(before);
    const settled = looks.slice(LOOKS_SKIPPED);
    const heaps = settled.map(({ heapBytes }) => heapBytes);
    const plain = (name: string, unit: string, value: number, atMost?: number): void => {
      if (!bench.wants(name)) return;
      const aim = atMost === undefined ? {} : { aim: { atMost } };
      bench.add(plainRow({ case: name, unit, ...aim }, value));
    };
    plain(names.heap, "KiB", (heaps.at(-1)! - heaps[0]!) / 1024);
    // The main thread has a heap of its own, whose collections do not stop the data path.
    const pauses = collections
      .filter(({ heapKib }) => heapKib >= ARENA_KIB)
      .map(({ pauseMs }) => pauseMs);
    plain(names.pause, "ms", Math.max(0, ...pauses), 2);
    plain(names.pauses, "", pauses.length);
    plain(names.stalls, "", settled.at(-1)!.stalls - settled[0]!.stalls);
    return sample;
  } finally {
    await engine.stop();
  }
}

async function run(bench: Bench): Promise<void> {
  await bench.withSpdk(TARGET_MIB, async (spdk) => {
    const ours = await runOurs(bench, spdk);
    const theirs = spdk === null ? null : await measureSpdk(bench, spdk);
    addSamples(bench, ours, theirs);
  });
}

export const endurance: Group = { rows: Object.values(names), run };
