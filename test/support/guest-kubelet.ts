/**
 * Kubelets in a guest: `trilith csi --node` runs there, on Debian's kernel, and a test calls it from
 * outside (`guest-csi-proxy.ts` carries the calls in).
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type JsonValue, toJson } from "@bufbuild/protobuf";
import { VolumeCapabilitySchema } from "../../src/csi/generated/csi_pb.js";
import type { Guest } from "../initiator/vm.ts";
import { waitUntil } from "./cluster.ts";
import type { ProxiedCall, ProxiedResult } from "./guest-csi-proxy.ts";
import { capabilityOf, type WantedUse } from "./node-calls.ts";

/** A call may take as long as a slow machine needs. */
const DEADLINE_MS = 240_000;
/** Asking a driver that starts whether it is there. */
const PROBE_MS = 10_000;
const SOCKETS = "/run/csi";

/** An error that a call ended with. */
export class CallError extends Error {
  readonly code: number;
  constructor(code: number, details: string) {
    super(details);
    this.code = code;
  }
}

interface Waiting {
  readonly resolve: (result: ProxiedResult) => void;
}

/** Carries calls into a guest. */
export class GuestCalls {
  readonly #guest: Guest;
  readonly #server: ReturnType<typeof Bun.serve>;
  readonly #queue: ProxiedCall[] = [];
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #wake: (() => void) | null = null;
  #closed = false;

  private constructor(guest: Guest) {
    this.#guest = guest;
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  /** Starts the proxy in a guest that has the executable. */
  static async start(guest: Guest): Promise<GuestCalls> {
    const calls = new GuestCalls(guest);
    const folder = mkdtempSync(join(tmpdir(), "trilith-proxy-"));
    try {
      const built = await Bun.build({
        entrypoints: [join(import.meta.dir, "guest-csi-proxy.ts")],
        target: "bun",
      });
      writeFileSync(join(folder, "proxy.js"), await built.outputs[0]!.text());
      await guest.copyIn(join(folder, "proxy.js"), "/opt/proxy.js");
    } finally {
      rmSync(folder, { recursive: true });
    }
    // The executable is Bun with our program in it, and can be Bun alone.
    await guest.ok(
      `mkdir -p ${SOCKETS}
      BUN_BE_BUN=1 /opt/trilith/trilith run /opt/proxy.js "$1" >/tmp/proxy.log 2>&1 3<&- &`,
      { args: [`http://127.0.0.1:${calls.#server.port}`] },
    );
    return calls;
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/next") {
      while (this.#queue.length === 0 && !this.#closed) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      const call = this.#queue.shift();
      return call === undefined ? new Response(null, { status: 410 }) : Response.json(call);
    }
    const id = Number(pathname.split("/").at(-1));
    const result = (await request.json()) as ProxiedResult;
    this.#waiting.get(id)?.resolve(result);
    this.#waiting.delete(id);
    return new Response();
  }

  /** Makes a call; resolves with how it ended. */
  async call(
    socket: string,
    method: string,
    request: JsonValue,
    deadlineMs = DEADLINE_MS,
  ): Promise<ProxiedResult> {
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<ProxiedResult>();
    this.#waiting.set(id, { resolve });
    this.#queue.push({ id, socket, method, request, deadlineMs });
    this.#wake?.();
    const late = setTimeout(async () => {
      const logs = await this.#guest.ok("tail -n 40 /tmp/proxy.log /tmp/csi-*.log || true");
      reject(new Error(`${method} is not answered at all:\n${logs}`));
    }, deadlineMs + 30_000);
    try {
      return await promise;
    } finally {
      clearTimeout(late);
    }
  }

  async stop(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
    await this.#server.stop(true);
  }
}

/** A node of Kubernetes in a guest: its driver, and what its kubelet asks for. */
export class GuestKubelet {
  readonly name: string;
  readonly #guest: Guest;
  readonly #calls: GuestCalls;
  readonly #rest: string;

  constructor(guest: Guest, calls: GuestCalls, name: string, rest: string) {
    this.name = name;
    this.#guest = guest;
    this.#calls = calls;
    this.#rest = rest;
  }

  get #socket(): string {
    return `${SOCKETS}/${this.name}.sock`;
  }
  get folder(): string {
    return `/var/lib/${this.name}`;
  }
  staging(volume: string): string {
    return `${this.folder}/plugins/${volume}/globalmount`;
  }
  target(volume: string): string {
    return `${this.folder}/pods/${volume}/mount`;
  }

  /** Starts the driver and waits until it answers. */
  async start(): Promise<void> {
    await this.#guest.ok(
      `mkdir -p ${this.folder}/plugins_registry
      trilith csi --node --node-name ${this.name} --kubelet-dir ${this.folder} --rest ${this.#rest} \\
        --csi-socket ${this.#socket} --log-level debug >>/tmp/csi-${this.name}.log 2>&1 3<&- &
      echo $! >/tmp/csi-${this.name}.pid
      answers() { [ -S ${this.#socket} ]; }
      wait_for 600 answers || { cat /tmp/csi-${this.name}.log; exit 1; }`,
      { timeoutMs: 180_000 },
    );
    // A socket may be there that a former driver has left.
    await waitUntil(
      `${this.name} answering`,
      async () => {
        const { code } = await this.#calls.call(this.#socket, "nodeGetInfo", {}, PROBE_MS);
        return code;
      },
      (code) => code === 0,
    );
  }

  /** Ends the driver with everything it has started, in the middle of whatever it does. */
  async kill(): Promise<void> {
    await this.#guest.ok(
      `pid=$(cat /tmp/csi-${this.name}.pid)
      kill -KILL $(pgrep -P "$pid" || true) "$pid"
      gone() { ! [ -e "/proc/$pid" ]; }
      wait_for 600 gone`,
    );
  }

  async log(): Promise<string> {
    return await this.#guest.ok(`tail -n 60 /tmp/csi-${this.name}.log`);
  }

  /** Calls; resolves with the answer, rejects with a `CallError`. */
  async call(method: string, request: JsonValue, deadlineMs?: number): Promise<JsonValue> {
    const result = await this.#calls.call(this.#socket, method, request, deadlineMs);
    if (result.code === 0) return result.response;
    throw new CallError(result.code, result.details);
  }

  async stage(
    volumeId: string,
    publishContext: Record<string, string>,
    use: WantedUse,
    deadlineMs?: number,
  ): Promise<void> {
    const stagingTargetPath = this.staging(volumeId);
    const volumeCapability = capabilityJson(use);
    const request = { volumeId, stagingTargetPath, publishContext, volumeCapability };
    await this.call("nodeStageVolume", request, deadlineMs);
  }

  async publish(volumeId: string, use: WantedUse, deadlineMs?: number): Promise<void> {
    const request = {
      volumeId,
      stagingTargetPath: this.staging(volumeId),
      targetPath: this.target(volumeId),
      volumeCapability: capabilityJson(use),
    };
    await this.call("nodePublishVolume", request, deadlineMs);
  }

  async unpublish(volumeId: string, deadlineMs?: number): Promise<void> {
    const request = { volumeId, targetPath: this.target(volumeId) };
    await this.call("nodeUnpublishVolume", request, deadlineMs);
  }

  async unstage(volumeId: string, deadlineMs?: number): Promise<void> {
    const request = { volumeId, stagingTargetPath: this.staging(volumeId) };
    await this.call("nodeUnstageVolume", request, deadlineMs);
  }
}

function capabilityJson(use: WantedUse): JsonValue {
  return toJson(VolumeCapabilitySchema, create(VolumeCapabilitySchema, capabilityOf(use)));
}
