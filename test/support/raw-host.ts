/**
 * An NVMe/TCP host that does exactly what a test says: PDUs by hand, or whole commands. It runs on
 * the test's reactor, beside the target.
 */
import {
  allocNative,
  closeFd,
  crc32cOf,
  encodeSockaddr,
  MsgFlag,
  Op,
  type SocketAddress,
  shutdownSocket,
  tcpSocket,
} from "../../ffi/index.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { SglId } from "../../src/nvme/constants.ts";
import {
  connectCommand,
  connectData,
  propertySetCommand,
  type SqeWords,
} from "../../src/nvme/host-commands.ts";
import { encodeIc, PduBytes, PduFlag, PduType, pduWord0 } from "../../src/nvme/pdu.ts";

const RECEIVE_BYTES = 256 << 10;

/** A PDU as it came. */
export interface Pdu {
  readonly type: number;
  readonly flags: number;
  /** From the common header to the end of the PDU. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Payload, digest taken off. */
  readonly data: Uint8Array;
}

/** How a command ended. */
export interface Completion {
  /** SCT << 8 | SC; Do Not Retry (0x4000) and More taken off. */
  readonly status: number;
  readonly dnr: boolean;
  readonly dword0: number;
  readonly dword1: number;
  /** undefined when the last data PDU said "success" and no response came. */
  readonly sqHead: number | undefined;
  readonly data: Uint8Array;
}

export interface RawHostOptions {
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
  /** HPDA of the ICReq. */
  readonly dataAlign?: number;
  /** Answer R2Ts with the data of the command. Default true. */
  readonly answersR2t?: boolean;
}

/** What a command carries or wants. */
export interface Payload {
  /** Data to the controller. */
  readonly data?: Uint8Array;
  /** Send it when asked, even if it would fit the capsule. */
  readonly byR2t?: boolean;
  /** Bytes of data wanted from the controller. */
  readonly room?: number;
}

interface Outstanding {
  readonly resolve: (completion: Completion) => void;
  readonly data: Uint8Array | undefined;
  received: Uint8Array;
}

const IN_CAPSULE_BYTES = 8192;

function u32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

export class RawHost {
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #options: RawHostOptions;
  readonly #outstanding = new Map<number, Outstanding>();
  /** PDUs that no command took, oldest first. */
  readonly inbox: Pdu[] = [];
  #wakers: (() => void)[] = [];
  #digests = false;
  #pump: Promise<void> | null = null;
  /** The last send; sends of several pieces must not mix. */
  #sending: Promise<void> = Promise.resolve();
  #ended = false;
  #isPaused = false;
  #closed = false;
  #nextCid = 1;
  maxH2cData = 0;

  constructor(reactor: Reactor, fd: number, options: RawHostOptions) {
    this.#reactor = reactor;
    this.#fd = fd;
    this.#options = options;
  }

  /** Connects the socket and sends nothing. */
  static async socket(
    reactor: Reactor,
    at: SocketAddress,
    options: RawHostOptions = {},
  ): Promise<RawHost> {
    const fd = tcpSocket(at.address, { nonBlocking: false });
    const { memory, byteLength } = encodeSockaddr(at);
    const result = await reactor.submit(Op.CONNECT, fd, memory.address, 0, byteLength, 0);
    // Memory that the kernel reads must be alive until it has: it is named again here.
    if (result < 0 || memory.byteLength === 0) {
      closeFd(fd);
      throw new Error(`no connection: ${result}`);
    }
    return new RawHost(reactor, fd, options);
  }

  /** Connects and negotiates. */
  static async negotiate(
    reactor: Reactor,
    at: SocketAddress,
    options: RawHostOptions = {},
  ): Promise<RawHost> {
    const host = await RawHost.socket(reactor, at, options);
    host.receive();
    const { headerDigest = false, dataDigest = false, dataAlign = 0 } = options;
    await host.send(
      encodeIc("request", { version: 0, dataAlign, headerDigest, dataDigest, max: 0 }),
    );
    const answer = await host.nextPdu();
    if (answer?.type !== PduType.IC_RESP) throw new Error(`no ICResp: ${answer?.type}`);
    host.maxH2cData = answer.view.getUint32(12, true);
    host.#digests = true;
    return host;
  }

  // ---------------------------------------------------------------------------------- receiving

  /** Begins to receive. */
  receive(): void {
    this.#pump ??= this.#run();
  }

  /** Stops receiving, for good; what has been asked of the kernel already still comes. */
  pause(): void {
    this.#isPaused = true;
  }

