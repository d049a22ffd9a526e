/** `trilith bench` on a device that goes away for good: it ends, and says what failed. */
import { afterEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { EngineProcess, endEngines, trilithCommand, until } from "../support/engine-process.ts";

const TEST_MS = 60_000;

afterEach(endEngines);

test(
  "load ends after the loss time-out when nobody serves the device any more",
  async () => {
    const engine = await new EngineProcess().start();
    const poolName = "p";
    await engine.rpc.createPool({ name: poolName, disks: ["malloc:///d?size_mb=64"] });
    const uuid = randomUUID();
    const sizeBytes = 16 << 20;
    const replica = await engine.rpc.createReplica({
      uuid,
      poolName,
      sizeBytes,
      thin: true,
      share: "nvmf",
    });
    const options = ["--rw", "randwrite", "--verify", "--runtime", "3s", "--loss-timeout", "1s"];
    const bench = Bun.spawn([...trilithCommand(), "bench", replica.uri, ...options], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    try {
      // It has connected and writes: the replica's clusters are taken.
      await until(
        "writes of the load",
        () => engine.rpc.getReplica({ uuid }),
        ({ space }) => space.allocatedBytes > 0 && bench.exitCode === null,
      );
      await engine.kill();
      const status = await bench.exited;
      expect(status).not.toBe(0);
      expect(await new Response(bench.stdout).text()).toMatch(/errors: (?!none)/);
    } finally {
      bench.kill("SIGKILL");
      await bench.exited;
    }
  },
  TEST_MS,
);
