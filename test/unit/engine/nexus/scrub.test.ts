import { expect, test } from "bun:test";
import type { Nexus, ScrubFinding, ScrubRecord } from "../../../../src/engine/nexus/index.ts";
import type { ScrubPlan } from "../../../../src/engine/nexus/scrub.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { IoStatus } from "../../../../src/errors.ts";
import { Random } from "../../../support/random.ts";
import { SIM_CLUSTER_BYTES, SimReplica } from "../../../support/sim-child.ts";
import { eventually, SimHost, SimVolume } from "../../../support/sim-nexus.ts";
import { makeSimReactor } from "../../../support/sim-reactor.ts";

const MIB = 1 << 20;
const BYTES = 16 * MIB;
/** What every replica holds at first: no two neighbouring blocks are equal. */
const content = new Uint8Array(BYTES).map((_, i) => (i * 31 + (i >> 12)) & 0xff);
const noCounts = {
  comparedBytes: 0,
  skippedBytes: 0,
  mismatchedBytes: 0,
  repairedBytes: 0,
  transientBytes: 0,
};
const plan = (over: Partial<ScrubPlan> = {}): ScrubPlan => ({
  id: "one",
  offsetBytes: 0,
  counts: noCounts,
  bytesPerSec: 0,
  isRepairing: true,
  ...over,
});

interface Bench {
  readonly reactor: Reactor;
  readonly volume: SimVolume;
  readonly replicas: SimReplica[];
  readonly nexus: Nexus;
  readonly host: SimHost;
}

/** Runs a test over an open nexus whose replicas hold the same data; nothing may leak. */
function withNexus(count: number, body: (bench: Bench) => Promise<void>): void {
  const sim = makeSimReactor();
  const { reactor } = sim;
  const random = new Random(7);
  const replicas = Array.from(
    { length: count },
    (_, i) => new SimReplica(reactor, random, { name: `r${i}`, bytes: BYTES, isLocal: i === 0 }),
  );
  for (const replica of replicas) {
    replica.data.set(content);
    replica.written.fill(1);
  }
  try {
    const free = reactor.io.free;
    const freeBytes = reactor.arena.freeBytes;
    const volume = new SimVolume(reactor, replicas);
    const run = async () => {
      const nexus = await volume.open();
      await body({ reactor, volume, replicas, nexus, host: new SimHost(nexus) });
      if (nexus.core.ended === null) await nexus.close();
    };
    sim.runUntil(run());
    sim.runUntil(reactor.sleep(1000));
    expect(reactor.io.free).toBe(free);
    expect(reactor.arena.freeBytes).toBe(freeBytes);
  } finally {
    sim.close();
  }
}

async function ended({ reactor, nexus }: Bench): Promise<ScrubRecord> {
  await eventually(
    reactor,
    "the scrub has ended",
    () => nexus.scrubs.record()?.endTimeMs !== undefined,
  );
  return nexus.scrubs.current();
}

const findingsOf = (volume: SimVolume): ScrubFinding[] =>
  volume.events.flatMap((event) => (event.kind === "scrub-mismatch" ? event.finding : []));

test("equal children are compared in full, and nothing is written", () => {
  withNexus(3, async (bench) => {
    const { nexus, replicas, volume } = bench;
    expect(nexus.scrubs.start(plan()).state).toBe("running");
    const record = await ended(bench);
    expect(record).toMatchObject({
      state: "completed",
      offsetBytes: BYTES,
      comparedBytes: BYTES,
      skippedBytes: 0,
      mismatchedBytes: 0,
      findings: [],
      childUris: replicas.map(({ uri }) => uri),
    });
    expect(replicas.map(({ writes }) => writes)).toEqual([0, 0, 0]);
    expect(volume.events.map(({ kind }) => kind)).toEqual(["scrub-started", "scrub-ended"]);
  });
});