  async #run(): Promise<void> {
    const memory = allocNative(RECEIVE_BYTES);
    let rest = new Uint8Array(0);
    while (!this.#isPaused) {
      const n = await this.#reactor.submit(Op.RECV, this.#fd, memory.address, RECEIVE_BYTES, 0, 0);
      if (n <= 0) break;
      const bytes = new Uint8Array(rest.byteLength + n);
      bytes.set(rest);
      bytes.set(memory.u8.subarray(0, n), rest.byteLength);
      let at = 0;
      while (bytes.byteLength - at >= 8) {
        const length = u32(bytes, at + 4);
        if (length < 8) throw new Error(`PDU of ${length} bytes`);
        if (bytes.byteLength - at < length) break;
        this.#take(bytes.slice(at, at + length));
        at += length;
      }
      rest = bytes.slice(at);
    }
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const waker of this.#wakers.splice(0)) waker();
  }

  #take(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    const flags = bytes[1]!;
    const headerBytes = bytes[2]!;
    const { headerDigest = false } = this.#options;
    if (this.#digests && headerDigest && bytes[0] !== PduType.C2H_TERM_REQ) {
      if ((flags & PduFlag.HEADER_DIGEST) === 0) throw new Error("header digest missing");
      if (u32(bytes, headerBytes) !== crc32cOf(bytes.slice(0, headerBytes))) {
        throw new Error("header digest wrong");
      }
    }
    let data = new Uint8Array(0);
    if (bytes[0] === PduType.C2H_DATA) {
      const dataAt = bytes[3]!;
      const length = view.getUint32(16, true);
      data = bytes.slice(dataAt, dataAt + length);
      const hasDigest = (flags & PduFlag.DATA_DIGEST) !== 0;
      if (hasDigest !== (this.#options.dataDigest ?? false)) throw new Error("data digest flag");
      if (hasDigest && u32(bytes, dataAt + length) !== crc32cOf(data)) {
        throw new Error("data digest wrong");
      }
      if (bytes.byteLength !== dataAt + length + (hasDigest ? 4 : 0)) throw new Error("PLEN");
    }
    this.#dispatch({ type: bytes[0]!, flags, bytes, view, data });
  }

  #dispatch(pdu: Pdu): void {
    const isTaken =
      (pdu.type === PduType.C2H_DATA && this.#takeData(pdu)) ||
      (pdu.type === PduType.CAPSULE_RESP && this.#takeResponse(pdu)) ||
      (pdu.type === PduType.R2T && this.#takeR2t(pdu));
    if (!isTaken) {
      this.inbox.push(pdu);
      this.#wake();
    }
  }

  #takeData(pdu: Pdu): boolean {
    const cid = pdu.view.getUint16(8, true);
    const command = this.#outstanding.get(cid);
    if (command === undefined) return false;
    const offset = pdu.view.getUint32(12, true);
    const received = new Uint8Array(offset + pdu.data.byteLength);
    received.set(command.received);
    received.set(pdu.data, offset);
    command.received = received;
    if ((pdu.flags & PduFlag.SUCCESS) !== 0) {
      this.#outstanding.delete(cid);
      command.resolve({
        status: 0,
        dnr: false,
        dword0: 0,
        dword1: 0,
        sqHead: undefined,
        data: received,
      });
    }
    return true;
  }

  #takeResponse(pdu: Pdu): boolean {
    const cid = pdu.view.getUint16(20, true);
    const command = this.#outstanding.get(cid);
    if (command === undefined) return false;
    this.#outstanding.delete(cid);
    const field = pdu.view.getUint16(22, true) >>> 1;
    command.resolve({
      status: field & 0x7ff,
      dnr: (field & 0x4000) !== 0,
      dword0: pdu.view.getUint32(8, true),
      dword1: pdu.view.getUint32(12, true),
      sqHead: pdu.view.getUint16(16, true),
      data: command.received,
    });
    return true;
  }

  #takeR2t(pdu: Pdu): boolean {
    if (this.#options.answersR2t === false) return false;
    const cid = pdu.view.getUint16(8, true);
    const data = this.#outstanding.get(cid)?.data;
    if (data === undefined) return false;
    this.answerR2t(pdu, data).catch(() => {}); // The connection may be gone; the test will see.
    return true;
  }

  /** Sends what an R2T asks for, in PDUs of at most MAXH2CDATA. */
  async answerR2t(r2t: Pdu, data: Uint8Array): Promise<void> {
    const cid = r2t.view.getUint16(8, true);
    const tag = r2t.view.getUint16(10, true);
    const from = r2t.view.getUint32(12, true);
    const length = r2t.view.getUint32(16, true);
    for (let at = 0; at < length; at += this.maxH2cData) {
      const n = Math.min(this.maxH2cData, length - at);
      const part = data.slice(from + at, from + at + n);
      await this.send(
        this.h2cData({ cid, tag, offset: from + at, data: part, last: at + n === length }),
      );
    }
  }

  /** The next PDU that no command took; null at the end of the connection. */
  async nextPdu(): Promise<Pdu | null> {
    for (;;) {
      const pdu = this.inbox.shift();
      if (pdu !== undefined) return pdu;
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#wakers.push(resolve));
    }
  }

  /** Resolves when the target has closed the connection; what came before is in the inbox. */
  async ended(): Promise<void> {
    this.receive();
    while (!this.#ended) await new Promise<void>((resolve) => this.#wakers.push(resolve));
  }

  // ------------------------------------------------------------------------------------ sending

  /** Sends bytes as they are, behind those of earlier calls. Throws when the connection is gone. */
  send(bytes: Uint8Array): Promise<void> {
    const sent = this.#sending.then(() => this.#sendNow(bytes));
    this.#sending = sent.catch(() => {});
    return sent;
  }

  async #sendNow(bytes: Uint8Array): Promise<void> {
    const memory = allocNative(Math.max(bytes.byteLength, 8));
    memory.u8.set(bytes);
    const flags = MsgFlag.NOSIGNAL | MsgFlag.WAITALL;
    let done = 0;
    // `memory` is named in the condition so that it lives until the kernel has read it.
    while (done < bytes.byteLength && memory.address > 0) {
      const left = bytes.byteLength - done;
      const at = memory.address + done;
      const n = await this.#reactor.submit(Op.SEND, this.#fd, at, left, 0, flags);
      if (n <= 0) throw new Error(`send: ${n}`);
      done += n;
    }
  }

  /** A PDU of a header (without digests) and data, with what was negotiated added to it. */
  pdu(header: Uint8Array, data: Uint8Array = new Uint8Array(0)): Uint8Array {
    const { headerDigest = false, dataDigest = false } = this.#options;
    const headerEnd = header.byteLength + (headerDigest ? 4 : 0);
    const hasData = data.byteLength > 0;
    const digest = hasData && dataDigest ? 4 : 0;
    const bytes = new Uint8Array(headerEnd + data.byteLength + digest);
    bytes.set(header);
    bytes[1] =
      bytes[1]! |
      (headerDigest ? PduFlag.HEADER_DIGEST : 0) |
      (digest > 0 ? PduFlag.DATA_DIGEST : 0);
    bytes[3] = hasData ? headerEnd : 0;
    const view = new DataView(bytes.buffer);
    view.setUint32(4, bytes.byteLength, true);
    if (headerDigest) {
      view.setUint32(header.byteLength, crc32cOf(bytes.slice(0, header.byteLength)), true);
    }
    bytes.set(data, headerEnd);
    if (digest > 0) view.setUint32(headerEnd + data.byteLength, crc32cOf(data.slice()), true);
    return bytes;
  }

  /** A command capsule. */
  capsule(sqe: SqeWords, data?: Uint8Array): Uint8Array {
    const header = new Uint8Array(PduBytes.CAPSULE_CMD);
    header[0] = PduType.CAPSULE_CMD;
    header[2] = PduBytes.CAPSULE_CMD;
    header.set(new Uint8Array(sqe.buffer, sqe.byteOffset, 64), 8);
    return this.pdu(header, data);
  }

  /** A data PDU. */
  h2cData(fields: {
    readonly cid: number;
    readonly tag: number;
    readonly offset: number;
    readonly data: Uint8Array;
    readonly last: boolean;
  }): Uint8Array {
    const header = new Uint8Array(PduBytes.DATA);
    const view = new DataView(header.buffer);
    const flags = fields.last ? PduFlag.LAST : 0;
    view.setUint32(0, pduWord0(PduType.H2C_DATA, flags, PduBytes.DATA, 0), true);
    view.setUint16(8, fields.cid, true);
    view.setUint16(10, fields.tag, true);
    view.setUint32(12, fields.offset, true);
    view.setUint32(16, fields.data.byteLength, true);
    return this.pdu(header, fields.data);
  }

  /** A command id that is not in use. */
  cid(): number {
    const cid = this.#nextCid;
    this.#nextCid = (cid % 0xfff0) + 1;
    return cid;
  }

  /** A copy of an entry with command id, flags and data pointer filled in. */
  entry(sqe: SqeWords, payload: Payload = {}, cid = this.cid()): Int32Array {
    const words = Int32Array.from(sqe);
    const bytes = new Uint8Array(words.buffer);
    const { data, room = 0, byR2t = false } = payload;
    words[0] = (words[0]! & 0xff) | (bytes[1] === 0 ? 0x4000 : words[0]! & 0xff00) | (cid << 16);
    const length = data?.byteLength ?? room;
    const inCapsule = data !== undefined && !byR2t && length <= IN_CAPSULE_BYTES;
    words[8] = length;
    bytes[39] = inCapsule ? SglId.DATA_BLOCK_OFFSET : SglId.TRANSPORT_DATA_BLOCK;
    return words;
  }

  /** Sends a command and resolves when it has ended. */
  command(sqe: SqeWords, payload: Payload = {}): Promise<Completion> {
    const words = this.entry(sqe, payload);
    return this.commandAs(words, payload);
  }

  /** Sends an entry as it is (of `entry`) and resolves when it has ended. */
  commandAs(words: Int32Array, payload: Payload = {}): Promise<Completion> {
    const cid = words[0]! >>> 16;
    const { data } = payload;
    const isInCapsule = new Uint8Array(words.buffer)[39] === SglId.DATA_BLOCK_OFFSET;
    const ended = new Promise<Completion>((resolve, reject) => {
      this.#outstanding.set(cid, { resolve, data, received: new Uint8Array(0) });
      this.send(this.capsule(words, isInCapsule ? data : undefined)).catch(reject);
    });
    return ended;
  }

  /** Ends the connection. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    shutdownSocket(this.#fd);
    await this.#pump;
    await this.#sending;
    closeFd(this.#fd);
  }
}

/** Who connects, and how. */
export interface ConnectOptions extends RawHostOptions {
  readonly subsystemNqn: string;
  readonly hostNqn?: string;
  /** 16 bytes. */
  readonly hostId?: Uint8Array;
  readonly queueId?: number;
  readonly controllerId?: number;
  readonly entries?: number;
  readonly keepAliveMs?: number;
  /** Do not enable the controller after Connect on the admin queue. */
  readonly isLeftDisabled?: boolean;
}

export const HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:6a1c5f9e-0000-4000-8000-000000000001";

/** CC that enables a controller: I/O entry sizes of 64 and 16 bytes. */
export const CC_ENABLED = 0x00460001;

/** A 16-byte host identifier made of one number. */
export function hostIdOf(n: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => (i === 15 ? n : 0xa0 + i));
}

