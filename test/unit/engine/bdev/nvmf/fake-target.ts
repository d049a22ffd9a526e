/**
 * A scripted NVMe/TCP target on the test's own reactor: it serves one namespace from memory, and a
 * test takes over whatever it wants to go wrong. It is simple and slow on purpose, and shares no
 * code with the engine's target.
 */
import { closeFd, crc32cOf, listenTcp, localAddress, Op } from "../../../../../ffi/index.ts";
import { cancelFd, type Reactor } from "../../../../../src/engine/reactor/reactor.ts";
import {
  recvBuffersOf,
  type StreamOwner,
  TcpStream,
} from "../../../../../src/engine/reactor/tcp-stream.ts";
import { encodeIc } from "../../../../../src/nvme/pdu.ts";

export const FAKE_NQN = "nqn.2019-05.io.openebs:fake";
export const FAKE_UUID = "6b0e2f5c-9d7b-4f5e-8a5a-0d8f3e1f7a11";

/** What the target says of itself; a test may change any of it at any time. */
export interface FakeFacts {
  icVersion: number;
  icMaxH2c: number;
  icAlign: number;
  icHeaderDigest: boolean | undefined;
  icDataDigest: boolean | undefined;
  mqes: number;
  csts: number;
  mdts: number;
  ioccsz: number;
  oncs: number;
  vwc: number;
  cmic: number;
  oaes: number;
  acl: number;
  blockCount: number;
  blockShift: number;
  metadataBytes: number;
  dlfeat: number;
  nsids: number[];
  uuid: string;
  anaState: number;
  wzsl: number;
  dmrsl: number;
  queuesGranted: number;
}

/** One command as the target sees it. */
export interface FakeCommand {
  readonly connection: FakeConnection;
  readonly queueId: number;
  readonly opcode: number;
  /** Type of a Fabrics command. */
  readonly fabricsType: number;
  readonly cid: number;
  readonly nsid: number;
  readonly dwords: readonly number[];
  /** Length in the data pointer, and its SGL identifier. */
  readonly sglBytes: number;
  readonly sglId: number;
  /** Data that came in the capsule. */
  readonly data: Uint8Array;
}

/** An H2CData PDU. */
export interface HostData {
  readonly cid: number;
  readonly tag: number;
  readonly offset: number;
  readonly isLast: boolean;
  readonly bytes: Uint8Array;
}

interface PendingWrite {
  readonly command: FakeCommand;
  readonly at: number;
  left: number;
}

const EMPTY = new Uint8Array(0);

export class FakeConnection implements StreamOwner {
  readonly target: FakeTarget;
  readonly stream: TcpStream;
  queueId = -1;
  headerDigest = false;
  dataDigest = false;
  closed = false;
  closeReason = "";
  /** Fatal error status of the termination request that the host sent; -1: none. */
  termStatus = -1;
  readonly writes = new Map<number, PendingWrite>();
  /** Bytes per send; 0: all at once. For hosts that must cope with fragments. */
  dribbleBytes = 0;
  #dribble: number[] = [];
  #nextTag = 1;

  constructor(target: FakeTarget, fd: number) {
    this.target = target;
    this.stream = new TcpStream(target.reactor, recvBuffersOf(target.reactor), fd, this);
    this.stream.start();
  }

  // ------------------------------------------------------------------------------ receiving

  onBytes(): void {
    const { stream } = this;
    const { u8 } = this.target.reactor.arena;
    while (!stream.closing && !stream.blocked) {
      const have = stream.end - stream.pos;
      if (have < 8) return;
      const head = u8.slice(stream.pos, stream.pos + 8);
      const bytes = new DataView(head.buffer).getUint32(4, true);
      if (have < bytes) return;
      const pdu = u8.slice(stream.pos, stream.pos + bytes);
      stream.pos += bytes;
      try {
        this.#take(pdu);
      } catch (error) {
        if (!this.target.tolerant) throw error;
        stream.close("the host sent garbage");
      }
    }
  }

