/** How much a rebuild works beside hosts: against a device whose latency follows its load. */
import { describe, expect, test } from "bun:test";
import { PACE_INTERVAL_MS, PACE_SHARE_MIN } from "../../../../src/engine/nexus/limits.ts";
import { RebuildPace } from "../../../../src/engine/nexus/rebuild-pace.ts";

const CALM_NS = 200_000;

/** Hosts that ask at a steady rate, and a device that answers later the more a rebuild works. */
class Hosts {
  readonly pace = new RebuildPace();
  totals = { ops: 0, latencyNs: 0 };
  nowNs = 0;

  /** Passes a period in which `ops` requests end after `latencyNs` each. */
  pass(ops: number, latencyNs: number): void {
    this.nowNs += PACE_INTERVAL_MS * 1e6;
    this.totals = {
      ops: this.totals.ops + ops,
      latencyNs: this.totals.latencyNs + ops * latencyNs,
    };
  }

  /** So many periods under a rebuild that, working all the time, multiplies latency by `slowdown`. */
  rebuild(periods: number, slowdown: number, ops = 500): number[] {
    const seen: number[] = [];
    for (let i = 0; i < periods; i++) {
      const latencyNs = CALM_NS * (1 + (slowdown - 1) * this.pace.share);
      this.pass(ops, latencyNs);
      expect(this.pace.isDue(this.nowNs)).toBe(true);
      this.pace.sample(this.totals, this.nowNs);
      seen.push(latencyNs / CALM_NS);
    }
    return seen;
  }
}

/** Hosts that have been at work for a while when a rebuild begins. */
function calmHosts(): Hosts {
  const hosts = new Hosts();
  hosts.pass(500, CALM_NS);
  hosts.pace.begin(hosts.totals, hosts.nowNs);
  return hosts;
}

describe("a rebuild", () => {
  test("works all the time where hosts do not feel it", () => {
    const hosts = calmHosts();
    hosts.rebuild(50, 1.3);
    expect(hosts.pace.share).toBe(1);
    expect(hosts.pace.restNs(1e6)).toBe(0);
  });

  test("works so little that hosts' requests take at most twice as long", () => {
    for (const slowdown of [3, 10, 30]) {
      const hosts = calmHosts();
      const seen = hosts.rebuild(100, slowdown);
      expect(seen[0]).toBe(slowdown);
      // Settled within two seconds, and it still makes use of what they can bear.
      for (const factor of seen.slice(20)) expect(factor).toBeLessThanOrEqual(2.2);
      const mean = seen.slice(20).reduce((sum, one) => sum + one, 0) / (seen.length - 20);
      expect(mean).toBeGreaterThan(1.3);
      const { share } = hosts.pace;
      expect(hosts.pace.restNs(1e6)).toBeCloseTo(1e6 * (1 / share - 1), 3);
    }
  });

  test("goes on, if slowly, however much it is felt", () => {
    const hosts = calmHosts();
    hosts.rebuild(200, 1e6);
    expect(hosts.pace.share).toBe(PACE_SHARE_MIN);
  });

  test("takes what is left when hosts fall silent, and gives it back when they return", () => {
    const hosts = calmHosts();
    hosts.rebuild(50, 20);
    expect(hosts.pace.share).toBeLessThan(0.2);
    hosts.rebuild(20, 20, 2);
    expect(hosts.pace.share).toBe(1);
    const seen = hosts.rebuild(50, 20);
    for (const factor of seen.slice(20)) expect(factor).toBeLessThanOrEqual(2.2);
  });

  test("learns what is normal from the least it sees where nothing was seen before it", () => {
    const hosts = new Hosts();
    hosts.pace.begin(hosts.totals, hosts.nowNs);
    hosts.rebuild(10, 5, 0);
    expect(hosts.pace.calmNs).toBeNull();
    hosts.rebuild(1, 1);
    expect(hosts.pace.calmNs).toBe(CALM_NS);
    const seen = hosts.rebuild(60, 5);
    for (const factor of seen.slice(20)) expect(factor).toBeLessThanOrEqual(2.2);
  });

  test("is not misled by counters that were reset", () => {
    const hosts = calmHosts();
    hosts.totals = { ops: 0, latencyNs: 0 };
    hosts.rebuild(3, 1);
    expect(hosts.pace.share).toBe(1);
    expect(hosts.pace.calmNs).toBe(CALM_NS);
  });
});
