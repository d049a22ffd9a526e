/** Which namespace a device stands for: its names, and the checks before it is used. */
import { createHash } from "node:crypto";
import { TrilithError } from "../../../errors.ts";
import { endpointText } from "../../../names.ts";
import { uuidFromHex } from "../../../nvme/identify-decode.ts";
import type { NvmfUri } from "../uri.ts";
import type { NamespaceFacts } from "./controller.ts";

/** Lower-case UUID of a namespace: its own, else its NGUID, else one made from its name. */
export function uuidOf(facts: NamespaceFacts, nqn: string): string {
  if (facts.uuid !== undefined) return facts.uuid;
  if (facts.nguid !== undefined) return uuidFromHex(facts.nguid);
  return uuidFromHex(createHash("sha256").update(`${nqn}#${facts.nsid}`).digest("hex"));
}

/** The URI that opens the same namespace again, and nothing else. */
export function canonicalUri(uri: NvmfUri, uuid: string): string {
  const encode = (name: string): string => encodeURIComponent(name).replaceAll("%3A", ":");
  const parameters = [`uuid=${uuid}`];
  if (uri.hostNqn !== undefined) parameters.push(`hostnqn=${encode(uri.hostNqn)}`);
  if (uri.headerDigest) parameters.push("hdgst=true");
  if (uri.dataDigest) parameters.push("ddgst=true");
  if (uri.queues !== undefined) parameters.push(`queues=${uri.queues}`);
  return `nvmf+tcp://${endpointText(uri.address, uri.port)}/${encode(uri.nqn)}?${parameters.join("&")}`;
}

/** Throws unless the namespace is one that this initiator can serve and the one that was meant. */
export function checkNamespace(facts: NamespaceFacts, uri: NvmfUri): void {
  const what = `namespace ${facts.nsid} of ${uri.nqn}`;
  if (facts.blockSize !== 512 && facts.blockSize !== 4096) {
    throw new TrilithError("Unimplemented", `${what} has blocks of ${facts.blockSize} bytes`);
  }
  if (facts.metadataBytes !== 0) {
    throw new TrilithError("Unimplemented", `${what} has metadata in its blocks`);
  }
  if (uri.uuid === undefined) return;
  const nguid = facts.nguid === undefined ? undefined : uuidFromHex(facts.nguid);
  if (facts.uuid !== uri.uuid && nguid !== uri.uuid) {
    throw new TrilithError(
      "Conflict",
      `${what} has UUID ${facts.uuid ?? nguid ?? "none"}, not ${uri.uuid}`,
      "another volume or replica answers at this address; check the URI",
    );
  }
}
