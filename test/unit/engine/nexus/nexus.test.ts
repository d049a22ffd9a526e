import { expect, test } from "bun:test";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { Random } from "../../../support/random.ts";
import { SimReplica } from "../../../support/sim-child.ts";
import { eventually, SimHost, SimVolume } from "../../../support/sim-nexus.ts";
import { makeSimReactor } from "../../../support/sim-reactor.ts";

const MIB = 1 << 20;
const BYTES = 64 * MIB;

function block(value: number, length = 4096): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** Runs a test over `count` replicas in a simulated reactor; checks that nothing leaks. */
function withVolume(
  count: number,
  body: (volume: SimVolume, replicas: SimReplica[], reactor: Reactor) => Promise<void>,
  options: { local?: number } = {},
): void {
  const sim = makeSimReactor();
  const { reactor } = sim;
  const random = new Random(1);
  const replicas = Array.from(
    { length: count },
    (_, i) =>
      new SimReplica(reactor, random, {
        name: `r${i}`,
        bytes: BYTES,
        isLocal: i === options.local,
      }),
  );
  try {
    const free = reactor.io.free;
    const freeBytes = reactor.arena.freeBytes;
    sim.runUntil(body(new SimVolume(reactor, replicas), replicas, reactor));
    sim.runUntil(reactor.sleep(1000));
    expect(reactor.io.free).toBe(free);
    expect(reactor.arena.freeBytes).toBe(freeBytes);
  } finally {
    sim.close();
  }
}

test("a write reaches every child and reads go round", () => {
  withVolume(3, async (volume, replicas) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    expect(await host.write(8192, block(7))).toBe(IoStatus.OK);
    for (const replica of replicas) expect(replica.data[8192]).toBe(7);
    for (let i = 0; i < 9; i++) expect((await host.read(8192, 4096)).bytes).toEqual(block(7));
    for (const replica of replicas) expect(replica.reads).toBe(3);
    expect(nexus.state).toBe("online");
    await nexus.close();
    for (const replica of replicas) expect(replica.state.clean).toBe(true);
    for (const replica of replicas) expect(replica.dirty.every((byte) => byte === 0)).toBe(true);
    expect(volume.recorder.record_?.cleanShutdown).toBe(true);
  });
});

test("reads prefer the local child", () => {
  withVolume(
    3,
    async (volume, replicas) => {
      const nexus = await volume.open();
      const host = new SimHost(nexus);
      for (let i = 0; i < 5; i++) await host.read(0, 4096);
      expect(replicas.map((r) => r.reads)).toEqual([0, 5, 0]);
      await nexus.close();
    },
    { local: 1 },
  );
});

test("the region is marked on every child before the first write is stored", () => {
  withVolume(2, async (volume, replicas) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    const seen: boolean[] = [];
    replicas[0]!.onStore = () => seen.push(replicas.every((r) => (r.dirty[0]! & 2) !== 0));
    await host.write(4 * MIB, block(1));
    expect(seen).toEqual([true]);
    await nexus.close();
  });
});

test("nothing is acknowledged or read between the loss of a child and its record", () => {
  withVolume(3, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    const generation = nexus.core.generation;
    volume.recorder.down = true;
    replicas[1]!.failWrites = IoStatus.DEVICE_IO;
    let ended = -1;
    void host.write(0, block(2)).then((status) => {
      ended = status;
    });
    await eventually(reactor, "the child is lost", () =>
      volume.events.some(
        (e) => e.kind === "child-state" && e.uri === replicas[1]!.uri && e.state === "faulted",
      ),
    );
    // The lost child may be another nexus's by now, with data that is newer than what is here.
    let read: Uint8Array | null = null;
    void host.read(0, 4096).then(({ bytes }) => {
      read = bytes;
    });
    await reactor.sleep(5000);
    expect([ended, read]).toEqual([-1, null]);
    volume.recorder.down = false;
    await eventually(reactor, "the read is answered", () => read !== null);
    expect(read!).toEqual(block(2));
    await eventually(reactor, "the write is acknowledged", () => ended >= 0);
    expect(ended).toBe(IoStatus.OK);
    expect(volume.recorder.isHealthy(replicas[1]!.uri)).toBe(false);
    expect(replicas[0]!.state.generation).toBe(generation + 1);
    expect(replicas[2]!.state.generation).toBe(generation + 1);
    expect(replicas[1]!.state.generation).toBe(generation);
    expect(nexus.state).toBe("degraded");
    await nexus.close();
  });
});

