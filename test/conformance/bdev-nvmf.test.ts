/** The NVMe/TCP initiator, on the target in the same process, against the suite of block devices. */
import { openFileBdev } from "../../src/engine/bdev/file.ts";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import type { NvmfSettings } from "../../src/engine/bdev/nvmf/options.ts";
import { openBdev } from "../../src/engine/bdev/open.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { nodeHostNqn } from "../../src/names.ts";
import { canMakeLoopDevices, makeLoopDevice } from "../support/loop-device.ts";
import { type FixtureOptions, NQN, TargetFixture } from "../support/target.ts";
import { type BdevUnderTest, bdevConformance } from "./bdev-suite.ts";

const HOST = { nqn: nodeHostNqn("conformance"), id: "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9" };
const BYTES = 16 << 20;

async function overTcp(
  reactor: Reactor,
  fixture: FixtureOptions,
  parameters: string,
  nvmf: Partial<NvmfSettings> = {},
  dispose: () => void = () => {},
): Promise<BdevUnderTest> {
  const served = new TargetFixture(reactor, fixture);
  const { address, port } = served.address;
  const uri = `nvmf+tcp://${address}:${port}/${NQN}${parameters}`;
  const open = () => openBdev(reactor, uri, { host: HOST, nvmf });
  return {
    bdev: await open(),
    reopen: open,
    dispose: async () => {
      await served.close();
      dispose();
    },
  };
}

const memory = (blockSize: 512 | 4096) => (reactor: Reactor) =>
  openMemoryBdev(reactor, {
    driver: "malloc",
    name: "served",
    blockSize,
    blockCount: BYTES / blockSize,
    uuid: undefined,
  });

for (const blockSize of [512, 4096] as const) {
  bdevConformance(
    `nvmf, memory with blocks of ${blockSize}`,
    (reactor) => overTcp(reactor, { bdev: memory(blockSize) }, ""),
    { keepsData: true },
  );
}

bdevConformance(
  "nvmf with digests and three queues",
  (reactor) => overTcp(reactor, { bdev: memory(512) }, "?hdgst&ddgst&queues=3"),
  { keepsData: true },
);

bdevConformance(
  "nvmf with a short queue and small data PDUs",
  (reactor) => {
    const fixture = { bdev: memory(512), target: { h2cDataBytes: 4096 } };
    return overTcp(reactor, fixture, "?ddgst", { queueDepth: 3 });
  },
  { keepsData: true },
);

// Loop devices need root.
if (canMakeLoopDevices) {
  bdevConformance(
    "nvmf, loop device",
    (reactor) => {
      const loop = makeLoopDevice(BYTES);
      const uri = { driver: "uring", path: loop.path, blockSize: undefined } as const;
      const bdev = (on: Reactor) => openFileBdev(on, { ...uri, uuid: undefined });
      return overTcp(reactor, { bdev }, "", {}, () => loop.remove());
    },
    { keepsData: true },
  );
}