test("clusters that no child has allocated are skipped, those of one child are not", () => {
  withNexus(2, async (bench) => {
    const { nexus, replicas } = bench;
    for (const replica of replicas) {
      replica.written.fill(0);
      replica.data.fill(0);
    }
    replicas[1]!.written[3] = 1;
    replicas[0]!.written[9] = 1;
    replicas[0]!.data[9 * SIM_CLUSTER_BYTES + 5000] = 1;
    nexus.scrubs.start(plan());
    const record = await ended(bench);
    expect(record.comparedBytes).toBe(2 * SIM_CLUSTER_BYTES);
    expect(record.skippedBytes).toBe(BYTES - 2 * SIM_CLUSTER_BYTES);
    expect(record.findings).toMatchObject([
      { offsetBytes: 9 * SIM_CLUSTER_BYTES + 4096, lengthBytes: 4096, isRepaired: false },
    ]);
  });
});

test("what one of three holds otherwise is written anew from the other two, and read back", () => {
  withNexus(3, async (bench) => {
    const { nexus, replicas, volume } = bench;
    const right = replicas[0]!.data.slice();
    // Also the child that reads prefer, also at both ends, also across a segment's border.
    replicas[0]!.data.fill(0xaa, 3 * MIB, 3 * MIB + 100);
    replicas[1]!.data.fill(0xbb, 0, 1);
    replicas[2]!.data.fill(0xcc, MIB - 4096, MIB + 4096);
    replicas[2]!.data.fill(0xdd, BYTES - 1, BYTES);
    nexus.scrubs.start(plan());
    const record = await ended(bench);
    for (const { data } of replicas) expect(Buffer.compare(data, right)).toBe(0);
    expect(record.mismatchedBytes).toBe(5 * 4096);
    expect(record.repairedBytes).toBe(5 * 4096);
    expect(record.findings).toEqual([
      finding(0, 4096, replicas[1]!),
      finding(MIB - 4096, 8192, replicas[2]!),
      finding(3 * MIB, 4096, replicas[0]!),
      finding(BYTES - 4096, 4096, replicas[2]!),
    ]);
    expect(findingsOf(volume)).toHaveLength(4);
    expect(nexus.state).toBe("online");
  });
});

/** Changes a byte below the nexus. */
function damage({ data }: SimReplica, at: number): void {
  data[at] = data[at]! ^ 1;
}

function finding(offsetBytes: number, lengthBytes: number, replica: SimReplica): ScrubFinding {
  const childUris = [replica.uri];
  return { offsetBytes, lengthBytes, kind: "mismatch", isRepaired: true, childUris, reason: "" };
}

test("two that differ are reported and left alone, likewise three that all differ", () => {
  withNexus(2, async (bench) => {
    const { nexus, replicas } = bench;
    damage(replicas[1]!, 5 * MIB);
    const before = replicas.map(({ data }) => data.slice());
    nexus.scrubs.start(plan());
    const record = await ended(bench);
    expect(record.state).toBe("completed");
    expect(record.repairedBytes).toBe(0);
    expect(record.findings).toEqual([
      {
        offsetBytes: 5 * MIB,
        lengthBytes: 4096,
        kind: "mismatch",
        isRepaired: false,
        childUris: replicas.map(({ uri }) => uri),
        reason: "no majority of the copies agrees",
      },
    ]);
    replicas.forEach(({ data }, i) => {
      expect(Buffer.compare(data, before[i]!)).toBe(0);
    });
  });
  withNexus(3, async (bench) => {
    const { nexus, replicas } = bench;
    replicas.forEach((replica, i) => {
      replica.data[4096] = 200 + i;
    });
    nexus.scrubs.start(plan());
    expect((await ended(bench)).findings).toMatchObject([{ offsetBytes: 4096, isRepaired: false }]);
    expect(replicas.map(({ data }) => data[4096])).toEqual([200, 201, 202]);
  });
});

