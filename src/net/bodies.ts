/** Bodies between node's streams and web streams, with back-pressure and cancellation both ways. */
import type { Readable, Writable } from "node:stream";

/**
 * A web stream of what comes out of a node stream. The source is paused while nobody reads; cancelling
 * calls `cancel`. A source that closes before its end makes the reader fail, with what `whyEnded` says.
 */
export function webBody(
  source: Readable,
  cancel: () => void,
  whyEnded: () => unknown = () => new Error("the connection ended"),
): ReadableStream<Uint8Array> {
  let done = false;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const finish = (how: () => void) => {
        if (done) return;
        done = true;
        how();
      };
      source.on("data", (chunk: Uint8Array) => {
        if (done) return;
        controller.enqueue(new Uint8Array(chunk));
        if ((controller.desiredSize ?? 0) <= 0) source.pause();
      });
      source.on("end", () => finish(() => controller.close()));
      // The reason may be known only when all that belongs to the end has been told.
      source.on("error", () => {});
      source.on("close", () => finish(() => controller.error(whyEnded())));
      source.pause();
    },
    pull() {
      source.resume();
    },
    cancel() {
      done = true;
      cancel();
    },
  });
}

function drained(sink: Writable): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      sink.off("drain", settle);
      sink.off("close", settle);
      sink.off("error", settle);
      resolve();
    };
    sink.on("drain", settle);
    sink.on("close", settle);
    sink.on("error", settle);
  });
}

/**
 * Writes a web stream into a node stream and ends it. Resolves when all is written or the sink has
 * closed (the source is cancelled then); rejects when the source fails.
 */
export async function pumpBody(
  body: ReadableStream<Uint8Array> | null,
  sink: Writable,
): Promise<void> {
  if (body === null) {
    sink.end();
    return;
  }
  const reader = body.getReader();
  let closed = false;
  const onClose = () => {
    closed = true;
    // Wakes a read that waits: nobody is there to take what comes.
    reader.cancel().catch(() => {});
  };
  sink.on("close", onClose);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || closed) break;
      if (value.length > 0 && !sink.write(value)) await drained(sink);
    }
    if (!closed) sink.end();
  } finally {
    sink.off("close", onClose);
    reader.releaseLock();
  }
}
