/** Where the HTTP API is: from `--rest`, the environment, the local socket, or loopback. */
import { accessSync, constants, statSync } from "node:fs";
import { TrilithError } from "../errors.ts";

export const SOCKET_DEFAULT = "/run/trilith/api.sock";
export const URL_DEFAULT = "http://127.0.0.1:8081";

/** An address to send requests to. */
export interface Endpoint {
  /** Base of all URLs, without a slash at its end. */
  readonly url: string;
  /** Socket that the connection is made through instead of the URL's host. */
  readonly unix?: string;
  /** How it is named to people. */
  readonly name: string;
}

function throughSocket(path: string): Endpoint {
  return { url: "http://localhost", unix: path, name: `unix:${path}` };
}

/** The socket is there and may be opened: else the loopback, which everybody may use, will do. */
function mayOpenSocket(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return statSync(path).isSocket();
  } catch {
    return false;
  }
}

/**
 * The endpoint that `text` names: `http://host:8081`, `https://host`, `host:8081`, `host`,
 * `unix:/path` or an absolute path of a socket. A trailing `/v0` is taken off. Throws
 * `InvalidArgument`.
 */
export function parseEndpointUrl(text: string): Endpoint {
  const socket = /^(?:unix:(?:\/\/)?)?(\/.*)$/.exec(text);
  if (socket !== null) return throughSocket(socket[1]!);
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.parse(withScheme);
  if (url === null || !/^https?:$/.test(url.protocol) || url.hostname === "") {
    throw new TrilithError(
      "InvalidArgument",
      `"${text}" is no address of an API`,
      "give a URL such as http://10.0.0.1:8081, or unix:/run/trilith/api.sock",
    );
  }
  // Without a scheme and a port the API's own port is meant, not the web's.
  if (withScheme !== text && url.port === "") url.port = "8081";
  const path = url.pathname.replace(/\/+$/, "").replace(/\/v0$/, "");
  const base = `${url.protocol}//${url.host}${path}`;
  return { url: base, name: base };
}

/** The endpoint to use: what was asked for, else the socket when it may be opened, else loopback. */
export function chooseEndpoint(
  asked: string | undefined,
  mayOpen: (path: string) => boolean = mayOpenSocket,
): Endpoint {
  if (asked !== undefined && asked !== "") return parseEndpointUrl(asked);
  if (mayOpen(SOCKET_DEFAULT)) return throughSocket(SOCKET_DEFAULT);
  return { url: URL_DEFAULT, name: URL_DEFAULT };
}
