/**
 * The id of the request that code works on, handed on without parameters: the API puts it in place,
 * logs show it, and calls of engines carry it in the header `x-request-id`. Whoever works on behalf of
 * an earlier request (the executor) puts that request's id in place around the work.
 */
import { AsyncLocalStorage } from "node:async_hooks";

export const REQUEST_ID_HEADER = "x-request-id";

const scope = new AsyncLocalStorage<string | undefined>();

/** Runs `work` and everything that it begins under this id; undefined: under none. */
export function withRequestId<T>(id: string | undefined, work: () => T): T {
  return scope.run(id, work);
}

/** Id of the request that is being worked on; undefined outside of any. */
export function currentRequestId(): string | undefined {
  return scope.getStore();
}

/** An id as others may send it: what could break lines of a log, or be endless, is not taken. */
export function acceptedRequestId(text: string | null | undefined): string | undefined {
  return text != null && /^[A-Za-z0-9._:/+=@-]{1,128}$/.test(text) ? text : undefined;
}
