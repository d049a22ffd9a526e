/** Who may ask: bearer tokens where the listener wants them, and no foreign web pages. */
import { TrilithError } from "../errors.ts";

/** What the listener that a request came in by says of it. Without one the caller has admitted it. */
export interface Admission {
  /** Only with a bearer token. */
  readonly requiresToken: boolean;
  /**
   * The listener is not reached by name: a `Host` that is a name was rebound to this machine by
   * somebody's web page.
   */
  readonly requiresAddressAsHost: boolean;
}

export const admitsAll: Admission = { requiresToken: false, requiresAddressAsHost: false };

/** Says whether a bearer token is valid. Compares in constant time, and never logs it. */
export type TokenVerifier = (token: string) => boolean | Promise<boolean>;

const ADDRESS = /^(localhost|[^.:[\]]+\.localhost|\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])(:\d+)?$/i;

function assertHost(request: Request): void {
  const host = request.headers.get("host") ?? "";
  if (ADDRESS.test(host)) return;
  throw new TrilithError(
    "PermissionDenied",
    `requests for host "${host}" are not admitted on the loopback`,
    "ask 127.0.0.1 or localhost",
  );
}

/** Browsers name the page that asks; only our own may. */
function assertOrigin(request: Request): void {
  const origin = request.headers.get("origin");
  if (origin === null) return;
  const { protocol } = new URL(request.url);
  if (origin === `${protocol}//${request.headers.get("host")}`) return;
  throw new TrilithError("PermissionDenied", "requests from other web pages are not admitted");
}

/** Throws `Unauthenticated` or `PermissionDenied` when the request is not to be served. */
export async function assertAdmitted(
  request: Request,
  admission: Admission,
  verify: TokenVerifier | undefined,
): Promise<void> {
  if (admission.requiresAddressAsHost) assertHost(request);
  assertOrigin(request);
  if (!admission.requiresToken) return;
  const header = request.headers.get("authorization") ?? "";
  const token = /^Bearer +([\x21-\x7e]{1,4096})$/i.exec(header)?.[1];
  const remedy = "make one with `trilith token create --kind api`, and send it as a bearer token";
  if (token === undefined) {
    throw new TrilithError("Unauthenticated", "a bearer token is required here", remedy);
  }
  if (verify === undefined || !(await verify(token))) {
    throw new TrilithError("Unauthenticated", "the bearer token is not valid (any more)", remedy);
  }
}
