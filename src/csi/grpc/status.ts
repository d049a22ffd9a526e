/**
 * Errors as gRPC statuses. The message is what a person reads in an event of Kubernetes, so it says
 * what is wrong and what to do about it, in one line.
 */
import { status } from "@grpc/grpc-js";
import { facesOf, TrilithError } from "../../errors.ts";
import { ERROR_TEXT_MAX } from "../limits.ts";

export interface GrpcStatus {
  readonly code: number;
  readonly details: string;
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= ERROR_TEXT_MAX ? line : `${line.slice(0, ERROR_TEXT_MAX - 3)}...`;
}

/**
 * The status of a call that failed: that of the error's code, with what happened and what helps. What is
 * not of the closed list is a defect of ours, `INTERNAL`.
 */
export function statusOf(error: unknown): GrpcStatus {
  if (error instanceof TrilithError) {
    const { message, remedy } = error;
    const details = remedy === "" ? message : `${message} (${remedy})`;
    return { code: facesOf(error.code).grpc, details: oneLine(details) };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: status.INTERNAL, details: oneLine(`internal error: ${message}`) };
}
