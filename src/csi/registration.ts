/**
 * Makes the driver known to the kubelet, by the protocol that its plugin watcher speaks: a socket in the
 * kubelet's folder of plugins, which the kubelet finds and asks (Kubernetes: pluginregistration/v1). No
 * sidecar is needed. The socket is put there again whenever it is missing: a kubelet that is set up anew
 * empties or replaces the folder.
 */
import { existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { TrilithError } from "../errors.ts";
import type { Log } from "../ops/log.ts";
import { Registration } from "./generated/pluginregistration_pb.js";
import { type GrpcServer, serveGrpc } from "./grpc/server.ts";
import { serviceOf } from "./grpc/service.ts";
import { REGISTRATION_LOOK_MS } from "./limits.ts";
import { pauseUnless } from "./pause.ts";

/** Versions of CSI's major that the kubelet chooses from. */
const SUPPORTED_VERSIONS = ["1.0.0"];

export interface RegistrationOptions {
  /** Where the kubelet looks: `/var/lib/kubelet/plugins_registry/<driver>-reg.sock`. */
  readonly socket: string;
  readonly driverName: string;
  /** Socket of the node service. */
  readonly endpoint: string;
  readonly log: Log;
  /** How often it is looked whether the socket is still there; a test may look sooner. */
  readonly lookMs?: number;
}

export interface KubeletRegistration {
  stop(): Promise<void>;
}

function registrationService({ driverName, endpoint, log }: RegistrationOptions) {
  return serviceOf(
    Registration,
    {
      getInfo: async () => ({
        type: "CSIPlugin",
        name: driverName,
        endpoint,
        supportedVersions: SUPPORTED_VERSIONS,
      }),
      notifyRegistrationStatus: async ({ pluginRegistered, error }) => {
        if (pluginRegistered) log("info", "the kubelet has registered the driver", { driverName });
        else
          log("error", "the kubelet refuses the driver; it will ask again", { driverName, error });
        return {};
      },
    },
    log,
  );
}

/** Identity of the file at a path; null: there is none. */
function inodeAt(path: string): number | null {
  return statSync(path, { throwIfNoEntry: false })?.ino ?? null;
}

/**
 * Keeps the driver registered until it is stopped. A folder that is not there yet (the kubelet has never
 * run) is waited for.
 */
export function keepRegistered(options: RegistrationOptions): KubeletRegistration {
  const { socket, log, lookMs = REGISTRATION_LOOK_MS } = options;
  let server = null as GrpcServer | null;
  let inode: number | null = null;
  let complained = "";
  const ending = new AbortController();

  const complain = (what: string, error?: unknown): void => {
    if (complained === what) return;
    complained = what;
    log("warn", what, { socket, ...(error === undefined ? {} : { error }) });
  };
  const look = async (): Promise<void> => {
    if (server !== null && inodeAt(socket) === inode) return;
    await server?.stop();
    server = null;
    if (!existsSync(dirname(socket)))
      return complain("waits for the kubelet: no folder of plugins");
    try {
      const services = [registrationService(options)];
      server = await serveGrpc({ path: socket, what: "plugin registration", services, log });
      inode = inodeAt(socket);
      complained = "";
    } catch (error) {
      if (!(error instanceof TrilithError)) throw error;
      complain("cannot register with the kubelet", error);
    }
  };
  const keeping = (async () => {
    while (!ending.signal.aborted) {
      await look();
      await pauseUnless(ending.signal, lookMs);
    }
    await server?.stop();
  })();
  return {
    async stop() {
      ending.abort();
      await keeping;
    },
  };
}
