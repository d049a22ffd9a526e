/**
 * Errors as the HTTP API shows them: Mayastor's kinds (mayastor.md 1.3), with what to do about it
 * beside.
 */
import { type ErrorCode, facesOf, TrilithError } from "../errors.ts";
import { type ErrorKind, errorKinds, type RestJsonError } from "./schemas/cluster.ts";

/** Codes of ours that clients of Mayastor's API do not know, and the kinds that they know. */
const foldedKinds: Partial<Record<ErrorCode, ErrorKind>> = {
  ForeignDisk: "FailedPrecondition",
  Corrupted: "Internal",
  NoSpace: "ResourceExhausted",
  DeviceIo: "Internal",
  DeviceGone: "Unavailable",
  ReservationConflict: "Conflict",
  Superseded: "FailedPrecondition",
  Miscompare: "FailedPrecondition",
};
const known: ReadonlySet<string> = new Set(errorKinds);

/** The kind that a code shows as. */
export function kindOf(code: ErrorCode): ErrorKind {
  return foldedKinds[code] ?? (known.has(code) ? (code as ErrorKind) : "Internal");
}

/** An error whose status is HTTP's own, beside the kind: 405, 413, 414, 415. */
export class HttpError extends TrilithError {
  readonly status: number;
  constructor(status: number, what: string, remedy = "") {
    super("InvalidArgument", what, remedy);
    this.status = status;
  }
}

/** Body and status of an error. What is not ours is `Internal`; its text is for the log alone. */
export function shownError(error: unknown, requestId: string): [RestJsonError, number] {
  if (!(error instanceof TrilithError)) {
    const details = `request ${requestId}`;
    const remedy = "see the server's log for the request's id";
    return [{ details, message: "internal error", kind: "Internal", remedy }, 500];
  }
  const { code, message, remedy } = error;
  const status = error instanceof HttpError ? error.status : facesOf(code).http;
  // A code of ours that is folded into a kind is named here.
  const details = kindOf(code) === code ? "" : code;
  return [{ details, message, kind: kindOf(code), remedy }, status];
}

/** For what was asked for by its id and is not there. */
export function notFound(what: string, id: string): TrilithError {
  return new TrilithError("NotFound", `there is no ${what} "${id}"`);
}
