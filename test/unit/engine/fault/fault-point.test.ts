/** Fault injection: what each action does to a request, and that nothing of it stays. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { Bdev } from "../../../../src/engine/bdev/bdev.ts";
import { openBdev } from "../../../../src/engine/bdev/open.ts";
import { FaultPoint, InjectedFault } from "../../../../src/engine/fault/fault-point.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { engineContract } from "../../../../src/engine/rpc/contract.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { GatedBdev } from "../../../support/gated-bdev.ts";
import { type BdevProbe, probeBdev, withReactor } from "../../../support/reactor.ts";

type Rule = Partial<v.InferInput<typeof engineContract.createFault.body>>;

/** A fault as the RPC would make it. */
function fault(rule: Rule): InjectedFault {
  const body = v.parse(engineContract.createFault.body, {
    target: { kind: "bdev", name: "d" },
    action: { kind: "error" },
    ...rule,
  });
  return new InjectedFault({ id: "f", ...body });
}

interface Setting {
  readonly reactor: Reactor;
  readonly bdev: Bdev;
  readonly probe: BdevProbe;
  readonly point: FaultPoint;
}

function withDevice(
  body: (setting: Setting) => Promise<void>,
  uri = "malloc:///d?size_mb=1",
): void {
  withReactor(async (reactor) => {
    const bdev = await openBdev(reactor, uri);
    const free = reactor.io.free;
    await body({ reactor, bdev, probe: probeBdev(bdev), point: new FaultPoint(bdev) });
    expect(reactor.io.free).toBe(free);
    await bdev.close();
  });
}

const block = (value: number): Uint8Array => new Uint8Array(512).fill(value);

describe("an error", () => {
  test("ends requests with its status and leaves the device alone", () => {
    withDevice(async ({ probe, point }) => {
      expect(await probe.write(0, block(1))).toBe(0);
      const bad = fault({ action: { kind: "error", status: "no-space" }, ops: ["write"] });
      point.add(bad);
      expect(await probe.write(0, block(2))).toBe(IoStatus.NO_SPACE);
      expect((await probe.read(0, 512)).bytes).toEqual(block(1));
      expect(bad).toMatchObject({ matched: 1, injected: 1 });
      point.remove(bad);
      expect(await probe.write(0, block(2))).toBe(0);
    });
  });

  test("keeps to its range, lets the first pass, and ends after its count", () => {
    withDevice(async ({ probe, point }) => {
      const range = { offsetBytes: 4096, lengthBytes: 512 };
      point.add(fault({ range, after: 1, count: 2 }));
      expect(await probe.write(0, block(1))).toBe(0);
      expect(await probe.write(4608, block(1))).toBe(0);
      const statuses = [];
      for (let i = 0; i < 4; i++) statuses.push(await probe.write(4096, block(1)));
      expect(statuses).toEqual([0, IoStatus.DEVICE_IO, IoStatus.DEVICE_IO, 0]);
    });
  });

  test("happens with its probability, the same way for the same seed", () => {
    const run = (seed: number): number[] => {
      const statuses: number[] = [];
      withDevice(async ({ probe, point }) => {
        point.add(fault({ probability: 0.25, seed }));
        for (let i = 0; i < 400; i++) statuses.push(await probe.write(0, block(1)));
      });
      return statuses;
    };
    const failed = run(7).filter((status) => status !== 0).length;
    expect(failed).toBeGreaterThan(50);
    expect(failed).toBeLessThan(150);
    expect(run(7)).toEqual(run(7));
    expect(run(7)).not.toEqual(run(8));
  });
});