  #take(pdu: Uint8Array): void {
    const view = new DataView(pdu.buffer);
    const type = pdu[0]!;
    if (type === 0) this.#takeIcRequest(view);
    else if (type === 2) this.termStatus = view.getUint16(8, true);
    else if (type === 4) this.#takeCommand(pdu, view);
    else if (type === 6) this.#takeHostData(pdu, view);
    else throw new Error(`the host sent a PDU of type ${type}`);
  }

  #takeIcRequest(view: DataView): void {
    const { facts } = this.target;
    const digests = view.getUint8(11);
    this.headerDigest = facts.icHeaderDigest ?? (digests & 1) !== 0;
    this.dataDigest = facts.icDataDigest ?? (digests & 2) !== 0;
    if (this.target.onIcRequest?.(this) === true) return;
    this.sendRaw(
      encodeIc("response", {
        version: facts.icVersion,
        dataAlign: facts.icAlign,
        headerDigest: this.headerDigest,
        dataDigest: this.dataDigest,
        max: facts.icMaxH2c,
      }),
    );
  }

  /** Checks digests and alignment of a PDU from the host and returns its data. */
  #dataOf(pdu: Uint8Array, view: DataView): Uint8Array {
    const headerBytes = pdu[2]!;
    const flags = pdu[1]!;
    if (((flags & 1) !== 0) !== this.headerDigest) throw new Error("header digest flag is wrong");
    if (this.headerDigest) {
      const crc = crc32cOf(pdu.subarray(0, headerBytes));
      if (view.getUint32(headerBytes, true) !== crc) throw new Error("header digest is wrong");
    }
    const dataAt = pdu[3]!;
    if (dataAt === 0) {
      if (pdu.byteLength !== headerBytes + (this.headerDigest ? 4 : 0)) throw new Error("PLEN");
      return EMPTY;
    }
    const align = (this.target.facts.icAlign + 1) * 4;
    const least = headerBytes + (this.headerDigest ? 4 : 0);
    if (dataAt % align !== 0 || dataAt < least) throw new Error(`data at ${dataAt}`);
    for (let i = least; i < dataAt; i++) if (pdu[i] !== 0) throw new Error("padding is not zero");
    const end = pdu.byteLength - (this.dataDigest ? 4 : 0);
    const data = pdu.slice(dataAt, end);
    if (((flags & 2) !== 0) !== this.dataDigest) throw new Error("data digest flag is wrong");
    if (this.dataDigest && view.getUint32(end, true) !== crc32cOf(data)) {
      throw new Error("data digest is wrong");
    }
    return data;
  }

  #takeCommand(pdu: Uint8Array, view: DataView): void {
    const data = this.#dataOf(pdu, view);
    const opcode = pdu[8]!;
    if ((pdu[9]! & 0xc0) !== 0x40) throw new Error("a command without an SGL");
    const command: FakeCommand = {
      connection: this,
      queueId: this.queueId,
      opcode,
      fabricsType: opcode === 0x7f ? pdu[12]! : -1,
      cid: view.getUint16(10, true),
      nsid: view.getUint32(12, true),
      dwords: Array.from({ length: 6 }, (_, i) => view.getUint32(48 + i * 4, true)),
      sglBytes: view.getUint32(40, true),
      sglId: pdu[47]!,
      data,
    };
    this.target.take(command);
  }

  #takeHostData(pdu: Uint8Array, view: DataView): void {
    const bytes = this.#dataOf(pdu, view);
    const part: HostData = {
      cid: view.getUint16(8, true),
      tag: view.getUint16(10, true),
      offset: view.getUint32(12, true),
      isLast: (pdu[1]! & 4) !== 0,
      bytes,
    };
    if (view.getUint32(16, true) !== bytes.byteLength) throw new Error("DATAL");
    this.target.hostData.push(part);
    const write = this.writes.get(part.cid);
    if (write === undefined) throw new Error("host data for no write");
    this.target.memory.set(bytes, write.at + part.offset);
    write.left -= bytes.byteLength;
    if (write.left > 0) return;
    this.writes.delete(part.cid);
    this.target.finishWrite(write.command);
  }

  // -------------------------------------------------------------------------------- sending

  /** Sends bytes as they are, or as the test's `mangle` makes them. */
  sendRaw(plain: Uint8Array): void {
    if (this.stream.closing) return;
    const bytes = this.target.mangle?.(plain) ?? plain;
    if (this.dribbleBytes > 0) {
      this.#dribble.push(...bytes);
      if (this.#dribble.length === bytes.byteLength) this.#dribbleOn();
      return;
    }
    const step = 64 << 10;
    for (let from = 0; from < bytes.byteLength; from += step) {
      const piece = bytes.subarray(from, from + step);
      const at = this.stream.reserve(piece.byteLength);
      if (at < 0) throw new Error("the fake target has no memory");
      this.target.reactor.arena.u8.set(piece, at);
    }
  }

  #dribbleOn(): void {
    if (this.stream.closing || this.#dribble.length === 0) return;
    const piece = this.#dribble.splice(0, this.dribbleBytes);
    const at = this.stream.reserve(piece.length);
    this.target.reactor.arena.u8.set(piece, at);
  }

  /** A PDU with the digests that were agreed on. `damage` spoils one of them. */
  sendPdu(
    type: number,
    flags: number,
    header: readonly number[],
    data: Uint8Array = EMPTY,
    damage?: "header" | "data",
  ): void {
    const headerBytes = 8 + header.length * 4;
    const dataAt = data.byteLength === 0 ? 0 : headerBytes + (this.headerDigest ? 4 : 0);
    const headEnd = headerBytes + (this.headerDigest ? 4 : 0);
    const hasDataDigest = this.dataDigest && data.byteLength > 0;
    const pdu = new Uint8Array(headEnd + data.byteLength + (hasDataDigest ? 4 : 0));
    const view = new DataView(pdu.buffer);
    const all = flags | (this.headerDigest ? 1 : 0) | (this.dataDigest && type === 7 ? 2 : 0);
    pdu.set([type, all, headerBytes, dataAt]);
    view.setUint32(4, pdu.byteLength, true);
    header.forEach((word, i) => {
      view.setUint32(8 + i * 4, word >>> 0, true);
    });
    if (this.headerDigest) {
      const crc = crc32cOf(pdu.subarray(0, headerBytes));
      view.setUint32(headerBytes, damage === "header" ? crc ^ 1 : crc, true);
    }
    pdu.set(data, headEnd);
    if (hasDataDigest) {
      const crc = crc32cOf(data);
      view.setUint32(pdu.byteLength - 4, damage === "data" ? crc ^ 1 : crc, true);
    }
    this.sendRaw(pdu);
  }

  /** A response capsule. */
  respond(cid: number, status = 0, dword0 = 0, dword1 = 0): void {
    this.sendPdu(5, 0, [dword0, dword1, 0, cid | (status << 17)]);
  }

  /** A C2HData PDU; `flags`: 4 last, 8 success. */
  sendData(cid: number, offset: number, data: Uint8Array, flags = 4, damage?: "header" | "data") {
    this.sendPdu(7, flags, [cid, offset, data.byteLength, 0], data, damage);
  }

  /** An R2T; returns its transfer tag. */
  sendR2t(cid: number, offset: number, length: number): number {
    const tag = this.#nextTag++;
    this.sendPdu(9, 0, [cid | (tag << 16), offset, length, 0]);
    return tag;
  }

  /** Asks for the data of a write in R2Ts of `step` bytes, `ahead` of them at a time at most. */
  requestWriteData(command: FakeCommand, at: number, step = command.sglBytes): void {
    this.writes.set(command.cid, { command, at, left: command.sglBytes });
    for (let offset = 0; offset < command.sglBytes; offset += step) {
      this.sendR2t(command.cid, offset, Math.min(step, command.sglBytes - offset));
    }
  }

  onReceivedInto(): void {}

  onSent(): void {
    if (this.#dribble.length > 0) this.#dribbleOn();
  }

  onClosed(reason: string): void {
    this.closed = true;
    this.closeReason = reason;
  }
}

export class FakeTarget {
  readonly reactor: Reactor;
  readonly port: number;
  readonly memory = new Uint8Array(4 << 20);
  readonly connections: FakeConnection[] = [];
  /** Commands received on all queues, keep-alives included, and data PDUs. */
  readonly commands: FakeCommand[] = [];
  readonly hostData: HostData[] = [];
  /** Returns true when the test has dealt with it. */
  onIcRequest: ((connection: FakeConnection) => boolean) | undefined;
  onCommand: ((command: FakeCommand) => boolean) | undefined;
  /** Closes the connection on whatever is wrong, instead of failing the test. */
  tolerant = false;
  /** Changes what is sent. */
  mangle: ((bytes: Uint8Array) => Uint8Array) | undefined;
  /** Async Event Requests waiting for something to happen. */
  readonly eventRequests: FakeCommand[] = [];
  readonly facts: FakeFacts = {
    icVersion: 0,
    icMaxH2c: 128 << 10,
    icAlign: 0,
    icHeaderDigest: undefined,
    icDataDigest: undefined,
    mqes: 127,
    csts: 1,
    mdts: 8,
    ioccsz: 4 + 512,
    oncs: 0x2c,
    vwc: 1,
    cmic: 0,
    oaes: 0,
    acl: 3,
    blockCount: 8192,
    blockShift: 9,
    metadataBytes: 0,
    dlfeat: 9,
    nsids: [1],
    uuid: FAKE_UUID,
    anaState: 1,
    wzsl: 0,
    dmrsl: 0,
    queuesGranted: 128,
  };

  readonly #listener: number;
  #accepting = true;
  #cc = 0;

  constructor(reactor: Reactor, port = 0) {
    this.reactor = reactor;
    this.#listener = listenTcp({ address: "127.0.0.1", port }, 64);
    this.port = localAddress(this.#listener).port;
    this.#accept().catch(() => {});
  }

  get uri(): string {
    return `nvmf+tcp://127.0.0.1:${this.port}/${FAKE_NQN}`;
  }

  async #accept(): Promise<void> {
    while (this.#accepting) {
      const fd = await this.reactor.submit(Op.ACCEPT, this.#listener, 0, 0, 0, 0);
      if (fd >= 0) this.connections.push(new FakeConnection(this, fd));
    }
    closeFd(this.#listener);
  }

  /** Connections that are open, the admin queue's first. */
  get open(): FakeConnection[] {
    return this.connections.filter((connection) => !connection.closed);
  }

  /** The connection of an I/O queue of the present association. */
  get io(): FakeConnection {
    const connection = this.open.find((c) => c.queueId > 0);
    if (connection === undefined) throw new Error("no I/O queue is connected");
    return connection;
  }

  /** Commands received with this opcode on I/O queues. */
  ioCommands(opcode: number): FakeCommand[] {
    return this.commands.filter((c) => c.queueId > 0 && c.opcode === opcode);
  }

  /** Commands received on I/O queues, Connect left out. */
  ioCommandsAll(): FakeCommand[] {
    return this.commands.filter((c) => c.queueId > 0 && c.opcode !== 0x7f);
  }

  /** Closes every connection at once, as a killed process would. */
  drop(): void {
    for (const connection of this.open) connection.stream.close("dropped by the test");
  }

  /** Stops listening and closes every connection. */
  async stop(): Promise<void> {
    this.#accepting = false;
    await cancelFd(this.reactor, this.#listener);
    this.drop();
    while (this.open.length > 0) await this.reactor.sleep(1);
  }

  /** Completes one Async Event Request with this dword. */
  event(dword0: number): void {
    const request = this.eventRequests.shift();
    if (request === undefined) throw new Error("no async event request is outstanding");
    request.connection.respond(request.cid, 0, dword0);
  }

  take(command: FakeCommand): void {
    this.commands.push(command);
    if (this.onCommand?.(command) === true) return;
    if (command.opcode === 0x7f) this.#fabrics(command);
    else if (command.queueId === 0) this.#admin(command);
    else this.serve(command);
  }

  #fabrics(command: FakeCommand): void {
    const { connection, cid, dwords } = command;
    const { facts } = this;
    if (command.fabricsType === 1) {
      connection.queueId = dwords[0]! >>> 16;
      connection.respond(cid, 0, 7);
    } else if (command.fabricsType === 4) {
      if (dwords[1] === 0) connection.respond(cid, 0, facts.mqes | (1 << 16) | (2 << 24), 1 << 5);
      else if (dwords[1] === 0x1c) {
        const shutDown = ((this.#cc >> 14) & 3) !== 0 ? 8 : 0;
        connection.respond(cid, 0, facts.csts | shutDown);
      } else connection.respond(cid, 2);
    } else if (command.fabricsType === 0) {
      if (dwords[1] === 0x14) this.#cc = dwords[2]!;
      connection.respond(cid);
    } else connection.respond(cid, 1);
  }

  #admin(command: FakeCommand): void {
    const { connection, cid, dwords } = command;
    const { facts } = this;
    const answer = (page: Uint8Array): void => {
      connection.sendData(cid, 0, page.subarray(0, command.sglBytes), 4);
      connection.respond(cid);
    };
    switch (command.opcode) {
      case 0x06:
        answer(this.#identify(dwords[0]! & 0xff));
        break;
      case 0x02:
        answer(this.#log(dwords[0]! & 0xff));
        break;
      case 0x09:
        if ((dwords[0]! & 0xff) === 7) {
          const n = facts.queuesGranted - 1;
          connection.respond(cid, 0, n | (n << 16));
        } else connection.respond(cid);
        break;
      case 0x0c:
        this.eventRequests.push(command);
        break;
      case 0x08:
        connection.respond(cid, 0, 1); // not aborted
        break;
      default:
        connection.respond(cid, command.opcode === 0x18 ? 0 : 1);
    }
  }

  #identify(cns: number): Uint8Array {
    const { facts } = this;
    const page = new Uint8Array(4096);
    const view = new DataView(page.buffer);
    if (cns === 1) {
      page.set([facts.mdts], 77);
      page.set([facts.cmic], 76);
      view.setUint32(92, facts.oaes, true);
      page.set([facts.acl], 258);
      view.setUint16(320, 1, true);
      view.setUint32(348, 1, true);
      view.setUint16(520, facts.oncs, true);
      page.set([facts.vwc], 525);
      view.setUint32(1792, facts.ioccsz, true);
    } else if (cns === 0) {
      view.setBigUint64(0, BigInt(facts.blockCount), true);
      page.set([facts.dlfeat], 33);
      view.setUint32(92, 1, true);
      view.setUint32(128, (facts.blockShift << 16) | facts.metadataBytes, true);
    } else if (cns === 2) {
      facts.nsids.forEach((nsid, i) => {
        view.setUint32(i * 4, nsid, true);
      });
    } else if (cns === 3) {
      page.set([3, 16, 0, 0]);
      page.set(Buffer.from(facts.uuid.replaceAll("-", ""), "hex"), 4);
    } else if (cns === 6) {
      page.set([facts.wzsl], 1);
      view.setUint32(4, facts.dmrsl, true);
    }
    return page;
  }

  #log(page: number): Uint8Array {
    const bytes = new Uint8Array(4096);
    const view = new DataView(bytes.buffer);
    if (page === 0x0c) {
      view.setUint16(8, 1, true);
      view.setUint32(16, 1, true);
      bytes.set([this.facts.anaState], 32);
    } else if (page === 4) view.setUint32(0, 1, true);
    return bytes;
  }

  /** Where a read or write lies in `memory`. */
  placeOf(command: FakeCommand): { at: number; length: number } {
    const lba = command.dwords[0]! + command.dwords[1]! * 2 ** 32;
    const blocks = (command.dwords[2]! & 0xffff) + 1;
    const blockSize = 2 ** this.facts.blockShift;
    return { at: lba * blockSize, length: blocks * blockSize };
  }

  /** Carries out an I/O command. */
  serve(command: FakeCommand): void {
    const { connection, cid, opcode } = command;
    const { at, length } = this.placeOf(command);
    if (opcode === 2) {
      connection.sendData(cid, 0, this.memory.slice(at, at + length), 4 | 8);
    } else if (opcode === 1 && command.sglId === 1) {
      this.memory.set(command.data, at);
      connection.respond(cid);
    } else if (opcode === 1) {
      connection.requestWriteData(command, at);
    } else if (opcode === 8) {
      this.memory.fill(0, at, at + length);
      connection.respond(cid);
    } else if (opcode === 9 && command.sglId !== 1) {
      connection.requestWriteData(command, this.memory.byteLength - 4096);
    } else if (opcode === 0 || opcode === 9) connection.respond(cid);
    else connection.respond(cid, 1);
  }

  /** All data of a write that was asked for by R2Ts has come. */
  finishWrite(command: FakeCommand): void {
    command.connection.respond(command.cid);
  }
}