test("of four, two against two is no majority; three against one is", () => {
  withNexus(4, async (bench) => {
    const { nexus, replicas } = bench;
    damage(replicas[0]!, 0);
    damage(replicas[1]!, 0);
    damage(replicas[3]!, 8192);
    nexus.scrubs.start(plan());
    const { findings } = await ended(bench);
    expect(findings).toMatchObject([
      { offsetBytes: 0, isRepaired: false },
      { offsetBytes: 8192, isRepaired: true, childUris: [replicas[3]!.uri] },
    ]);
  });
});

test("with repairs switched off a majority changes nothing", () => {
  withNexus(3, async (bench) => {
    const { nexus, replicas } = bench;
    damage(replicas[1]!, 0);
    nexus.scrubs.start(plan({ isRepairing: false }));
    expect((await ended(bench)).findings).toMatchObject([
      { isRepaired: false, childUris: [replicas[1]!.uri], reason: "repairs are switched off" },
    ]);
    expect(replicas.map(({ writes }) => writes)).toEqual([0, 0, 0]);
  });
});

test("a block that cannot be read is written anew from those that can, even with two children", () => {
  withNexus(2, async (bench) => {
    const { nexus, replicas } = bench;
    const right = replicas[0]!.data.slice();
    replicas[0]!.badBlocks.add((2 * MIB) / 512 + 3);
    replicas[0]!.data.fill(0, 2 * MIB + 1536, 2 * MIB + 2048);
    nexus.scrubs.start(plan());
    const record = await ended(bench);
    expect(record.findings).toEqual([
      { ...finding(2 * MIB, 4096, replicas[0]!), kind: "unreadable" },
    ]);
    expect(replicas[0]!.badBlocks.size).toBe(0);
    expect(Buffer.compare(replicas[0]!.data, right)).toBe(0);
    expect(nexus.state).toBe("online");
  });
});

test("what nobody can read, or those that can disagree on, is reported; no child is faulted", () => {
  withNexus(3, async (bench) => {
    const { nexus, replicas } = bench;
    for (const { badBlocks } of replicas) badBlocks.add(0);
    replicas[0]!.badBlocks.add(80);
    damage(replicas[1]!, 80 * 512);
    nexus.scrubs.start(plan());
    const { findings, state } = await ended(bench);
    expect(state).toBe("completed");
    expect(findings).toMatchObject([
      { offsetBytes: 0, kind: "unreadable", isRepaired: false, reason: "no copy can be read" },
      { offsetBytes: 80 * 512, kind: "mismatch", isRepaired: false },
    ]);
    expect(nexus.state).toBe("online");
  });
});

test("a child that refuses the repair stays, and the range is reported", () => {
  withNexus(3, async (bench) => {
    const { nexus, replicas } = bench;
    damage(replicas[2]!, 0);
    replicas[2]!.failWrites = IoStatus.NO_SPACE;
    nexus.scrubs.start(plan());
    const { findings } = await ended(bench);
    expect(findings).toMatchObject([{ isRepaired: false, childUris: [replicas[2]!.uri] }]);
    expect(findings[0]!.reason).toContain("writing it failed");
    expect(nexus.state).toBe("online");
    replicas[2]!.failWrites = IoStatus.OK;
  });
});

test("a child that is lost in the middle is compared no more; with one left the scrub ends", () => {
  withNexus(3, async (bench) => {
    const { nexus, reactor, replicas } = bench;
    nexus.scrubs.start(plan({ bytesPerSec: 4 * MIB }));
    await eventually(
      reactor,
      "a part is done",
      () => nexus.scrubs.current().offsetBytes >= 2 * MIB,
    );
    replicas[1]!.down = true;
    await eventually(reactor, "the child is lost", () => nexus.state === "degraded");
    await eventually(reactor, "it goes on", () => nexus.scrubs.current().offsetBytes >= 6 * MIB);
    expect(nexus.scrubs.current().childUris).toEqual([replicas[0]!.uri, replicas[2]!.uri]);
    replicas[2]!.down = true;
    const record = await ended(bench);
    expect(record).toMatchObject({
      state: "stopped",
      error: "fewer than two children are in sync",
    });
    expect(record.offsetBytes).toBeLessThan(BYTES);
    expect(nexus.core.inSync().map(({ uri }) => uri)).toEqual([replicas[0]!.uri]);
  });
});