describe("a delay", () => {
  test("lets a request go on later, even at a device that answers at once", () => {
    withDevice(async ({ reactor, bdev, probe, point }) => {
      expect(bdev.synchronous).toBe(true);
      const slow = fault({ action: { kind: "delay", delayMs: 20 }, ops: ["write"] });
      point.add(slow);
      expect(bdev.synchronous).toBe(false);
      const beforeNs = reactor.now;
      const written = probe.write(0, block(3));
      expect(slow.held.size).toBe(1);
      expect(await written).toBe(0);
      expect(reactor.now - beforeNs).toBeGreaterThanOrEqual(20e6);
      expect((await probe.read(0, 512)).bytes).toEqual(block(3));
      point.remove(slow);
      expect(bdev.synchronous).toBe(true);
    });
  });
});

describe("a stall", () => {
  test("keeps requests until it is removed", () => {
    withDevice(async ({ reactor, probe, point }) => {
      const stall = fault({ action: { kind: "stall" } });
      point.add(stall);
      let ended = 0;
      const writes = [0, 512, 1024].map(async (offset) => {
        expect(await probe.write(offset, block(4))).toBe(0);
        ended++;
      });
      await reactor.sleep(5);
      expect({ ended, held: stall.held.size }).toEqual({ ended: 0, held: 3 });
      point.remove(stall);
      await Promise.all(writes);
      expect(ended).toBe(3);
    });
  });

  test("does not keep a device from closing", () => {
    withReactor(async (reactor) => {
      const bdev = await openBdev(reactor, "malloc:///d?size_mb=1");
      const point = new FaultPoint(bdev);
      const stall = fault({ action: { kind: "stall" } });
      point.add(stall);
      const written = probeBdev(bdev).write(0, block(1));
      expect(stall.held.size).toBe(1);
      await bdev.close();
      expect(await written).toBe(0);
      expect(stall.held.size).toBe(0);
    });
  });
});

describe("a torn write", () => {
  test("stores its beginning only, in whole blocks, and fails", () => {
    withDevice(async ({ probe, point }) => {
      const torn = fault({ action: { kind: "torn-write", keepBytes: 1500 } });
      point.add(torn);
      const bytes = new Uint8Array(4096).fill(5);
      expect(await probe.write(0, bytes)).toBe(IoStatus.DEVICE_IO);
      const { bytes: found } = await probe.read(0, 4096);
      expect(found.subarray(0, 1024)).toEqual(bytes.subarray(0, 1024));
      expect(found.subarray(1024)).toEqual(new Uint8Array(3072));
      expect(torn).toMatchObject({ matched: 1, injected: 1 });
    });
  });

  test("of one block stores nothing", () => {
    withDevice(async ({ probe, point }) => {
      point.add(fault({ action: { kind: "torn-write" } }));
      expect(await probe.write(0, block(6))).toBe(IoStatus.DEVICE_IO);
      expect((await probe.read(0, 512)).bytes).toEqual(block(0));
    });
  });
});

describe("a device", () => {
  test("is what it was once the last fault is gone", () => {
    withReactor(async (reactor) => {
      const gated = new GatedBdev(reactor, 64);
      const memory = await openBdev(reactor, "malloc:///d?size_mb=1");
      for (const bdev of [gated, memory]) {
        const before = { submit: bdev.submit, close: bdev.close, keys: Object.keys(bdev) };
        const point = new FaultPoint(bdev);
        const faults = [fault({}), fault({ ops: ["read"] })];
        for (const one of faults) point.add(one);
        expect(bdev.submit).not.toBe(before.submit);
        for (const one of faults) point.remove(one);
        expect(point.isIdle).toBe(true);
        expect({ submit: bdev.submit, close: bdev.close, keys: Object.keys(bdev) }).toEqual(before);
        expect(await probeBdev(bdev).write(0, block(1))).toBe(0);
        await bdev.close();
      }
    });
  });

  test("asks its faults in the order in which they were injected", () => {
    withDevice(async ({ probe, point }) => {
      point.add(fault({ action: { kind: "error", status: "timeout" }, count: 1 }));
      point.add(fault({ action: { kind: "error", status: "aborted" } }));
      expect(await probe.write(0, block(1))).toBe(IoStatus.TIMEOUT);
      expect(await probe.write(0, block(1))).toBe(IoStatus.ABORTED);
    });
  });
});