/** A command entry with dwords 10 to 15; command id and data pointer are the host's to fill in. */
export function sqe(opcode: number, nsid: number, dwords: readonly number[] = []): SqeWords {
  const words = new Int32Array(16);
  words[0] = opcode;
  words[1] = nsid;
  words.set(dwords, 10);
  return words;
}

const PATTERN_BYTES = 4 << 20;
let patternSource: Uint8Array | undefined;

/** Bytes that differ from place to place and from seed to seed; `length` is at most 3 MiB. */
export function pattern(length: number, seed: number): Uint8Array {
  if (patternSource === undefined) {
    const words = new Uint32Array(PATTERN_BYTES / 4);
    let x = 2463534242;
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      words[i] = x;
    }
    patternSource = new Uint8Array(words.buffer);
  }
  const from = (seed * 97) % (PATTERN_BYTES / 4);
  return patternSource.slice(from, from + length);
}

/** Sends Connect on a negotiated connection. */
export function connect(host: RawHost, options: ConnectOptions): Promise<Completion> {
  const { queueId = 0, entries = queueId === 0 ? 32 : 128, keepAliveMs = 0 } = options;
  const data = connectData({
    hostId: options.hostId ?? hostIdOf(1),
    hostNqn: options.hostNqn ?? HOST_NQN,
    subsystemNqn: options.subsystemNqn,
    controllerId: options.controllerId ?? 0xffff,
  });
  return host.command(connectCommand(queueId, entries, keepAliveMs), { data });
}

/** Connects one queue; throws unless Connect succeeds. An admin queue's controller is enabled. */
export async function connectQueue(
  reactor: Reactor,
  at: SocketAddress,
  options: ConnectOptions,
): Promise<{ host: RawHost; controllerId: number }> {
  const host = await RawHost.negotiate(reactor, at, options);
  const { status, dword0 } = await connect(host, options);
  if (status !== 0) {
    await host.close();
    throw new Error(`Connect: ${status.toString(16)} ${dword0.toString(16)}`);
  }
  const isAdmin = (options.queueId ?? 0) === 0;
  if (isAdmin && options.isLeftDisabled !== true) {
    const CC = 0x14;
    const enabled = await host.command(propertySetCommand(CC, CC_ENABLED));
    if (enabled.status !== 0) throw new Error(`enable: ${enabled.status.toString(16)}`);
  }
  return { host, controllerId: dword0 & 0xffff };
}
