/** An application on a volume of a test's cluster: writes and reads that are verified at the end. */
import { expect } from "bun:test";
import type { Volume } from "../../src/client/types.ts";
import { type DemoLoad, startDemoLoad } from "../../src/demo/load.ts";
import { waitUntil } from "./cluster.ts";
import { testSeed } from "./random.ts";

export interface Application {
  /** Waits until it has done `count` more requests. */
  progresses(count?: number): Promise<void>;
  /** Ends it and reads everything back: no request may have failed, no byte may differ. */
  endsIntact(): Promise<void>;
  /** For the end of the test. */
  terminate(): Promise<void>;
}

/** Begins to use the first `bytes` of a published volume. */
export async function startApplication(volume: Volume, bytes: number): Promise<Application> {
  const uri = volume.state.target?.deviceUri ?? "";
  const seed = testSeed();
  console.log(`application with seed ${seed}`);
  const load: DemoLoad = await startDemoLoad(
    { uri, requestBytes: 4096, queueDepth: 4, readPercent: 50, size: bytes, seed },
    (error) => {
      throw error;
    },
  );
  const done = async (): Promise<number> => {
    const { reads, writes } = await load.stats();
    return reads + writes;
  };
  return {
    async progresses(count = 300) {
      const before = await done();
      await waitUntil("the application going on", done, (now) => now >= before + count);
    },
    async endsIntact() {
      const { mismatches, errorCount, unreadable, blocksVerified } = await load.finish();
      expect({ mismatches, errorCount, unreadable }).toEqual({
        mismatches: 0,
        errorCount: 0,
        unreadable: 0,
      });
      expect(blocksVerified).toBeGreaterThan(0);
    },
    terminate: () => load.terminate(),
  };
}
