/**
 * How far apart two cores are: the time a cache line takes from one to the other and back. A
 * virtual machine's CPUs may move on their host; results change by a factor of two with it.
 */
import { PING_BATCHES, PINGS_PER_BATCH } from "./limits.ts";

/** Word of the shared memory that goes to and fro, and the one that counts threads that are ready. */
export const BALL = 0;
export const READY = 32;

/** What a ping thread is given. */
export interface PingInput {
  readonly shared: SharedArrayBuffer;
  readonly core: number;
  /** 0 serves the ball and measures, 1 returns it. */
  readonly side: 0 | 1;
  readonly batches: number;
  readonly pingsPerBatch: number;
}

/** Round trip of a cache line between two cores, in ns; null when it cannot be told. */
export async function coreToCoreNs(a: number, b: number): Promise<number | null> {
  if (a === b) return null;
  const shared = new SharedArrayBuffer(512);
  const workers: Worker[] = [];
  try {
    return await new Promise<number>((resolve, reject) => {
      for (const side of [0, 1] as const) {
        const worker = new Worker(new URL("./core-to-core-worker.ts", import.meta.url));
        workers.push(worker);
        worker.onerror = (event) => reject(new Error(event.message));
        worker.onmessage = ({ data }: MessageEvent<number>) => {
          if (side === 0) resolve(data);
        };
        const input: PingInput = {
          shared,
          core: side === 0 ? a : b,
          side,
          batches: PING_BATCHES,
          pingsPerBatch: PINGS_PER_BATCH,
        };
        worker.postMessage(input);
      }
    });
  } finally {
    for (const worker of workers) worker.terminate();
  }
}
