import { expect, test } from "bun:test";
import { HostPressure } from "../../../../src/engine/nexus/host-pressure.ts";

const MS = 1e6;

/** A host with so many requests per ms, whose latency depends on whether the background work is quiet. */
class Host {
  readonly pressure = new HostPressure();
  nowNs = 0;
  requests = 0;
  latencyNs = 0;
  quietMs = 0;
  busyMs = 0;

  /** Lets `ms` pass, with background work unless it is told to be quiet. */
  pass(ms: number, quietNs: number, busyNs: number, perMs = 1): void {
    let left = ms;
    while (left > 0) {
      const pauseMs = this.pressure.pauseMs(this.nowNs, this.requests, this.latencyNs);
      const stepMs = Math.min(left, pauseMs > 0 ? pauseMs : 10);
      if (pauseMs > 0) this.quietMs += stepMs;
      else this.busyMs += stepMs;
      this.nowNs += stepMs * MS;
      this.requests += stepMs * perMs;
      this.latencyNs += stepMs * perMs * (pauseMs > 0 ? quietNs : busyNs);
      left -= stepMs;
    }
  }

  get busyShare(): number {
    return this.busyMs / (this.busyMs + this.quietMs);
  }
}

test("nobody is given way to when there is nobody, or when they do not mind", () => {
  const idle = new Host();
  idle.pass(60_000, 0, 0, 0);
  expect(idle.busyShare).toBeGreaterThan(0.97);
  const calm = new Host();
  calm.pass(60_000, 500_000, 900_000);
  expect(calm.busyShare).toBeGreaterThan(0.97);
  // Twice almost nothing is still almost nothing.
  const fast = new Host();
  fast.pass(60_000, 20_000, 180_000);
  expect(fast.busyShare).toBeGreaterThan(0.97);
});

test("hosts that are slowed down are left alone for longer and longer", () => {
  const host = new Host();
  host.pass(60_000, 500_000, 5_000_000);
  expect(host.busyShare).toBeLessThan(0.1);
  expect(host.pressure.isYielding).toBe(true);
  // When they are not any more, it is back at work within seconds.
  host.pass(10_000, 500_000, 600_000);
  host.quietMs = 0;
  host.busyMs = 0;
  host.pass(30_000, 500_000, 600_000);
  expect(host.busyShare).toBeGreaterThan(0.95);
});

test("hosts that are slow of themselves are no reason to wait", () => {
  const host = new Host();
  host.pass(20_000, 500_000, 600_000);
  // Their own load rises: ten times the latency, whether the work is quiet or not.
  host.pass(20_000, 6_000_000, 6_000_000);
  host.quietMs = 0;
  host.busyMs = 0;
  host.pass(60_000, 6_000_000, 6_000_000);
  expect(host.busyShare).toBeGreaterThan(0.95);
});

test("sums that fall back, because a child left, are not taken for a latency", () => {
  const host = new Host();
  host.pass(5_000, 500_000, 600_000);
  host.requests = 0;
  host.latencyNs = 0;
  host.quietMs = 0;
  host.busyMs = 0;
  host.pass(5_000, 500_000, 600_000);
  expect(host.busyShare).toBeGreaterThan(0.9);
});
