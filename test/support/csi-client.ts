/** A client of gRPC services on a unix socket, typed by their descriptions. */
import {
  create,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { Client, credentials, Metadata } from "@grpc/grpc-js";

export interface CallOptions {
  /** Time after which the caller gives up. */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

type Unary<M extends GenServiceMethods> = {
  [K in keyof M as M[K]["methodKind"] extends "unary" ? K : never]: M[K];
};

/** The methods of a service by its description. */
export type MethodsOf<S> =
  S extends GenService<infer M> ? (M extends GenServiceMethods ? M : never) : never;

export type CsiClient<M extends GenServiceMethods> = {
  readonly [K in keyof Unary<M>]: (
    request: MessageInitShape<Unary<M>[K]["input"]>,
    options?: CallOptions,
  ) => Promise<MessageShape<Unary<M>[K]["output"]>>;
} & { readonly close: () => void };

/** Rejects with grpc-js' `ServiceError`: `code` and `details`. */
export function csiClient<M extends GenServiceMethods>(
  description: GenService<M>,
  socket: string,
): CsiClient<M> {
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  const calls: Record<string, unknown> = { close: () => client.close() };
  for (const { localName, name, input, output } of description.methods) {
    calls[localName] = (request: Record<string, unknown>, options: CallOptions = {}) =>
      new Promise((resolve, reject) => {
        const call = client.makeUnaryRequest(
          `/${description.typeName}/${name}`,
          (value: Record<string, unknown>) => Buffer.from(toBinary(input, create(input, value))),
          (bytes: Buffer) => fromBinary(output, bytes),
          request,
          new Metadata(),
          options.deadlineMs === undefined ? {} : { deadline: Date.now() + options.deadlineMs },
          (error, value) => (error === null ? resolve(value) : reject(error)),
        );
        options.signal?.addEventListener("abort", () => call.cancel(), { once: true });
      });
  }
  return calls as CsiClient<M>;
}

/** The status that a call ends with: 0, or that of its error. */
export async function statusCodeOf(answer: Promise<unknown>): Promise<number> {
  try {
    await answer;
    return 0;
  } catch (error) {
    return (error as { code: number }).code;
  }
}
