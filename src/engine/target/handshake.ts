/**
 * The first command of every connection: Connect (Base 2.0, 6.3). It names the subsystem; when that
 * lives on another reactor the connection moves there and the command is taken again.
 */
import { TrilithError } from "../../errors.ts";
import { FABRICS_OPCODE, FabricsType, STATUS_DNR, Status } from "../../nvme/constants.ts";
import {
  CONNECT_DATA_BYTES,
  CONTROLLER_ID_DYNAMIC,
  type ConnectCommand,
  type ConnectData,
  decodeConnectCommand,
  decodeConnectData,
} from "../../nvme/fabrics.ts";
import { AdminQueue } from "./admin-queue.ts";
import type { CommandQueue } from "./command-queue.ts";
import type { CommandHandler, Connection } from "./connection.ts";
import { Controller } from "./controller.ts";
import { IoQueue } from "./io-queue.ts";
import { ADMIN_QUEUE_ENTRIES_MAX, IN_CAPSULE_BYTES, IO_QUEUE_ENTRIES_MAX } from "./limits.ts";
import type { SubsystemBase } from "./subsystem.ts";

/** Result dword of "invalid parameters": where the fault is (Base 2.0, figure 394). */
const IN_DATA = 1 << 16;
const AT_QUEUE_ID = 42;
const AT_QUEUE_SIZE = 44;
const AT_CONTROLLER_ID = 16;
const AT_SUBSYSTEM_NQN = 256;
const AT_HOST_NQN = 512;

/** How Connect ended: a queue with its controller, or a status with its result dword. */
type Outcome =
  | { readonly controller: Controller; readonly queue: CommandQueue }
  | { readonly status: number; readonly dw0: number };

function refused(status: number, dw0 = 0): Outcome {
  return { status: status | STATUS_DNR, dw0 };
}

/**
 * The subsystem is not here now. It may be in a moment, on an engine that has just started: a host that
 * had a path here shall try again (Linux gives a path up when it is told "do not retry").
 */
const notHere: Outcome = {
  status: Status.CONNECT_INVALID_PARAMETERS,
  dw0: IN_DATA | AT_SUBSYSTEM_NQN,
};

export class Handshake implements CommandHandler {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  onCapsule(sqe: number, data: number, dataBytes: number): boolean {
    const { arena, target } = this.#connection;
    const view = new DataView(arena.u8.buffer, sqe, 64);
    const cid = view.getUint16(2, true);
    const isConnect =
      view.getUint8(0) === FABRICS_OPCODE && view.getUint8(4) === FabricsType.CONNECT;
    if (!isConnect) return this.#respond(cid, Status.COMMAND_SEQUENCE_ERROR | STATUS_DNR, 0);
    if (data < 0 || dataBytes !== CONNECT_DATA_BYTES || dataBytes > IN_CAPSULE_BYTES) {
      return this.#respond(cid, Status.DATA_SGL_LENGTH_INVALID | STATUS_DNR, 0);
    }
    if (!this.#connection.capsuleIntact) {
      return this.#respond(cid, Status.TRANSIENT_TRANSPORT_ERROR, 0);
    }
    const command = decodeConnectCommand(view);
    const connect = decodeConnectData(arena.u8.slice(data, data + dataBytes));
    if ("invalidAt" in connect) {
      return this.#respond(
        cid,
        Status.CONNECT_INVALID_PARAMETERS | STATUS_DNR,
        IN_DATA | connect.invalidAt,
      );
    }
    const elsewhere = target.reactorOf(connect.subsystemNqn);
    const isElsewhere = elsewhere !== undefined && elsewhere !== target.reactor.index;
    if (isElsewhere && target.mayHandOver(this.#connection)) return this.#handOver(elsewhere);
    return this.#connect(cid, command, connect);
  }

  #handOver(reactorIndex: number): boolean {
    const connection = this.#connection;
    const rest = connection.stream.detach();
    if (rest === undefined) return false; // The negotiation's answer is still being sent.
    connection.detached = true;
    connection.endHandshake();
    connection.target.handOver(connection, reactorIndex, rest);
    return true;
  }

