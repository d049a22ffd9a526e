import { describe, expect, test } from "bun:test";
import { closeFd, Op, shutdownSocket } from "../../../../ffi/index.ts";
import { AssertionError } from "../../../../src/assert.ts";
import {
  CLOSE_LINGER_MS,
  RECV_BUFFER_BYTES,
  SEND_CHUNK_BYTES,
  SEND_QUEUE_BYTES_MAX,
  SEND_SEGMENTS,
} from "../../../../src/engine/reactor/limits.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import {
  RecvBuffers,
  type StreamOwner,
  TcpStream,
} from "../../../../src/engine/reactor/tcp-stream.ts";
import { type Random, withSeed } from "../../../support/random.ts";
import { withReactor } from "../../../support/reactor.ts";
import { connectedPair } from "../../../support/tcp.ts";

/** A stream whose owner takes everything as it comes, unless a test puts another `onBytes` in. */
class End implements StreamOwner {
  readonly stream: TcpStream;
  readonly reactor: Reactor;
  readonly received: number[] = [];
  closedFor: string | undefined;
  closes = 0;
  sent = 0;
  receivedInto = 0;
  parse: (end: End) => void = (end) => end.take(end.stream.end - end.stream.pos);
  #waiters: { condition: () => boolean; resolve: () => void }[] = [];

  constructor(reactor: Reactor, buffers: RecvBuffers, fd: number) {
    this.reactor = reactor;
    this.stream = new TcpStream(reactor, buffers, fd, this);
  }

  onBytes(): void {
    this.parse(this);
    this.#check();
  }

  onReceivedInto(): void {
    this.receivedInto++;
    this.#check();
  }

  onSent(): void {
    this.sent++;
    this.#check();
  }

  onClosed(reason: string): void {
    this.closes++;
    this.closedFor = reason;
    this.#check();
  }

  /** Consumes `length` bytes. */
  take(length: number): void {
    const { pos } = this.stream;
    for (const byte of this.reactor.arena.u8.subarray(pos, pos + length)) this.received.push(byte);
    this.stream.pos = pos + length;
  }

  /** Queues bytes as small pieces, copied into the send chunk. */
  send(bytes: Uint8Array): void {
    const at = this.stream.reserve(bytes.byteLength);
    if (at < 0) throw new Error("no room to send");
    this.reactor.arena.u8.set(bytes, at);
  }

  /** Queues a buffer of its own, given back when it is sent. */
  attach(bytes: Uint8Array): void {
    const at = this.reactor.arena.alloc(bytes.byteLength, 0);
    this.reactor.arena.u8.set(bytes, at);
    if (!this.stream.attach(at, bytes.byteLength, at)) throw new Error("no room to send");
  }

  text(): string {
    return String.fromCharCode(...this.received);
  }

  /** Resolves when the condition holds; it is looked at after every event of this end. */
  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ condition, resolve }));
  }

  #check(): void {
    this.#waiters = this.#waiters.filter(({ condition, resolve }) => {
      if (!condition()) return true;
      resolve();
      return false;
    });
  }
}

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** Runs `body` with two connected ends, closes them, and checks that nothing is left behind. */
function withPair(body: (a: End, b: End, reactor: Reactor) => Promise<void>): void {
  withReactor(async (reactor) => {
    const buffers = new RecvBuffers(reactor);
    const freeBytes = reactor.arena.freeBytes;
    const [fdA, fdB] = await connectedPair(reactor);
    const [a, b] = [new End(reactor, buffers, fdA), new End(reactor, buffers, fdB)];
    a.stream.start();
    b.stream.start();
    await body(a, b, reactor);
    a.stream.close("the test is over");
    b.stream.close("the test is over");
    await a.until(() => a.closes > 0);
    await b.until(() => b.closes > 0);
    expect([a.closes, b.closes]).toEqual([1, 1]);
    expect(reactor.arena.freeBytes).toBe(freeBytes);
    expect(reactor.handlerCount).toBe(0);
  });
}