test("the last child is never recorded as lost: requests wait for it", () => {
  withVolume(1, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    replicas[0]!.down = true;
    let ended = -1;
    void host.write(0, block(2)).then((status) => {
      ended = status;
    });
    await eventually(reactor, "I/O is held", () => volume.events.some((e) => e.kind === "io-held"));
    await reactor.sleep(5000);
    expect(ended).toBe(-1);
    expect(volume.recorder.isHealthy(replicas[0]!.uri)).toBe(true);
    replicas[0]!.down = false;
    await eventually(reactor, "the write ends", () => ended >= 0);
    expect(ended).toBe(IoStatus.OK);
    expect(replicas[0]!.data[0]).toBe(2);
    expect(volume.events.some((e) => e.kind === "io-resumed")).toBe(true);
    await nexus.close();
  });
});

test("all children lost at once: whoever returns first goes on, the other is recorded", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    for (const replica of replicas) replica.down = true;
    let ended = -1;
    void host.write(0, block(2)).then((status) => {
      ended = status;
    });
    await eventually(reactor, "I/O is held", () => volume.events.some((e) => e.kind === "io-held"));
    expect(volume.recorder.isHealthy(replicas[0]!.uri)).toBe(true);
    expect(volume.recorder.isHealthy(replicas[1]!.uri)).toBe(true);
    replicas[1]!.down = false;
    await eventually(reactor, "the write ends", () => ended >= 0);
    expect(ended).toBe(IoStatus.OK);
    expect(replicas[1]!.data[0]).toBe(2);
    expect(volume.recorder.isHealthy(replicas[0]!.uri)).toBe(false);
    expect(volume.recorder.isHealthy(replicas[1]!.uri)).toBe(true);
    await nexus.close();
  });
});

test("a child that was away is brought up to date from the dirty regions alone", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    for (let i = 0; i < 16; i++) await host.write(i * 4 * MIB, block(i + 1));
    // Long enough for the regions to be cleaned: only what is written later is dirty.
    await reactor.sleep(60_000);
    expect(nexus.info().dirtyRegions).toBeLessThanOrEqual(8);
    await nexus.offlineChild(replicas[1]!.uri, "offline");
    await host.write(12 * MIB, block(99));
    await host.write(40 * MIB + 4096, block(98));
    expect(nexus.state).toBe("degraded");
    const writes = replicas[1]!.writes;
    await nexus.onlineChild(replicas[1]!.uri);
    await eventually(reactor, "the rebuild ends", () => nexus.state === "online");
    const [record] = nexus.rebuilds.history();
    expect(record).toMatchObject({ state: "completed", isPartial: true });
    // Two segments differ; each was written once.
    expect(replicas[1]!.writes - writes).toBe(2);
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    await nexus.close();
  });
});

