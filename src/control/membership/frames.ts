/**
 * Raft messages on a stream: each is its length (u32, little-endian) followed by its bytes. TLS
 * protects what is on the way; the length is checked before anything is kept.
 */
import { TrilithError } from "../../errors.ts";

const LENGTH_BYTES = 4;

/** Several messages as one run of bytes, to be written at once. */
export function joinFrames(messages: readonly Uint8Array[]): Buffer {
  let bytes = 0;
  for (const message of messages) bytes += LENGTH_BYTES + message.length;
  const all = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (const message of messages) {
    at = all.writeUInt32LE(message.length, at);
    all.set(message, at);
    at += message.length;
  }
  return all;
}

/** Takes a stream apart again, however it is cut into chunks. */
export class FrameReader {
  readonly #maxBytes: number;
  #rest: Buffer<ArrayBufferLike> = Buffer.alloc(0);

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The messages that `chunk` completes. `InvalidArgument` when one announces too many bytes. */
  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    const messages: Uint8Array[] = [];
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = bytes.readUInt32LE(at);
      if (length > this.#maxBytes) {
        throw new TrilithError("InvalidArgument", `a message of ${length} bytes is too large`);
      }
      if (bytes.length - at - LENGTH_BYTES < length) break;
      at += LENGTH_BYTES;
      messages.push(new Uint8Array(bytes.subarray(at, at + length)));
      at += length;
    }
    this.#rest = bytes.subarray(at);
    return messages;
  }
}