describe("a stream that sends", () => {
  test("gathers the small pieces of a turn and counts their bytes", () => {
    withPair(async (a, b, reactor) => {
      await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
      const before = reactor.stats.completions;
      for (const word of ["one ", "two ", "three"]) a.send(bytesOf(word));
      expect(a.stream.sendBytes).toBe(13);
      await b.until(() => b.received.length === 13);
      expect(b.text()).toBe("one two three");
      await a.until(() => a.sent === 1);
      expect(a.stream.sendBytes).toBe(0);
      expect(a.stream.bytesSent).toBe(13);
      expect(b.stream.bytesReceived).toBe(13);
      await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
      // That one, a send and a receive; nothing went out piece by piece.
      expect(reactor.stats.completions - before).toBeLessThanOrEqual(3);
    });
  });

  test("keeps the order of copied and attached pieces", () => {
    withPair(async (a, b) => {
      a.send(bytesOf("head:"));
      a.attach(bytesOf("data"));
      a.send(bytesOf(":next:"));
      a.attach(bytesOf("more"));
      a.send(bytesOf(":end"));
      await b.until(() => b.received.length === 23);
      expect(b.text()).toBe("head:data:next:more:end");
    });
  });

  test("sends in the next turn what is queued while a send is under way", () => {
    withPair(async (a, b, reactor) => {
      for (let i = 0; i < 20; i++) {
        a.send(bytesOf(`${i},`));
        await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
      }
      await b.until(() => b.text().endsWith("19,"));
      expect(b.text()).toBe(Array.from({ length: 20 }, (_, i) => `${i},`).join(""));
    });
  });

  test("bytes given back are not sent, be it a part or all of it", () => {
    withPair(async (a, b, reactor) => {
      a.send(bytesOf("kept, not kept"));
      a.stream.giveBack(10);
      await b.until(() => b.received.length >= 4);
      a.send(bytesOf("nothing of this"));
      a.stream.giveBack(15);
      expect(a.stream.sendBytes).toBe(0);
      const { turns } = reactor.stats;
      await reactor.sleep(20);
      expect(reactor.stats.turns - turns).toBeLessThan(10); // An empty piece keeps nobody busy.
      a.send(bytesOf(", and on"));
      await b.until(() => b.received.length >= 12);
      expect(b.text()).toBe("kept, and on");
    });
  });

  test("attached bytes can be put before the end of what was reserved", () => {
    withPair(async (a, b, reactor) => {
      const attachBefore = (tail: number, text: string) => {
        const at = reactor.arena.alloc(4096, 0);
        reactor.arena.u8.set(bytesOf(text), at);
        return a.stream.attachBefore(tail, at, text.length, at);
      };
      a.send(bytesOf("head+digest"));
      expect(attachBefore(7, ", data, ")).toBe(true);
      a.send(bytesOf(", next"));
      a.send(bytesOf("!"));
      expect(attachBefore(1, " and all of it")).toBe(true); // nothing of the reservation before it
      await b.until(() => b.received.length === 40);
      expect(b.text()).toBe("head, data, +digest, next and all of it!");
      a.send(bytesOf("x"));
      expect(() => a.stream.attachBefore(2, 0, 1, -1)).toThrow(AssertionError);
      await b.until(() => b.text().endsWith("x"));
    });
  });

  test("an empty piece between others does no harm", () => {
    withPair(async (a, b) => {
      a.attach(bytesOf("first,"));
      a.send(bytesOf("x"));
      a.stream.giveBack(1);
      a.attach(bytesOf("second"));
      await b.until(() => b.received.length === 12);
      expect(b.text()).toBe("first,second");
    });
  });

  test("a piece larger than a chunk, or empty, is an assertion", () => {
    withPair(async (a) => {
      expect(() => a.stream.reserve(SEND_CHUNK_BYTES + 1)).toThrow(AssertionError);
      expect(() => a.stream.reserve(0)).toThrow(AssertionError);
    });
  });

  test("says when its queue is full, in pieces and in bytes, and takes more when it is sent", () => {
    withPair(async (a, b, reactor) => {
      const hasRoom = () => a.stream.sendRoom;
      let pieces = 0;
      while (hasRoom()) {
        a.attach(bytesOf("x"));
        pieces++;
      }
      expect(pieces).toBe(SEND_SEGMENTS - 4);
      while (a.stream.attach(0, 1, -1)) pieces++;
      expect(pieces).toBe(SEND_SEGMENTS);
      expect(a.stream.reserve(1)).toBe(-1);
      await a.until(hasRoom);
      await b.until(() => b.received.length === SEND_SEGMENTS);
      b.stream.block();
      const at = reactor.arena.alloc(1 << 20, 0);
      for (let sum = 0; sum < SEND_QUEUE_BYTES_MAX; sum += 1 << 20) {
        expect(hasRoom()).toBe(true);
        a.stream.attach(at, 1 << 20, -1);
      }
      expect(hasRoom()).toBe(false);
      b.parse = (end) => {
        end.stream.pos = end.stream.end;
      };
      b.stream.unblock();
      const total = SEND_QUEUE_BYTES_MAX + SEND_SEGMENTS;
      await b.until(() => b.stream.bytesReceived === total);
      await a.until(() => a.stream.sendBytes === 0);
      expect(hasRoom()).toBe(true);
      reactor.arena.free(at);
    });
  });
});