test("a replica that was removed, or not there when the nexus was opened, misses no more than was written", () => {
  withVolume(3, async (volume, replicas, reactor) => {
    let nexus = await volume.open();
    nexus.wantChildren(3);
    let host = new SimHost(nexus);
    for (let i = 0; i < 16; i++) await host.write(i * 4 * MIB, block(i + 1));
    await reactor.sleep(60_000);
    await nexus.removeChild(replicas[2]!.uri);
    expect(nexus.state).toBe("online");
    await host.write(12 * MIB, block(99));
    // Long enough for everything to be cleaned, were no replica awaited.
    await reactor.sleep(120_000);
    await nexus.close();
    // The next incarnation knows of two replicas alone.
    nexus = await volume.open(replicas.slice(0, 2));
    nexus.wantChildren(3);
    host = new SimHost(nexus);
    await host.write(40 * MIB + 4096, block(98));
    await reactor.sleep(120_000);
    await nexus.addChild(replicas[2]!.uri);
    await eventually(
      reactor,
      "the rebuild ends",
      () => nexus.info().children[2]?.state === "online",
    );
    expect(nexus.rebuilds.history().at(-1)).toMatchObject({ state: "completed", isPartial: true });
    expect(replicas[2]!.data).toEqual(replicas[0]!.data);
    // With as many as are wanted the log is cleaned again.
    for (let i = 0; i < 16; i++) await host.write(i * 4 * MIB, block(i + 7));
    await reactor.sleep(120_000);
    expect(nexus.info().dirtyRegions).toBeLessThanOrEqual(8);
    await nexus.close();
  });
});

test("a new child gets everything, and skips what was never written", () => {
  withVolume(3, async (volume, replicas, reactor) => {
    const nexus = await volume.open(replicas.slice(0, 2));
    const host = new SimHost(nexus);
    for (const at of [0, 5, 30, 63]) await host.write(at * MIB, block(at + 1));
    await nexus.addChild(replicas[2]!.uri);
    await eventually(reactor, "the rebuild ends", () => nexus.state === "online");
    expect(replicas[2]!.data).toEqual(replicas[0]!.data);
    const [record] = nexus.rebuilds.history();
    expect(record).toMatchObject({ state: "completed", isPartial: false });
    expect(record!.blocksTransferred * 512).toBeLessThanOrEqual(16 * MIB);
    expect(replicas[2]!.state.generation).toBe(replicas[0]!.state.generation);
    await nexus.close();
  });
});

test("writes during a rebuild are not overwritten by it", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open(replicas.slice(0, 1));
    const host = new SimHost(nexus);
    for (let i = 0; i < 64; i++) await host.write(i * MIB, block(i + 1, 65536));
    await nexus.addChild(replicas[1]!.uri);
    const random = new Random(5);
    const writers = Array.from({ length: 8 }, async (_, w) => {
      for (let i = 0; i < 200; i++) {
        const at = (w * 8 + random.below(8)) * MIB + random.below(16) * 4096;
        expect(await host.write(at, block(random.below(256)))).toBe(IoStatus.OK);
      }
    });
    await Promise.all(writers);
    await eventually(reactor, "the rebuild ends", () => nexus.state === "online");
    await host.flush();
    expect(Buffer.compare(replicas[0]!.data, replicas[1]!.data)).toBe(0);
    await nexus.close();
  });
});

test("after a crash children are made equal, from the dirty regions", () => {
  withVolume(3, async (volume, replicas, reactor) => {
    const first = await volume.open();
    const host = new SimHost(first);
    expect(await host.write(0, block(1))).toBe(IoStatus.OK);
    // A write that reaches two children of three, and a nexus that never learns of it.
    replicas[2]!.stalled = true;
    void host.write(4096, block(2));
    await eventually(
      reactor,
      "two have it",
      () => replicas[0]!.data[4096] === 2 && replicas[1]!.data[4096] === 2,
    );
    const opening = volume.open();
    await reactor.sleep(100);
    replicas[2]!.release();
    const nexus = await opening;
    expect(first.state).toBe("shutdown");
    await eventually(reactor, "all are in sync", () => nexus.state === "online");
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    expect(replicas[2]!.data).toEqual(replicas[0]!.data);
    expect((await new SimHost(nexus).read(0, 4096)).bytes).toEqual(block(1));
    await nexus.close();
    await first.close();
  });
});