  #respond(cid: number, status: number, dw0: number): boolean {
    const done = this.#connection.respond(cid, status, 1, dw0, 0);
    if (done && status !== 0) this.#connection.stream.closeAfterSend("Connect refused");
    return done;
  }

  #connect(cid: number, command: ConnectCommand, data: ConnectData): boolean {
    const connection = this.#connection;
    // Once a queue exists the command cannot be offered again, so its answer must fit now.
    if (!connection.hasResponseRoom()) return false;
    const subsystem = connection.target.subsystem(data.subsystemNqn);
    const outcome: Outcome =
      subsystem === undefined || subsystem.ended ? notHere : this.#admit(subsystem, command, data);
    if ("status" in outcome) {
      connection.target.options.log("warn", "connect refused", {
        nqn: data.subsystemNqn,
        host: data.hostNqn,
        queue: command.queueId,
        status: (outcome.status & 0x7ff).toString(16),
      });
      return this.#respond(cid, outcome.status, outcome.dw0);
    }
    connection.endHandshake();
    connection.target.connected(connection);
    connection.queueNumber = outcome.queue.number;
    connection.handler = outcome.queue;
    return connection.respond(cid, 0, 1, outcome.controller.id, 0);
  }

  #admit(subsystem: SubsystemBase, command: ConnectCommand, data: ConnectData): Outcome {
    if (command.recordFormat !== 0) return refused(Status.CONNECT_INCOMPATIBLE_FORMAT);
    if (!subsystem.admits(data.hostNqn)) return refused(Status.CONNECT_INVALID_HOST);
    const entriesMax = command.queueId === 0 ? ADMIN_QUEUE_ENTRIES_MAX : IO_QUEUE_ENTRIES_MAX;
    if (command.entries < 2 || command.entries > entriesMax) {
      return refused(Status.CONNECT_INVALID_PARAMETERS, AT_QUEUE_SIZE);
    }
    return command.queueId === 0
      ? this.#admitAdmin(subsystem, command, data)
      : this.#admitIo(subsystem, command, data);
  }

  #admitAdmin(subsystem: SubsystemBase, command: ConnectCommand, data: ConnectData): Outcome {
    if (data.controllerId !== CONTROLLER_ID_DYNAMIC) {
      return refused(Status.CONNECT_INVALID_PARAMETERS, IN_DATA | AT_CONTROLLER_ID);
    }
    const admin = new AdminQueue(this.#connection, command.entries, command.flowControlOff);
    try {
      const controller = new Controller(subsystem, admin, {
        nqn: data.hostNqn,
        id: data.hostId,
        keepAliveMs: command.keepAliveMs,
      });
      admin.controller = controller;
      return { controller, queue: admin };
    } catch (error) {
      if (error instanceof TrilithError) return refused(Status.CONNECT_CONTROLLER_BUSY);
      throw error;
    }
  }

  #admitIo(subsystem: SubsystemBase, command: ConnectCommand, data: ConnectData): Outcome {
    const controller = subsystem.controllers.get(data.controllerId);
    if (controller === undefined || controller.ended) {
      return refused(Status.CONNECT_INVALID_PARAMETERS, IN_DATA | AT_CONTROLLER_ID);
    }
    if (controller.hostNqn !== data.hostNqn || controller.hostId !== data.hostId) {
      return refused(Status.CONNECT_INVALID_PARAMETERS, IN_DATA | AT_HOST_NQN);
    }
    const { queueId, entries, flowControlOff } = command;
    const { nvm, queueLimit, queues } = controller;
    const isFree = controller.enabled && queueId <= queueLimit && !queues.has(queueId);
    if (nvm === undefined || !isFree) {
      return refused(Status.CONNECT_INVALID_PARAMETERS, AT_QUEUE_ID);
    }
    const queue = new IoQueue(this.#connection, controller, nvm, queueId, entries, flowControlOff);
    controller.queues.set(queueId, queue);
    return { controller, queue };
  }

  onHostData(): void {
    throw new Error("no command of the handshake asks for data");
  }

  onDiscarded(): void {
    throw new Error("no command of the handshake is aborted");
  }

  readonly awaitsHost = false;

  onRoom(): void {
    // Nothing is kept back: a command without room is simply offered again.
  }

  onHostLeft(): void {
    // No controller exists yet.
  }

  onClosed(): void {
    // No controller exists yet.
  }
}