describe("a stream that receives", () => {
  test("keeps what is not whole until the rest has come", () => {
    withPair(async (a, b, reactor) => {
      const seen: number[] = [];
      b.parse = (end) => {
        seen.push(end.stream.end - end.stream.pos);
        if (end.stream.end - end.stream.pos >= 6) end.take(6);
      };
      for (const part of ["ab", "cd", "ef"]) {
        a.send(bytesOf(part));
        const before = seen.length;
        await b.until(() => seen.length > before);
        await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
      }
      expect(b.text()).toBe("abcdef");
      expect(seen.at(-1)).toBe(6);
    });
  });

  test("left-over bytes lie at a multiple of four", () => {
    withPair(async (a, b) => {
      b.parse = (end) => {
        expect(end.stream.pos & 3).toBe(0);
        if (end.stream.end - end.stream.pos >= 5) end.take(5); // The next one begins unaligned.
      };
      for (let i = 0; i < 10; i++) {
        a.send(bytesOf("0123456"));
        await a.until(() => a.sent > i);
        await b.until(() => b.received.length >= 5 * (i + 1));
      }
      expect(b.text()).toBe("0123456".repeat(10).slice(0, b.received.length));
    });
  });

  test("a unit as large as a receive buffer can be had in one piece", () => {
    withPair(async (a, b) => {
      const whole = TcpStream.unitBytesMax - 3;
      b.parse = (end) => {
        if (end.received.length === 0) {
          if (end.stream.end - end.stream.pos < 3) return;
          end.take(3); // so that it begins unaligned
        }
        if (end.stream.end - end.stream.pos === whole) end.take(whole);
      };
      a.send(bytesOf("pre"));
      a.attach(new Uint8Array(whole).fill(7));
      await b.until(() => b.received.length === whole + 3);
      expect(b.received.slice(3).every((byte) => byte === 7)).toBe(true);
    });
  });

  test("receives a payload straight to where it is wanted, and then goes on", () => {
    withPair(async (a, b, reactor) => {
      const size = 1 << 20;
      const to = reactor.arena.alloc(size, 0);
      b.parse = (end) => {
        // A header of four bytes announces the payload; part of that may have come with it.
        if (end.receivedInto > 0) return end.take(end.stream.end - end.stream.pos);
        if (end.stream.end - end.stream.pos < 4) return;
        end.take(4);
        const have = end.stream.end - end.stream.pos;
        reactor.arena.u8.copyWithin(to, end.stream.pos, end.stream.end);
        end.stream.pos = end.stream.end;
        end.stream.receiveInto(to + have, size - have);
      };
      const payload = new Uint8Array(size).map((_, i) => (i * 31) & 255);
      a.send(bytesOf("head"));
      a.attach(payload);
      await b.until(() => b.receivedInto === 1);
      expect(Buffer.compare(reactor.arena.u8.subarray(to, to + size), payload)).toBe(0);
      a.send(bytesOf("tail"));
      await b.until(() => b.received.length === 8);
      expect(b.text()).toBe("headtail");
      expect(b.stream.bytesReceived).toBe(size + 8);
      reactor.arena.free(to);
    });
  });

  test("a payload may be asked for only when all that came is parsed", () => {
    withPair(async (a, b) => {
      b.parse = (end) => {
        expect(() => end.stream.receiveInto(0, 10)).toThrow(AssertionError);
        end.take(end.stream.end - end.stream.pos);
      };
      a.send(bytesOf("unparsed"));
      await b.until(() => b.received.length === 8);
    });
  });

  test("a blocked stream hands nothing over until it is unblocked", () => {
    withPair(async (a, b, reactor) => {
      b.stream.block(); // with a receive outstanding
      b.stream.block();
      expect(b.stream.blocked).toBe(true);
      a.send(bytesOf("early "));
      await a.until(() => a.sent === 1);
      await reactor.sleep(1);
      expect(b.received.length).toBe(0);
      a.send(bytesOf("late"));
      await a.until(() => a.sent === 2);
      b.stream.unblock();
      await b.until(() => b.received.length === 10);
      expect(b.text()).toBe("early late");
    });
  });

  test("an owner that blocks while it parses gets the rest after `unblock`", () => {
    withPair(async (a, b, reactor) => {
      b.parse = (end) => {
        while (end.stream.pos < end.stream.end && !end.stream.blocked) {
          end.take(1);
          if (end.received.at(-1) === 0x21) end.stream.block();
        }
      };
      a.send(bytesOf("stop!go on!and end"));
      for (const text of ["stop!", "stop!go on!"]) {
        await b.until(() => b.stream.blocked);
        await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
        expect(b.text()).toBe(text);
        b.stream.unblock();
      }
      await b.until(() => b.received.length === 18);
    });
  });

  test("a slow reader holds its peer back, not the memory", () => {
    withPair(async (a, b, reactor) => {
      b.stream.block();
      const at = reactor.arena.alloc(1 << 20, 0);
      const free = reactor.arena.freeBytes;
      // Beyond what the kernel's socket buffers take, sends stop completing.
      while (a.stream.sendRoom) a.stream.attach(at, 1 << 20, -1);
      await reactor.sleep(5);
      expect(free - reactor.arena.freeBytes).toBeLessThanOrEqual(RECV_BUFFER_BYTES);
      b.parse = (end) => {
        end.stream.pos = end.stream.end;
      };
      b.stream.unblock();
      await b.until(() => b.stream.bytesReceived === SEND_QUEUE_BYTES_MAX);
      reactor.arena.free(at);
    });
  });
});