test("what a child lost with the power of its machine is taken from those that kept theirs", () => {
  withVolume(
    3,
    async (volume, replicas, reactor) => {
      const [local] = replicas as [SimReplica];
      const former = await volume.open();
      const host = new SimHost(former);
      for (let i = 0; i < 32; i++)
        expect(await host.write(i * 4096, block(i + 1))).toBe(IoStatus.OK);
      local.losePower();
      expect(local.state.mayLack).toBe(true);
      const nexus = await volume.open();
      const nextHost = new SimHost(nexus);
      // It is preferred for reads, and nothing is read from it before it has everything again.
      expect(volume.recorder.isHealthy(local.uri)).toBe(false);
      for (let i = 0; i < 32; i++) {
        expect((await nextHost.read(i * 4096, 4096)).bytes).toEqual(block(i + 1));
      }
      await nexus.onlineChild(local.uri);
      await eventually(reactor, "all are in sync", () => nexus.state === "online");
      expect(nexus.rebuilds.history().find((r) => r.childUri === local.uri)?.isPartial).toBe(true);
      expect(local.state.mayLack).toBe(false);
      expect(local.data).toEqual(replicas[1]!.data);
      await nexus.close();
      await former.close();
    },
    { local: 0 },
  );
});

test("when every machine has lost its power, what serves first is what counts from then on", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const former = await volume.open();
    const host = new SimHost(former);
    for (let i = 0; i < 32; i++) await host.write(i * 4096, block(i + 1));
    for (const replica of replicas) replica.losePower();
    const second = await volume.open();
    const found = await new SimHost(second).read(0, 32 * 4096);
    expect(found.status).toBe(IoStatus.OK);
    // The nexus dies before the others are resynced.
    const third = await volume.open();
    expect((await new SimHost(third).read(0, 32 * 4096)).bytes).toEqual(found.bytes);
    await eventually(reactor, "they are equal", () => {
      void third.onlineChild(replicas[1]!.uri).catch(() => undefined);
      return third.state === "online";
    });
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    await third.close();
    await second.close();
    await former.close();
  });
});

test("a child whose device goes while it is brought in stays out, and writes go on", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    await nexus.offlineChild(replicas[1]!.uri, "offline");
    for (let ms = 0; ms < 12; ms++) {
      const bringing = nexus.onlineChild(replicas[1]!.uri).then(
        () => true,
        () => false,
      );
      await reactor.sleep(ms);
      replicas[1]!.vanish();
      await bringing;
      expect(await host.write(0, block(ms + 2))).toBe(IoStatus.OK);
    }
    await nexus.onlineChild(replicas[1]!.uri);
    await eventually(reactor, "it is in sync", () => nexus.state === "online");
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    await nexus.close();
  });
});

test("a superseded nexus acknowledges nothing more", () => {
  withVolume(2, async (volume, replicas) => {
    const old = await volume.open();
    const host = new SimHost(old);
    await host.write(0, block(1));
    const fresh = await volume.open();
    expect(await host.write(0, block(2))).toBe(IoStatus.SUPERSEDED);
    expect((await host.read(0, 4096)).status).toBe(IoStatus.SUPERSEDED);
    expect(replicas[0]!.data[0]).toBe(1);
    expect(volume.events.some((e) => e.kind === "superseded")).toBe(true);
    await old.close();
    expect(await new SimHost(fresh).write(0, block(3))).toBe(IoStatus.OK);
    await fresh.close();
  });
});

test("a child behind the highest generation is only ever a rebuild destination", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const first = await volume.open();
    await new SimHost(first).write(0, block(1));
    await first.offlineChild(replicas[1]!.uri, "offline");
    await new SimHost(first).write(0, block(2));
    await first.close();
    // A record that was lost calls both healthy; what the disks say counts.
    volume.recorder.record_ = undefined;
    const nexus = await volume.open();
    expect(nexus.info().children.map((c) => c.state)).toEqual(["online", "degraded"]);
    for (let i = 0; i < 4; i++) {
      expect((await new SimHost(nexus).read(0, 4096)).bytes).toEqual(block(2));
    }
    await nexus.onlineChild(replicas[1]!.uri);
    await eventually(reactor, "the rebuild ends", () => nexus.state === "online");
    expect(replicas[1]!.data[0]).toBe(2);
    await nexus.close();
  });
});