test("when every child fails at once one stays recorded, and serves when it is back", () => {
  withNexus(2, async (bench) => {
    const { nexus, reactor, replicas, volume, host } = bench;
    nexus.scrubs.start(plan());
    await reactor.sleep(150);
    for (const replica of replicas) replica.down = true;
    expect((await ended(bench)).state).toBe("stopped");
    await reactor.sleep(5_000);
    expect(replicas.filter(({ uri }) => volume.recorder.isHealthy(uri))).toHaveLength(1);
    for (const replica of replicas) replica.down = false;
    expect((await host.read(0, 4096)).status).toBe(IoStatus.OK);
    expect(nexus.state).toBe("degraded");
  });
});

test("it gives way to a rebuild, and goes on after it with the child that came back", () => {
  withNexus(3, async (bench) => {
    const { nexus, reactor, replicas, host } = bench;
    nexus.scrubs.start(plan({ bytesPerSec: 8 * MIB }));
    await eventually(reactor, "a part is done", () => nexus.scrubs.current().offsetBytes >= MIB);
    await nexus.offlineChild(replicas[1]!.uri, "offline");
    await host.write(8 * MIB, new Uint8Array(8192).fill(9));
    nexus.rebuilds.configure({ bytesPerSec: MIB });
    await nexus.onlineChild(replicas[1]!.uri);
    await eventually(reactor, "it waits", () => nexus.scrubs.current().waitsFor === "rebuild");
    const { offsetBytes } = nexus.scrubs.current();
    while (nexus.state !== "online") {
      expect(nexus.scrubs.current().offsetBytes).toBe(offsetBytes);
      await reactor.sleep(10);
    }
    const record = await ended(bench);
    expect(record).toMatchObject({ state: "completed", mismatchedBytes: 0, comparedBytes: BYTES });
    expect(record.childUris).toEqual(replicas.map(({ uri }) => uri));
    expect(nexus.core.io.locks).toBeNull();
  });
});

test("while the nexus is paused nothing is read or written; growth is followed", () => {
  withNexus(3, async (bench) => {
    const { nexus, reactor, replicas } = bench;
    damage(replicas[2]!, 12 * MIB);
    nexus.scrubs.start(plan({ bytesPerSec: 8 * MIB }));
    await eventually(reactor, "a part is done", () => nexus.scrubs.current().offsetBytes >= MIB);
    await nexus.pause();
    const reads = replicas.map((replica) => replica.reads);
    expect(nexus.scrubs.current().waitsFor).toBe("nexus-paused");
    await reactor.sleep(5_000);
    expect(replicas.map((replica) => replica.reads)).toEqual(reads);
    nexus.resume();
    await nexus.resize(BYTES);
    const record = await ended(bench);
    expect(record).toMatchObject({ state: "completed", comparedBytes: BYTES, repairedBytes: 4096 });
  });
});

test("a device that grows in the middle of a segment is scrubbed to its new end", () => {
  withNexus(3, async (bench) => {
    const { volume, reactor, replicas, nexus } = bench;
    await nexus.close();
    const small = await volume.open(replicas, 10 * MIB - 64 * 1024);
    small.scrubs.start(plan({ bytesPerSec: 16 * MIB }));
    await eventually(
      reactor,
      "the end is near",
      () => small.scrubs.current().offsetBytes > 9 * MIB,
    );
    damage(replicas[0]!, 10 * MIB - 4096);
    await small.resize(BYTES);
    await eventually(reactor, "it ends", () => small.scrubs.record()?.endTimeMs !== undefined);
    expect(small.scrubs.current()).toMatchObject({
      state: "completed",
      sizeBytes: BYTES,
      comparedBytes: BYTES,
      repairedBytes: 4096,
    });
    await small.close();
  });
});

