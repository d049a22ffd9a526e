/** What Kubernetes' API server answers when it does not do what it was asked. */
import { type ErrorCode, TrilithError } from "../../errors.ts";

/** An answer that is an error: with its HTTP status, and the API server's own word for it. */
export class KubeError extends TrilithError {
  readonly status: number;
  /** `NotFound`, `Conflict`, `AlreadyExists`, `Expired`, ...; empty when the answer has none. */
  readonly reason: string;
  constructor(status: number, reason: string, message: string, remedy = "") {
    super(codeByStatus[status] ?? (status >= 500 ? "Unavailable" : "Internal"), message, remedy);
    this.name = "KubeError";
    this.status = status;
    this.reason = reason;
  }
}

const codeByStatus: Readonly<Record<number, ErrorCode>> = {
  400: "InvalidArgument",
  401: "Unauthenticated",
  403: "PermissionDenied",
  404: "NotFound",
  405: "Unimplemented",
  409: "Conflict",
  410: "Aborted",
  415: "Unimplemented",
  422: "InvalidArgument",
  429: "ResourceExhausted",
  504: "Timeout",
};

const remedyByStatus: Readonly<Record<number, string>> = {
  401: "the token or certificate is not accepted (any more): look at the kubeconfig",
  403: "give the account the rights that `trilith kubernetes manifest` names",
};

/** The error that an answer with a body stands for (a `Status` of the API, or anything). */
export function errorOfStatus(httpStatus: number, body: unknown, what: string): KubeError {
  const said = (typeof body === "object" && body !== null ? body : {}) as {
    readonly code?: unknown;
    readonly reason?: unknown;
    readonly message?: unknown;
  };
  const status = typeof said.code === "number" && said.code >= 400 ? said.code : httpStatus;
  const reason = typeof said.reason === "string" ? said.reason : "";
  const message =
    typeof said.message === "string" && said.message !== ""
      ? said.message
      : typeof body === "string" && body.trim() !== ""
        ? body.trim().split("\n")[0]!.slice(0, 200)
        : `HTTP ${httpStatus}`;
  return new KubeError(status, reason, `${what}: ${message}`, remedyByStatus[status]);
}

/** True for the answer "there is no such object (or no such resource)". */
export function isNotFound(error: unknown): boolean {
  return error instanceof KubeError && error.status === 404;
}

/** True when somebody else changed the object meanwhile. */
export function isConflict(error: unknown): boolean {
  return error instanceof KubeError && error.status === 409 && error.reason !== "AlreadyExists";
}

/** True when an object of that name is there already. */
export function isAlreadyThere(error: unknown): boolean {
  return error instanceof KubeError && error.status === 409 && error.reason === "AlreadyExists";
}

/** True when the history that a list or watch asked for is no longer kept: list anew. */
export function isExpired(error: unknown): boolean {
  return error instanceof KubeError && (error.status === 410 || error.reason === "Expired");
}