test("a thin child without space: capacity exceeded when all refuse, lost when only one does", () => {
  withVolume(2, async (volume, replicas) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    for (const replica of replicas) replica.failWrites = IoStatus.NO_SPACE;
    expect(await host.write(0, block(2))).toBe(IoStatus.NO_SPACE);
    expect(nexus.state).toBe("online");
    for (const replica of replicas) replica.failWrites = IoStatus.OK;
    expect((await host.read(0, 4096)).bytes).toEqual(block(1));
    replicas[0]!.failWrites = IoStatus.NO_SPACE;
    expect(await host.write(0, block(3))).toBe(IoStatus.OK);
    expect(nexus.info().children[0]).toMatchObject({ state: "degraded", reason: "no-space" });
    await nexus.close();
  });
});

test("a read error is answered from another child; the last child's is the host's", () => {
  withVolume(2, async (volume, replicas) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    replicas[0]!.failReads = IoStatus.DEVICE_IO;
    for (let i = 0; i < 4; i++) expect((await host.read(0, 4096)).bytes).toEqual(block(1));
    expect(nexus.state).toBe("degraded");
    replicas[1]!.failReads = IoStatus.DEVICE_IO;
    expect((await host.read(0, 4096)).status).toBe(IoStatus.DEVICE_IO);
    replicas[1]!.failReads = IoStatus.OK;
    expect((await host.read(0, 4096)).status).toBe(IoStatus.OK);
    await nexus.close();
  });
});

test("removed for good, a child needs a full rebuild to come back", () => {
  withVolume(3, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await host.write(0, block(1));
    await nexus.removeChild(replicas[2]!.uri);
    await host.write(8 * MIB, block(2));
    await reactor.sleep(60_000);
    await nexus.addChild(replicas[2]!.uri);
    await eventually(reactor, "the rebuild ends", () => nexus.rebuilds.history().length === 1);
    expect(nexus.rebuilds.history()[0]).toMatchObject({ state: "completed" });
    expect(replicas[2]!.data).toEqual(replicas[0]!.data);
    await nexus.close();
  });
});

test("the last in-sync child can be neither removed nor taken offline", () => {
  withVolume(2, async (volume, replicas) => {
    const nexus = await volume.open();
    await nexus.removeChild(replicas[0]!.uri);
    expect(nexus.removeChild(replicas[1]!.uri)).rejects.toThrow("last in-sync child");
    expect(nexus.offlineChild(replicas[1]!.uri, "offline")).rejects.toThrow("last in-sync child");
    await nexus.close();
  });
});

test("pause keeps requests waiting, resume lets them go", () => {
  withVolume(2, async (volume, _replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    await nexus.pause();
    let ended = false;
    const write = host.write(0, block(1)).then((status) => {
      ended = true;
      return status;
    });
    await reactor.sleep(1000);
    expect(ended).toBe(false);
    nexus.resume();
    expect(await write).toBe(IoStatus.OK);
    await nexus.close();
  });
});

test("a rebuild can be paused, limited and stopped, and is remembered", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open(replicas.slice(0, 1));
    const host = new SimHost(nexus);
    for (let i = 0; i < 64; i++) await host.write(i * MIB, block(i + 1));
    nexus.rebuilds.configure({ bytesPerSec: 8 * MIB });
    await nexus.addChild(replicas[1]!.uri);
    const { uri } = replicas[1]!;
    await eventually(reactor, "it runs", () => nexus.rebuilds.progress(uri) !== undefined);
    await reactor.sleep(2000);
    const slow = nexus.rebuilds.progress(uri)!;
    expect(slow.blocksRecovered * 512).toBeLessThanOrEqual(20 * MIB);
    nexus.rebuilds.pause(uri);
    await reactor.sleep(1000);
    const paused = nexus.rebuilds.progress(uri)!;
    await reactor.sleep(5000);
    expect(nexus.rebuilds.progress(uri)!.blocksRecovered).toBe(paused.blocksRecovered);
    nexus.rebuilds.resume(uri);
    await reactor.sleep(500);
    nexus.rebuilds.stop(uri);
    await eventually(reactor, "it ends", () => nexus.rebuilds.history().length === 1);
    expect(nexus.rebuilds.history()[0]!.state).toBe("stopped");
    expect(nexus.info().children[1]!.state).toBe("degraded");
    nexus.rebuilds.configure({ bytesPerSec: 0 });
    await nexus.onlineChild(uri);
    await eventually(reactor, "it is in sync", () => nexus.state === "online");
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    await nexus.close();
  });
});