describe("receive buffers running out", () => {
  /** Makes `count` connections whose receiving ends hold their buffer once a byte has come. */
  async function holders(reactor: Reactor, buffers: RecvBuffers, count: number) {
    const senders: End[] = [];
    const receivers: End[] = [];
    for (let i = 0; i < count; i++) {
      const [fdA, fdB] = await connectedPair(reactor);
      const sender = new End(reactor, buffers, fdA);
      const receiver = new End(reactor, buffers, fdB);
      receiver.parse = () => {}; // takes nothing: the byte stays, and with it the buffer
      senders.push(sender);
      receivers.push(receiver);
      receiver.stream.start();
      sender.send(bytesOf("x"));
    }
    for (const sender of senders) await sender.until(() => sender.sent === 1);
    return { senders, receivers };
  }

  const holding = (ends: End[]) => ends.filter(({ stream }) => stream.pos < stream.end);
  const starving = (ends: End[]) => ends.filter(({ stream }) => stream.bytesReceived === 0);

  async function settle(reactor: Reactor, condition: () => boolean): Promise<boolean> {
    for (let i = 0; i < 2_000 && !condition(); i++) await reactor.sleep(1);
    return condition();
  }

  async function closeAll(reactor: Reactor, ends: End[]): Promise<void> {
    for (const end of ends) end.stream.close("over");
    for (const end of ends) await end.until(() => end.closes > 0);
    expect(reactor.handlerCount).toBe(0);
  }

  const EXTRA = 6;

  test("those without one wait, and get one when others give theirs back", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const free = reactor.arena.freeBytes;
      const { senders, receivers } = await holders(reactor, buffers, buffers.count + EXTRA);
      expect(await settle(reactor, () => holding(receivers).length === buffers.count)).toBe(true);
      expect(starving(receivers).length).toBe(EXTRA);
      for (const end of holding(receivers).slice(0, EXTRA)) {
        end.parse = (each) => each.take(2);
        senders[receivers.indexOf(end)]!.send(bytesOf("y"));
      }
      expect(await settle(reactor, () => starving(receivers).length === 0)).toBe(true);
      await closeAll(reactor, [...senders, ...receivers]);
      expect(reactor.arena.freeBytes).toBe(free);
    });
  });

  test("one that waits and closes, or is blocked, does not use up another's turn", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const { senders, receivers } = await holders(reactor, buffers, buffers.count + EXTRA);
      expect(await settle(reactor, () => holding(receivers).length === buffers.count)).toBe(true);
      const waiting = starving(receivers);
      // All but the last cannot use a buffer any more; exactly one buffer comes free.
      const last = waiting.at(-1)!;
      waiting[0]!.stream.close("gone");
      for (const end of waiting.slice(1, -1)) end.stream.block();
      holding(receivers)[0]!.stream.close("gone");
      expect(await settle(reactor, () => last.stream.bytesReceived === 1)).toBe(true);
      await closeAll(reactor, [...senders, ...receivers]);
    });
  });

  test("one whose peer leaves while it waits ends, and passes the buffer on", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const { senders, receivers } = await holders(reactor, buffers, buffers.count + 2);
      expect(await settle(reactor, () => holding(receivers).length === buffers.count)).toBe(true);
      for (const sender of senders) sender.stream.close("gone");
      for (const end of receivers) end.parse = (each) => each.take(1);
      holding(receivers)[0]!.stream.close("gone");
      expect(await settle(reactor, () => starving(receivers).length === 0)).toBe(true);
      await closeAll(reactor, [...senders, ...receivers]);
    });
  });
});

