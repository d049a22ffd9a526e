/**
 * A gRPC service from typed handlers: messages are parsed and made here, errors become statuses, and each
 * call has a signal that tells when its caller has gone or its deadline has passed.
 */

import { randomUUID } from "node:crypto";
import {
  create,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import type { handleUnaryCall, ServerUnaryCall, sendUnaryData } from "@grpc/grpc-js";
import { type ServiceDefinition, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { TrilithError } from "../../errors.ts";
import type { Log } from "../../ops/log.ts";
import { withRequestId } from "../../ops/request-id.ts";
import { statusOf } from "./status.ts";

/** What a handler knows of the call that it answers. */
export interface Call {
  /** `CreateVolume`. */
  readonly method: string;
  /** Aborted when nobody waits for the answer any more: the caller has gone, or its deadline has passed. */
  readonly signal: AbortSignal;
}

type Unary<M extends GenServiceMethods> = {
  [K in keyof M as M[K]["methodKind"] extends "unary" ? K : never]: M[K];
};

/** The handlers of all unary methods of a service. They reject with a `TrilithError`. */
export type Handlers<S> =
  S extends GenService<infer M>
    ? {
        readonly [K in keyof Unary<M>]: (
          request: MessageShape<Unary<M>[K]["input"]>,
          call: Call,
        ) => Promise<MessageInitShape<Unary<M>[K]["output"]>>;
      }
    : never;

/** A service as the server takes it. */
export interface Service {
  readonly name: string;
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

type AnyHandler = (request: unknown, call: Call) => Promise<object>;

/** A signal for as long as a call runs. Its "cancelled" comes after every call, ended ones too. */
function callSignal(call: ServerUnaryCall<unknown, unknown>): {
  readonly signal: AbortSignal;
  readonly end: () => void;
} {
  const controller = new AbortController();
  let isDone = false;
  call.on("cancelled", () => {
    if (isDone) return;
    controller.abort(
      new TrilithError("Aborted", "the caller does not wait for the answer any more"),
    );
  });
  return {
    signal: controller.signal,
    end: () => {
      isDone = true;
    },
  };
}

function answering(
  method: string,
  handler: AnyHandler,
  log: Log,
): handleUnaryCall<unknown, unknown> {
  const answer = async (
    call: ServerUnaryCall<unknown, unknown>,
    reply: sendUnaryData<unknown>,
  ): Promise<void> => {
    const { signal, end } = callSignal(call);
    try {
      const response = await handler(call.request, { method, signal });
      end();
      log("debug", "csi call answered", { method });
      reply(null, response);
    } catch (error) {
      end();
      const told = statusOf(error);
      const isDefect = told.code === status.INTERNAL || told.code === status.UNKNOWN;
      log(isDefect ? "error" : "info", "csi call failed", {
        method,
        status: status[told.code],
        error: isDefect ? error : told.details,
      });
      reply(told);
    }
  };
  return (call, reply) => void withRequestId(`csi-${randomUUID()}`, () => answer(call, reply));
}

/**
 * A service that the handlers answer. A method without a handler answers `UNIMPLEMENTED`.
 */
export function serviceOf<M extends GenServiceMethods>(
  description: GenService<M>,
  handlers: Partial<Handlers<GenService<M>>>,
  log: Log,
): Service {
  const definition: Record<string, ServiceDefinition[string]> = {};
  const implementation: UntypedServiceImplementation = {};
  const given = handlers as Readonly<Record<string, AnyHandler | undefined>>;
  for (const { localName, name, methodKind, input, output } of description.methods) {
    if (methodKind !== "unary") continue;
    definition[localName] = {
      path: `/${description.typeName}/${name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (value: MessageShape<typeof input>) => Buffer.from(toBinary(input, value)),
      requestDeserialize: (bytes: Buffer) => fromBinary(input, bytes),
      responseSerialize: (value: MessageInitShape<typeof output>) =>
        Buffer.from(toBinary(output, create(output, value))),
      responseDeserialize: (bytes: Buffer) => fromBinary(output, bytes),
    };
    const absent: AnyHandler = () =>
      Promise.reject(new TrilithError("Unimplemented", `${name} is not offered by this driver`));
    implementation[localName] = answering(name, given[localName] ?? absent, log);
  }
  return { name: description.typeName, definition, implementation };
}