test("it is paused, resumed, stopped, and taken up again where it was", () => {
  withNexus(2, async (bench) => {
    const { nexus, reactor } = bench;
    nexus.scrubs.start(plan({ bytesPerSec: 4 * MIB }));
    await eventually(
      reactor,
      "a part is done",
      () => nexus.scrubs.current().offsetBytes >= 2 * MIB,
    );
    expect(nexus.scrubs.start(plan()).id).toBe("one");
    expect(() => nexus.scrubs.start(plan({ id: "two" }))).toThrow("runs");
    nexus.scrubs.pause();
    await reactor.sleep(100);
    const { offsetBytes } = nexus.scrubs.current();
    await reactor.sleep(2_000);
    expect(nexus.scrubs.current()).toMatchObject({ state: "paused", offsetBytes });
    nexus.scrubs.resume();
    await eventually(reactor, "it goes on", () => nexus.scrubs.current().offsetBytes > 4 * MIB);
    const stopped = await nexus.scrubs.stop();
    expect(stopped.state).toBe("stopped");
    nexus.scrubs.start(plan({ id: "two", offsetBytes: stopped.offsetBytes, counts: stopped }));
    const record = await ended(bench);
    expect(record).toMatchObject({ id: "two", state: "completed", comparedBytes: BYTES });
  });
});

test("the rate is kept, and closing does not wait for it", () => {
  withNexus(2, async (bench) => {
    const { nexus, reactor } = bench;
    const fromNs = reactor.now;
    nexus.scrubs.start(plan({ bytesPerSec: MIB }));
    await reactor.sleep(8_000);
    const { offsetBytes } = nexus.scrubs.current();
    const seconds = (reactor.now - fromNs) / 1e9;
    expect(offsetBytes).toBeGreaterThan(6 * MIB);
    expect(offsetBytes).toBeLessThanOrEqual(seconds * MIB + MIB);
    // A rate so low that the next segment is due in days: another one holds at once.
    nexus.scrubs.configure(1);
    await reactor.sleep(5_000);
    nexus.scrubs.configure(MIB);
    await eventually(reactor, "it goes on", () => nexus.scrubs.current().offsetBytes > 10 * MIB);
    nexus.scrubs.configure(1);
    await reactor.sleep(5_000);
    const beforeNs = reactor.now;
    await nexus.close();
    expect(reactor.now - beforeNs).toBeLessThan(1e9);
    expect(nexus.scrubs.current()).toMatchObject({ state: "stopped" });
  });
});

test("there has to be something to compare, and an offset within the device", () => {
  withNexus(1, async ({ nexus }) => {
    expect(() => nexus.scrubs.start(plan())).toThrow("fewer than two children in sync");
    expect(() => nexus.scrubs.current()).toThrow("has not been scrubbed");
  });
  withNexus(2, async ({ nexus }) => {
    expect(() => nexus.scrubs.start(plan({ offsetBytes: BYTES + 4096 }))).toThrow("beyond");
  });
});

test("a write on its way to one child is no difference, and it is not undone", () => {
  withNexus(3, async (bench) => {
    const { nexus, reactor, replicas, host } = bench;
    // One child is slow to store: for a while the others alone have the write.
    replicas[2]!.maxDelayMs = 60;
    let stop = false;
    const writer = async () => {
      for (let value = 0; !stop; value++) {
        const offset = (value % 16) * 64 * 1024;
        expect(await host.write(offset, new Uint8Array(4096).fill(value))).toBe(IoStatus.OK);
        for (const { data } of replicas) expect(data[offset]).toBe(value & 0xff);
      }
    };
    const writing = writer();
    let transientBytes = 0;
    for (let round = 0; round < 6; round++) {
      nexus.scrubs.start(plan({ id: `round-${round}` }));
      const record = await ended(bench);
      expect(record.findings).toEqual([]);
      transientBytes += record.transientBytes;
    }
    stop = true;
    await writing;
    await reactor.sleep(100);
    // Else the test has shown nothing.
    expect(transientBytes).toBeGreaterThan(0);
  });
});