describe("the end of a stream", () => {
  test("an end of the peer is told once, with its reason", () => {
    withPair(async (a, b) => {
      a.stream.close("enough");
      await b.until(() => b.closes > 0);
      expect(a.closedFor).toBe("enough");
      expect(b.closedFor).toBe("closed by the peer");
      a.stream.close("again");
      expect(a.closes).toBe(1);
    });
  });

  test("bytes before the end are handed over first", () => {
    withPair(async (a, b) => {
      a.send(bytesOf("last words"));
      a.stream.closeAfterSend("said");
      expect(a.stream.reserve(1)).toBe(-1);
      expect(a.closes).toBe(0);
      await b.until(() => b.closes > 0);
      expect(b.text()).toBe("last words");
      expect(a.closedFor).toBe("said");
    });
  });

  test("with nothing queued `closeAfterSend` closes at once", () => {
    withPair(async (a) => {
      a.stream.closeAfterSend("nothing to say");
      await a.until(() => a.closes === 1);
      a.stream.closeAfterSend("again");
      expect(a.closedFor).toBe("nothing to say");
    });
  });

  test("after `closeAfterSend` nothing is handed over, whatever the owner asks", () => {
    withPair(async (a, b, reactor) => {
      b.stream.block(); // so that what `a` queues cannot all be sent
      const at = reactor.arena.alloc(1 << 20, 0);
      while (a.stream.sendRoom) a.stream.attach(at, 1 << 20, -1);
      a.stream.closeAfterSend("refused");
      b.send(bytesOf("more of it"));
      await b.until(() => b.sent === 1);
      a.stream.unblock();
      await reactor.sleep(5);
      expect(a.received.length).toBe(0);
      expect(a.sent).toBe(0);
      b.parse = (end) => {
        end.stream.pos = end.stream.end;
      };
      b.stream.unblock();
      await a.until(() => a.closes === 1);
      expect(a.closedFor).toBe("refused");
      reactor.arena.free(at);
    });
  });

  test("a peer that takes nothing does not hold a refused connection for ever", () => {
    withPair(async (a, b, reactor) => {
      b.stream.block();
      const at = reactor.arena.alloc(1 << 20, 0);
      while (a.stream.sendRoom) a.stream.attach(at, 1 << 20, -1);
      await reactor.sleep(5);
      while (a.stream.sendRoom) a.stream.attach(at, 1 << 20, -1);
      const startNs = reactor.now;
      a.stream.closeAfterSend("refused");
      await a.until(() => a.closes === 1);
      expect(reactor.now - startNs).toBeGreaterThanOrEqual(CLOSE_LINGER_MS * 1e6);
      reactor.arena.free(at);
    });
  });

  test("an owner may close while it parses, with bytes left over", () => {
    withPair(async (a, b) => {
      b.parse = (end) => end.stream.close("malformed");
      a.send(bytesOf("garbage"));
      await b.until(() => b.closes > 0);
      expect(b.closedFor).toBe("malformed");
      await a.until(() => a.closes > 0);
    });
  });

  test("what is queued or outstanding when it closes is given back", () => {
    withPair(async (a, b, reactor) => {
      b.stream.block();
      for (let i = 0; i < 8; i++) a.attach(new Uint8Array(1 << 19));
      a.send(bytesOf("unsent"));
      await reactor.submit(Op.NOP, -1, 0, 0, 0, 0);
      a.send(bytesOf("queued behind it"));
      a.stream.close("gone");
      await a.until(() => a.closes === 1);
      // withPair checks that the arena is whole again.
    });
  });

  test("a payload under way when the peer leaves ends the stream, not the process", () => {
    withPair(async (a, b, reactor) => {
      const to = reactor.arena.alloc(1 << 20, 0);
      b.parse = (end) => {
        end.take(end.stream.end - end.stream.pos);
        end.stream.receiveInto(to, 1 << 20);
      };
      a.send(bytesOf("head"));
      await b.until(() => b.received.length === 4);
      a.stream.close("gone");
      await b.until(() => b.closes === 1);
      expect(b.receivedInto).toBe(0);
      reactor.arena.free(to);
    });
  });

  test("a connection that the peer resets ends with the kernel's reason", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const [fd, other] = await connectedPair(reactor);
      const end = new End(reactor, buffers, fd);
      // Unread bytes at the other end turn its close into a reset.
      end.send(bytesOf("never read"));
      await end.until(() => end.sent === 1);
      closeFd(other);
      end.stream.start();
      await end.until(() => end.closes === 1);
      expect(["ECONNRESET", "closed by the peer"]).toContain(end.closedFor!);
      expect(reactor.handlerCount).toBe(0);
    });
  });

  test("sending to a peer that is gone ends the stream", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const [fd, other] = await connectedPair(reactor);
      const end = new End(reactor, buffers, fd); // not started: it learns of it by sending only
      shutdownSocket(fd);
      end.send(bytesOf("into the void"));
      await end.until(() => end.closes === 1);
      expect(end.closedFor).toBe("EPIPE");
      closeFd(other);
    });
  });
});

