/** A controller that sends garbage now and then: nothing crashes, hangs, or is believed. */
import { describe, expect, test } from "bun:test";
import type { NvmfBdev } from "../../../../../src/engine/bdev/nvmf/nvmf-bdev.ts";
import { IoOp } from "../../../../../src/engine/reactor/io-table.ts";
import { IoStatus } from "../../../../../src/errors.ts";
import { type Random, withSeed } from "../../../../support/random.ts";
import { pattern, type Setting, withFakeTarget } from "./setting.ts";

const PART = 256 << 10;
const PARTS = 6;

/** One of the ways in which bytes go wrong. */
function mangled(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  const at = random.below(copy.byteLength);
  switch (random.below(6)) {
    case 0:
      copy[at] = copy[at]! ^ (1 << random.below(8));
      return copy;
    case 1:
      // In the header: lengths, types, ids.
      copy[random.below(Math.min(28, copy.byteLength))] = random.below(256);
      return copy;
    case 2:
      return copy.subarray(0, at);
    case 3:
      return new Uint8Array(Buffer.concat([copy, copy]));
    case 4:
      return new Uint8Array(Buffer.concat([random.bytes(random.between(1, 64)), copy]));
    default:
      return new Uint8Array(0);
  }
}

/** Reads and writes parts of the device at random; what reads OK must be what was written. */
async function work(s: Setting, bdev: NvmfBdev, random: Random, part: number, trusted: boolean) {
  const blockSize = bdev.blockSize;
  const base = part * PART;
  const model = new Uint8Array(s.target.memory.subarray(base, base + PART));
  const uncertain = new Uint8Array(PART / blockSize);
  const answers = new Set<number>();
  for (let i = 0; i < 30; i++) {
    const from = random.below(PART / blockSize - 1);
    const blocks = random.between(1, Math.min(PART / blockSize - from, 200));
    const at = from * blockSize;
    const length = blocks * blockSize;
    if (random.chance(0.5)) {
      const bytes = pattern(length, random.below(1000));
      const { status } = await s.run(bdev, IoOp.WRITE, base + at, bytes);
      answers.add(status);
      model.set(bytes, at);
      uncertain.fill(status === IoStatus.OK ? 0 : 1, from, from + blocks);
    } else {
      const { status, bytes } = await s.run(bdev, IoOp.READ, base + at, length);
      answers.add(status);
      if (status !== IoStatus.OK || !trusted) continue;
      for (let block = 0; block < blocks; block++) {
        if (uncertain[from + block] === 1) continue;
        const got = bytes.subarray(block * blockSize, (block + 1) * blockSize);
        const want = model.subarray(at + block * blockSize, at + (block + 1) * blockSize);
        expect([base + at, block, Buffer.compare(got, want)]).toEqual([base + at, block, 0]);
      }
    }
  }
  return answers;
}

async function fuzz(s: Setting, random: Random, parameters: string, trusted: boolean) {
  const bdev = await s.open(
    {
      onLoss: "retry",
      ioTimeoutMs: 50,
      abortGraceMs: 20,
      adminTimeoutMs: 200,
      connectTimeoutMs: 200,
      reconnectDelayMaxMs: 2,
    },
    parameters,
  );
  let sent = 0;
  s.target.mangle = (bytes) => {
    sent++;
    return sent === 20 || random.chance(0.02) ? mangled(random, bytes) : bytes;
  };
  // What a host that was misled sends back is the target's to refuse; this one drops it.
  s.target.tolerant = true;
  const answers = await Promise.all(
    Array.from({ length: PARTS }, (_, part) => work(s, bdev, random, part, trusted)),
  );
  s.target.mangle = undefined;
  expect(sent).toBeGreaterThan(20);
  expect(answers.some((set) => set.has(IoStatus.OK))).toBe(true);
  await s.until("it is over", () => bdev.state === "live" || bdev.state === "gone");
  // Without digests another namespace may have seemed to answer.
  if (trusted) expect(bdev.state).toBe("live");
  if (bdev.state === "live") {
    expect((await s.run(bdev, IoOp.READ, 0, 4096)).status).toBe(IoStatus.OK);
  }
  await bdev.close();
}

describe("a controller that sends garbage", () => {
  test("with digests: what reads OK is right", () => {
    withSeed(import.meta.path, (random) => {
      withFakeTarget((s) => fuzz(s, random, "?hdgst&ddgst", true));
    });
  });

  test("without digests: everything ends, and the device recovers or is given up", () => {
    withSeed(import.meta.path, (random) => {
      withFakeTarget((s) => fuzz(s, random, "", false));
    });
  });
});