test("a nexus that is superseded while it gets a child back touches nothing any more", () => {
  withVolume(1, async (volume, replicas, reactor) => {
    const nexus = await volume.open();
    const host = new SimHost(nexus);
    const [replica] = replicas;
    await host.write(0, block(1));
    replica!.down = true;
    const writing = host.write(0, block(2));
    await eventually(reactor, "I/O is held", () => volume.events.some((e) => e.kind === "io-held"));
    // The child is being opened again when the successor begins.
    replica!.down = false;
    replica!.stalled = true;
    await reactor.sleep(1_000);
    const { state } = replica!;
    const { calls } = volume.recorder;
    nexus.membership.supersede("a newer nexus is active");
    expect(await writing).toBe(IoStatus.SUPERSEDED);
    const seen = volume.events.length;
    replica!.release();
    await reactor.sleep(5_000);
    expect(volume.events.slice(seen)).toEqual([]);
    expect(replica!.state).toEqual(state);
    expect(volume.recorder.calls).toBe(calls);
    await nexus.close();
  });
});

test("a write over many segments has its turn while a rebuild is at them", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open(replicas.slice(0, 1));
    const host = new SimHost(nexus);
    for (let i = 0; i < 64; i++) await host.write(i * MIB, block(i + 1));
    nexus.rebuilds.configure({ segmentBytes: 64 << 10 });
    const { uri } = replicas[1]!;
    await nexus.addChild(uri);
    const done = () => nexus.rebuilds.progress(uri)?.blocksRecovered ?? 0;
    await eventually(reactor, "it copies", () => done() > 0);
    const before = done();
    // All of the device: some segment of it is locked all the time.
    expect(await host.zero(0, BYTES)).toBe(IoStatus.OK);
    expect(nexus.rebuilds.progress(uri)).toBeDefined();
    expect(done() - before).toBeLessThan((8 * MIB) / 512);
    await eventually(reactor, "it is in sync", () => nexus.state === "online");
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    expect(replicas[0]!.data.every((byte) => byte === 0)).toBe(true);
    await nexus.close();
  });
});

test("a rebuild that waits for memory, or by its rate, keeps nobody waiting that it ends", () => {
  withVolume(2, async (volume, replicas, reactor) => {
    const nexus = await volume.open(replicas.slice(0, 1));
    const host = new SimHost(nexus);
    for (let i = 0; i < 16; i++) await host.write(i * MIB, block(i + 1));
    const { uri } = replicas[1]!;
    const { rebuilds } = nexus;
    // All memory is another's: it begins, and gets none.
    const { rebuildMemory } = volume.context;
    const other = {};
    expect(await rebuildMemory.acquire(8 * MIB, other)).toBe(true);
    await nexus.addChild(uri);
    await eventually(reactor, "it runs", () => rebuilds.progress(uri) !== undefined);
    await reactor.sleep(1000);
    expect(rebuilds.progress(uri)!.blocksRecovered).toBe(0);
    rebuilds.stop(uri);
    await eventually(reactor, "it ends", () => rebuilds.history().length === 1);
    // What is paused holds none either.
    rebuildMemory.release(8 * MIB);
    rebuilds.configure({ bytesPerSec: 4 * MIB });
    await nexus.onlineChild(uri);
    await eventually(reactor, "it runs", () => rebuilds.progress(uri) !== undefined);
    rebuilds.pause(uri);
    await reactor.sleep(1000);
    expect(await rebuildMemory.acquire(8 * MIB, other)).toBe(true);
    rebuildMemory.release(8 * MIB);
    rebuilds.resume(uri);
    // A rate so low that the next segment is due in days: another rate holds at once, and so does the end.
    rebuilds.configure({ bytesPerSec: 1 });
    await reactor.sleep(5_000);
    rebuilds.configure({ bytesPerSec: 0 });
    await eventually(reactor, "it is in sync", () => nexus.state === "online");
    expect(replicas[1]!.data).toEqual(replicas[0]!.data);
    await nexus.offlineChild(uri, "offline");
    for (let i = 0; i < 16; i++) await host.write(i * MIB, block(i + 100));
    rebuilds.configure({ bytesPerSec: 1 });
    await nexus.onlineChild(uri);
    await eventually(reactor, "it runs", () => rebuilds.progress(uri) !== undefined);
    await reactor.sleep(5_000);
    const fromNs = reactor.now;
    await nexus.close();
    expect(reactor.now - fromNs).toBeLessThan(1e9);
  });
});