describe("a connection handed over", () => {
  test("goes on elsewhere with the bytes that were not parsed", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const free = reactor.arena.freeBytes;
      const [fdA, fdB] = await connectedPair(reactor);
      const a = new End(reactor, buffers, fdA);
      a.stream.start();
      const first = new End(reactor, buffers, fdB);
      let rest: Uint8Array | undefined;
      first.parse = (end) => {
        end.take(6);
        rest = end.stream.detach();
      };
      first.stream.start();
      a.send(bytesOf("hello world"));
      await first.until(() => rest !== undefined);
      expect(new TextDecoder().decode(rest)).toBe("world");
      const second = new End(reactor, buffers, fdB);
      expect(second.stream.startWith(rest!)).toBe(true);
      expect(second.text()).toBe("world");
      a.send(bytesOf("!"));
      await second.until(() => second.text() === "world!");
      expect(first.closes).toBe(0);
      second.stream.close("over");
      await a.until(() => a.closes === 1);
      await second.until(() => second.closes === 1);
      expect(reactor.handlerCount).toBe(0);
      expect(reactor.arena.freeBytes).toBe(free);
    });
  });

  test("not while an answer is still being sent", () => {
    withPair(async (a, b) => {
      const attempts: boolean[] = [];
      b.parse = (end) => {
        end.send(bytesOf("answer"));
        attempts.push(end.stream.detach() !== undefined);
        end.take(end.stream.end - end.stream.pos);
      };
      a.send(bytesOf("ask"));
      await a.until(() => a.text() === "answer");
      expect(attempts).toEqual([false]);
    });
  });

  test("waits for memory when there is none for its bytes, and can begin without any", () => {
    withReactor(async (reactor) => {
      const buffers = new RecvBuffers(reactor);
      const [fdA, fdB] = await connectedPair(reactor);
      const a = new End(reactor, buffers, fdA);
      const b = new End(reactor, buffers, fdB);
      const taken: number[] = [];
      for (;;) {
        const at = reactor.arena.alloc(4096, 0);
        if (at < 0) break;
        taken.push(at);
      }
      expect(b.stream.startWith(bytesOf("abc"))).toBe(false);
      expect(a.stream.reserve(1)).toBe(-1);
      for (const at of taken) reactor.arena.free(at);
      expect(b.stream.startWith(bytesOf("abc"))).toBe(true);
      expect(a.stream.startWith(new Uint8Array(0))).toBe(true);
      b.send(bytesOf("x"));
      await a.until(() => a.text() === "x");
      expect(b.text()).toBe("abc");
      a.stream.close("over");
      b.stream.close("over");
      await b.until(() => b.closes === 1);
    });
  });
});

