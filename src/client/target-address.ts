/** Addresses of volumes as the HTTP API names them. */
import { TrilithError } from "../errors.ts";

/** A target's address, from its URI (`nvmf+tcp://10.0.0.1:8420/nqn.…?hostnqn=…`). */
export interface TargetAddress {
  readonly address: string;
  readonly port: string;
  readonly nqn: string;
  readonly hostNqn: string | null;
}

/** The address that a device URI names. Throws `Unavailable` when it is not understood. */
export function targetAddress(uri: string): TargetAddress {
  // WHATWG URLs keep the host of schemes that they do not know as it stands.
  const url = URL.parse(uri);
  const nqn = decodeURIComponent(url?.pathname.replace(/^\/+/, "") ?? "");
  if (url === null || !/^nvmf(\+tcp)?:$/.test(url.protocol) || url.hostname === "" || nqn === "") {
    throw new TrilithError("Unavailable", `the target's address "${uri}" is not understood`);
  }
  return {
    address: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? "4420" : url.port,
    nqn,
    hostNqn: url.searchParams.get("hostnqn"),
  };
}
