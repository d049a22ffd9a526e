/** One of the two threads that pass a cache line to and fro. Answers with ns per round trip. */
import { setAffinity } from "../../ffi/index.ts";
import { BALL, type PingInput, READY } from "./core-to-core.ts";

declare const self: Worker;

function serve(words: Int32Array, input: PingInput): number {
  let best = Infinity;
  for (let batch = 0; batch < input.batches; batch++) {
    const startNs = Bun.nanoseconds();
    for (let i = 0; i < input.pingsPerBatch; i++) {
      Atomics.store(words, BALL, 1);
      while (Atomics.load(words, BALL) !== 0);
    }
    best = Math.min(best, (Bun.nanoseconds() - startNs) / input.pingsPerBatch);
  }
  return best;
}

function giveBack(words: Int32Array, input: PingInput): void {
  for (let i = 0; i < input.batches * input.pingsPerBatch; i++) {
    while (Atomics.load(words, BALL) !== 1);
    Atomics.store(words, BALL, 0);
  }
}

self.onmessage = ({ data }: MessageEvent<PingInput>) => {
  setAffinity([data.core]);
  const words = new Int32Array(data.shared);
  Atomics.add(words, READY, 1);
  while (Atomics.load(words, READY) < 2) Atomics.wait(words, READY, 1, 1);
  if (data.side === 0) self.postMessage(serve(words, data));
  else giveBack(words, data);
};