test("growing is told to whoever serves the device; shrinking and outgrowing children are refused", () => {
  withVolume(2, async (volume, replicas) => {
    const nexus = await volume.open(replicas, BYTES / 2);
    const host = new SimHost(nexus);
    const told: number[] = [];
    nexus.listen((event) => {
      if (event.kind === "resized") told.push(event.blockCount);
    });
    expect(await host.write(BYTES / 2, block(1))).toBe(IoStatus.OUT_OF_RANGE);
    await expect(nexus.resize(BYTES * 2)).rejects.toThrow(`has ${BYTES} bytes`);
    await expect(nexus.resize(BYTES / 4)).rejects.toThrow("cannot become");
    expect(nexus.blockCount).toBe(BYTES / 2 / 512);
    await nexus.resize(BYTES);
    expect(told).toEqual([BYTES / 512]);
    expect(await host.write(BYTES / 2, block(1))).toBe(IoStatus.OK);
    await nexus.close();
  });
});

test("a nexus that is cut off answers no read with data older than its successor acknowledged", () => {
  withVolume(
    2,
    async (volume, replicas, reactor) => {
      const [, remote] = replicas as [SimReplica, SimReplica];
      const former = await volume.open();
      const formerHost = new SimHost(former);
      expect(await formerHost.write(0, block(1))).toBe(IoStatus.OK);
      expect((await formerHost.read(0, 4096)).bytes).toEqual(block(1));
      remote.cut();
      const cutNs = reactor.now;
      // Old data may be read for as long as nobody has acknowledged newer data.
      let acknowledgedNs = Number.POSITIVE_INFINITY;
      let lastReadNs = 0;
      let reads = 0;
      let isOver = false;
      const reading = async (): Promise<void> => {
        while (!isOver) {
          const begunNs = reactor.now;
          const { status } = await formerHost.read(0, 4096);
          if (status !== IoStatus.OK) return;
          expect(begunNs).toBeLessThan(acknowledgedNs);
          lastReadNs = reactor.now;
          reads++;
        }
      };
      const read = reading();
      const next = await volume.open([remote]);
      const nextHost = new SimHost(next);
      expect(await nextHost.write(0, block(2))).toBe(IoStatus.OK);
      acknowledgedNs = reactor.now;
      await reactor.sleep(10_000);
      expect((await nextHost.read(0, 4096)).bytes).toEqual(block(2));
      expect(reads).toBeGreaterThan(10);
      expect(lastReadNs).toBeLessThan(acknowledgedNs);
      // It did not take longer than it had to.
      expect((acknowledgedNs - cutNs) / 1e6).toBeLessThan(2_500);
      isOver = true;
      remote.disconnect();
      await former.close();
      await read;
      await next.close();
    },
    { local: 0 },
  );
});