describe("random traffic", () => {
  /** One direction: a byte pattern cut into random pieces, parsed in random units. */
  class Traffic {
    readonly from: End;
    readonly to: End;
    readonly random: Random;
    readonly total: number;
    sentBytes = 0;
    checkedBytes = 0;

    constructor(from: End, to: End, random: Random, total: number) {
      this.from = from;
      this.to = to;
      this.random = random;
      this.total = total;
      to.parse = () => this.#parse();
    }

    static byteAt(position: number): number {
      return (position * 2654435761) >>> 24;
    }

    pump(): void {
      const { stream, reactor } = this.from;
      while (this.sentBytes < this.total && stream.sendRoom && !stream.closing) {
        const length = Math.min(
          this.total - this.sentBytes,
          this.random.between(1, this.random.chance(0.2) ? 200_000 : 300),
        );
        let at: number;
        if (length <= SEND_CHUNK_BYTES && this.random.chance(0.7)) {
          at = stream.reserve(length);
          if (at < 0) return;
        } else {
          at = reactor.arena.alloc(length, 1 << 20);
          if (at < 0) return;
          if (!stream.attach(at, length, at)) throw new Error("sendRoom said there was room");
        }
        for (let i = 0; i < length; i++) {
          reactor.arena.u8[at + i] = Traffic.byteAt(this.sentBytes + i);
        }
        this.sentBytes += length;
        if (this.random.chance(0.3)) return;
      }
    }

    #parse(): void {
      const { stream, reactor } = this.to;
      while (stream.pos < stream.end && !stream.blocked) {
        const have = stream.end - stream.pos;
        const unit = this.random.between(1, 5_000);
        if (unit > have && this.random.chance(0.5)) return; // "not whole yet"
        const length = Math.min(unit, have);
        for (let i = 0; i < length; i++) {
          if (reactor.arena.u8[stream.pos + i] !== Traffic.byteAt(this.checkedBytes + i)) {
            throw new Error(`byte ${this.checkedBytes + i} is wrong`);
          }
        }
        this.checkedBytes += length;
        stream.pos += length;
        if (this.random.chance(0.02)) {
          stream.block();
          reactor.after(this.random.below(2), () => stream.unblock());
        }
      }
    }

    get finished(): boolean {
      return this.checkedBytes === this.total;
    }
  }

  test("every byte arrives once and in order, in both directions", () => {
    withSeed(import.meta.path, (random) => {
      withPair(async (a, b, reactor) => {
        const ways = [new Traffic(a, b, random, 5 << 20), new Traffic(b, a, random, 5 << 20)];
        while (!ways.every((way) => way.finished)) {
          for (const way of ways) way.pump();
          // A unit that was "not whole yet" when the last bytes came is looked at again.
          for (const way of ways) {
            if (way.sentBytes === way.total) way.to.onBytes();
          }
          if (a.closes + b.closes > 0) throw new Error("a stream closed by itself");
          await reactor.sleep(random.chance(0.5) ? 0 : 0.1);
        }
      });
    });
  });
});
