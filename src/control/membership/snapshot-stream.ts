/**
 * A snapshot on its way to another member:
 *
 * | bytes | what |
 * |-------|------|
 * | 4     | length of the message, little-endian |
 * | 8     | length of the file, little-endian |
 * | n     | the message |
 * | n     | the file |
 * | 32    | SHA-256 of everything before |
 *
 * The receiver keeps nothing of a stream that is short, long, or whose sum is wrong.
 */
import { open, rm } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import { TrilithError } from "../../errors.ts";
import { MESSAGE_BYTES_MAX, SNAPSHOT_BYTES_MAX } from "./limits.ts";

const HEADER_BYTES = 12;
const SUM_BYTES = 32;
const CHUNK_BYTES = 256 * 1024;

async function write(sink: Writable, bytes: Uint8Array): Promise<void> {
  if (sink.destroyed) throw new TrilithError("Unavailable", "the connection ended");
  if (sink.write(bytes)) return;
  await new Promise<void>((resolve, reject) => {
    const stopListening = () => {
      sink.off("drain", onDrain);
      sink.off("close", onEnd);
      sink.off("error", onEnd);
    };
    const onDrain = () => {
      stopListening();
      resolve();
    };
    const onEnd = () => {
      stopListening();
      reject(new TrilithError("Unavailable", "the connection ended"));
    };
    sink.on("drain", onDrain);
    sink.on("close", onEnd);
    sink.on("error", onEnd);
  });
}

/** Writes message and file. Does not end the stream. */
export async function writeSnapshot(
  sink: Writable,
  message: Uint8Array,
  path: string,
): Promise<void> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const sum = new Bun.CryptoHasher("sha256");
    const send = async (bytes: Uint8Array) => {
      sum.update(bytes);
      await write(sink, bytes);
    };
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(message.length, 0);
    header.writeBigUInt64LE(BigInt(size), 4);
    await send(header);
    await send(message);
    for (let left = size; left > 0; ) {
      // A buffer of its own for each chunk: the stream still holds the one before.
      const { bytesRead, buffer } = await file.read(
        Buffer.allocUnsafe(Math.min(left, CHUNK_BYTES)),
      );
      if (bytesRead === 0) throw new TrilithError("Corrupted", `${path} became shorter`);
      await send(buffer.subarray(0, bytesRead));
      left -= bytesRead;
    }
    await write(sink, sum.digest());
  } finally {
    await file.close();
  }
}

/** Reads exact numbers of bytes from a node stream; fails when it ends early or falls silent. */
function exactReader(source: Readable, silenceMs: number) {
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  let rest: Uint8Array = new Uint8Array(0);
  const more = async (): Promise<boolean> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silent = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(
        () => reject(new TrilithError("Timeout", "the sender of the snapshot fell silent")),
        silenceMs,
      );
    });
    try {
      const next = await Promise.race([iterator.next(), silent]);
      if (next.done === true) return false;
      rest = next.value;
      return true;
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    /** The next bytes, at least one and at most `max`. */
    async some(max: number): Promise<Uint8Array> {
      while (rest.length === 0) {
        if (!(await more())) throw new TrilithError("Corrupted", "the snapshot is cut short");
      }
      const bytes = rest.subarray(0, max);
      rest = rest.subarray(bytes.length);
      return bytes;
    },
    async exactly(count: number): Promise<Buffer> {
      const bytes = Buffer.alloc(count);
      for (let at = 0; at < count; ) {
        const part = await this.some(count - at);
        bytes.set(part, at);
        at += part.length;
      }
      return bytes;
    },
    async end(): Promise<void> {
      while (rest.length === 0) if (!(await more())) return;
      throw new TrilithError("Corrupted", "the snapshot is longer than it says");
    },
  };
}

/**
 * Receives a snapshot into the file `path`, which is there and synced when this resolves with the
 * message, and is not when it rejects (`Corrupted`, `ResourceExhausted`, `Timeout`).
 */
export async function readSnapshot(
  source: Readable,
  path: string,
  silenceMs: number,
): Promise<Uint8Array> {
  const reader = exactReader(source, silenceMs);
  const sum = new Bun.CryptoHasher("sha256");
  const header = await reader.exactly(HEADER_BYTES);
  sum.update(header);
  const messageBytes = header.readUInt32LE(0);
  const fileBytes = Number(header.readBigUInt64LE(4));
  if (messageBytes > MESSAGE_BYTES_MAX || fileBytes > SNAPSHOT_BYTES_MAX) {
    throw new TrilithError("ResourceExhausted", `a snapshot of ${fileBytes} bytes is too large`);
  }
  const message = await reader.exactly(messageBytes);
  sum.update(message);
  const file = await open(path, "wx", 0o600);
  try {
    for (let left = fileBytes; left > 0; ) {
      const part = await reader.some(left);
      sum.update(part);
      await file.writeFile(part);
      left -= part.length;
    }
    const expected = await reader.exactly(SUM_BYTES);
    await reader.end();
    if (!expected.equals(sum.digest())) {
      throw new TrilithError("Corrupted", "the snapshot's checksum is wrong");
    }
    await file.sync();
    await file.close();
  } catch (error) {
    await file.close().catch(() => {});
    await rm(path, { force: true });
    throw error;
  }
  return message;
}