test("reads need no lease where every healthy child is local, nor the recorder where children answer", () => {
  withVolume(
    2,
    async (volume, replicas, reactor) => {
      const [local, remote] = replicas as [SimReplica, SimReplica];
      const nexus = await volume.open();
      const host = new SimHost(nexus);
      volume.recorder.down = true;
      await reactor.sleep(20_000);
      for (let i = 0; i < 5; i++) {
        expect((await host.read(0, 4096)).status).toBe(IoStatus.OK);
        await reactor.sleep(1_500);
      }
      volume.recorder.down = false;
      remote.down = true;
      expect(await host.write(0, block(3))).toBe(IoStatus.OK);
      volume.recorder.down = true;
      await reactor.sleep(20_000);
      const before = local.reads;
      expect((await host.read(0, 4096)).bytes).toEqual(block(3));
      expect(local.reads).toBe(before + 1);
      volume.recorder.down = false;
      await nexus.close();
    },
    { local: 0 },
  );
});

test("a child that does not renew is lost, and reads go on without it", () => {
  withVolume(
    2,
    async (volume, replicas, reactor) => {
      const [, remote] = replicas as [SimReplica, SimReplica];
      const nexus = await volume.open();
      const host = new SimHost(nexus);
      await reactor.sleep(5_000);
      remote.down = true;
      expect((await host.read(0, 4096)).status).toBe(IoStatus.OK);
      expect(volume.recorder.isHealthy(remote.uri)).toBe(false);
      expect(nexus.state).toBe("degraded");
      await nexus.close();
    },
    { local: 0 },
  );
});

test("a child that has stopped while its connection stands is lost after some seconds", () => {
  for (const isWrite of [true, false]) {
    withVolume(
      3,
      async (volume, replicas, reactor) => {
        const [, stopped] = replicas as [SimReplica, SimReplica];
        const nexus = await volume.open();
        const host = new SimHost(nexus);
        expect(await host.write(0, block(1))).toBe(IoStatus.OK);
        expect((await host.read(0, 4096)).status).toBe(IoStatus.OK);
        stopped.cut();
        const cutNs = reactor.now;
        if (isWrite) expect(await host.write(0, block(2))).toBe(IoStatus.OK);
        else {
          // Reads go on under the lease, and then wait.
          while (nexus.state === "online") await host.read(0, 4096);
        }
        expect((reactor.now - cutNs) / 1e6).toBeLessThan(6_500);
        expect(nexus.state).toBe("degraded");
        expect(volume.recorder.isHealthy(stopped.uri)).toBe(false);
        expect((await host.read(0, 4096)).bytes).toEqual(block(isWrite ? 2 : 1));
        stopped.disconnect();
        await nexus.close();
      },
      { local: 0 },
    );
  }
});

test("hosts may be turned away while a loss cannot be recorded, and come back when it is", () => {
  withVolume(
    2,
    async (volume, replicas, reactor) => {
      const [, remote] = replicas as [SimReplica, SimReplica];
      const nexus = await volume.open();
      const host = new SimHost(nexus);
      volume.onEvent = ({ kind }) => {
        if (kind === "unsettled") nexus.turnAway();
      };
      volume.recorder.down = true;
      remote.down = true;
      // What waits, what comes, read or write: nothing is kept, nothing is acknowledged.
      const first = host.write(0, block(1));
      expect(await first).toBe(IoStatus.UNAVAILABLE);
      expect(await host.write(4096, block(1))).toBe(IoStatus.UNAVAILABLE);
      expect((await host.read(0, 4096)).status).toBe(IoStatus.UNAVAILABLE);
      volume.recorder.down = false;
      await eventually(reactor, "the loss recorded", () => !volume.recorder.isHealthy(remote.uri));
      await eventually(reactor, "requests going on", () =>
        volume.events.some(({ kind }) => kind === "io-resumed"),
      );
      expect(await host.write(0, block(2))).toBe(IoStatus.OK);
      expect((await host.read(0, 4096)).bytes).toEqual(block(2));
      await nexus.close();
    },
    { local: 0 },
  );
});
