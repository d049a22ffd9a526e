/** `trilith bench`: its command line and its results. */
import { describe, expect, test } from "bun:test";
import { parseBytes, parseDuration } from "../../../src/cli/bench.ts";
import { runCli } from "../../../src/cli/run.ts";

async function run(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const context = {
    print: (text: string) => void out.push(text),
    printError: (text: string) => void err.push(text),
  };
  const status = await runCli("trilith", ["bench", ...args], context);
  return { status, out: out.join("\n"), err: err.join("\n") };
}

describe("trilith bench", () => {
  test("sizes and durations", () => {
    expect(["512", "4k", "4K", "4KiB", "1m", "2g", "1TiB"].map(parseBytes)).toEqual([
      512,
      4096,
      4096,
      4096,
      2 ** 20,
      2 ** 31,
      2 ** 40,
    ]);
    expect(["10", "10s", "500ms", "2m", "1h"].map(parseDuration)).toEqual([
      10_000, 10_000, 500, 120_000, 3_600_000,
    ]);
    for (const wrong of ["", "k", "4x", "-1", "1.5k"]) {
      expect(() => parseBytes(wrong)).toThrow();
      expect(() => parseDuration(wrong)).toThrow();
    }
  });

  test("measures, verifies, and says so", async () => {
    const device = "malloc:///bench?size_mb=4";
    const text = await run(device, "--runtime", "50ms", "--rw", "randrw", "--verify", "--qd", "4");
    expect(text.status).toBe(0);
    expect(text.out).toMatch(/IOPS/);
    expect(text.out).toMatch(/errors: none/);
    expect(text.out).toMatch(/verified: \d+ blocks, 0 mismatches/);
    const json = await run(device, "--runtime", "50ms", "--json", "--rw", "write", "--bs", "64k");
    const result = JSON.parse(json.out);
    expect(result.reads).toBe(0);
    expect(result.writes).toBeGreaterThan(0);
    expect(result.writeBytes).toBe(result.writes * 65536);
    expect(result.latency.p99Ns).toBeGreaterThan(0);
  });

  test("refuses what it cannot do, by name", async () => {
    const unknown = await run("/dev/no-such-device");
    expect([unknown.status, unknown.err]).toEqual([4, expect.stringContaining("no-such-device")]);
    const named = await run("nvmf://storage-1/nqn.x");
    expect([named.status, named.err]).toEqual([2, expect.stringContaining('"storage-1"')]);
    const pattern = await run("malloc:///x?size_mb=1", "--rw", "sideways");
    expect([pattern.status, pattern.err]).toEqual([2, expect.stringContaining("sideways")]);
    const size = await run("malloc:///x?size_mb=1", "--bs", "100");
    expect([size.status, size.err]).toEqual([2, expect.stringContaining("100")]);
    const noWrites = await run("malloc:///x?size_mb=1", "--rw", "read", "--verify");
    expect([noWrites.status, noWrites.err]).toEqual([2, expect.stringContaining("verification")]);
  });
});
