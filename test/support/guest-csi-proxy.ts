/**
 * Runs in a guest, beside the CSI driver: fetches calls from the test by HTTP, makes them by gRPC on the
 * driver's socket, and posts how they ended. A socket is named with each call, because a guest may be
 * several nodes of Kubernetes.
 *
 *   proxy.js URL
 */
import { create, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { Identity, Node } from "../../src/csi/generated/csi_pb.js";
import { csiClient } from "./csi-client.ts";

/** A call as the test asks for it. */
export interface ProxiedCall {
  readonly id: number;
  readonly socket: string;
  /** `nodeStageVolume`. */
  readonly method: string;
  /** The message in protobuf's JSON. */
  readonly request: JsonValue;
  readonly deadlineMs: number;
}

/** How it ended: gRPC's code, and the answer or what the error says. */
export interface ProxiedResult {
  readonly code: number;
  readonly details: string;
  readonly response: JsonValue | null;
}

type AnyClient = Record<
  string,
  (request: unknown, options: { deadlineMs: number }) => Promise<never>
>;

const clients = new Map<string, AnyClient>();

function clientFor(socket: string): AnyClient {
  const known = clients.get(socket);
  if (known !== undefined) return known;
  const client = {
    ...csiClient(Identity, socket),
    ...csiClient(Node, socket),
  } as unknown as AnyClient;
  clients.set(socket, client);
  return client;
}

async function makeCall(call: ProxiedCall): Promise<ProxiedResult> {
  const methods = [...Identity.methods, ...Node.methods];
  const method = methods.find(({ localName }) => localName === call.method);
  if (method === undefined) return { code: 12, details: `no ${call.method}`, response: null };
  const request = fromJson(method.input, call.request);
  const { deadlineMs } = call;
  try {
    const answer = await clientFor(call.socket)[call.method]!(request, { deadlineMs });
    const response = toJson(method.output, create(method.output, answer));
    return { code: 0, details: "", response };
  } catch (error) {
    const { code = 2, details = String(error) } = error as { code?: number; details?: string };
    return { code, details, response: null };
  }
}

/** Serves until the test has no more calls. */
async function serve(url: string): Promise<void> {
  for (;;) {
    const answer = await fetch(`${url}/next`);
    if (answer.status !== 200) return;
    const call = (await answer.json()) as ProxiedCall;
    void makeCall(call).then((result) =>
      fetch(`${url}/done/${call.id}`, { method: "POST", body: JSON.stringify(result) }),
    );
  }
}

if (import.meta.main) await serve(process.argv[2]!);
