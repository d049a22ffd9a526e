/** A gRPC server on a unix socket that only its owner may open. */
import { chmodSync, mkdtempSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { TrilithError } from "../../errors.ts";
import { freeSocketPath, placeInUse } from "../../net/unix-socket.ts";
import type { Log } from "../../ops/log.ts";
import { MESSAGE_BYTES_MAX, SOCKET_PATH_BYTES_MAX, STOP_GRACE_MS } from "../limits.ts";
import type { Service } from "./service.ts";

export interface GrpcServer {
  readonly path: string;
  /** Nothing new is taken; calls that run may end within some seconds, then they are cut off. */
  stop(): Promise<void>;
}

/** What is served, and where. */
export interface ServeOptions {
  /** Path of the socket; a socket there that nobody answers at is replaced. */
  readonly path: string;
  /** How it is named to people: `CSI`. */
  readonly what: string;
  readonly services: readonly Service[];
  readonly log: Log;
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}

/**
 * Binds in a folder that nobody else can enter and moves the socket to its place, so that it is there
 * whole, and never open to others.
 */
async function bindPrivately(server: Server, path: string): Promise<void> {
  const folder = mkdtempSync(join(dirname(path), ".csi-"));
  try {
    const made = join(folder, "s");
    if (Buffer.byteLength(made) > SOCKET_PATH_BYTES_MAX) {
      throw new TrilithError(
        "InvalidArgument",
        `the path ${path} is too long for a unix socket`,
        `its folder may have ${SOCKET_PATH_BYTES_MAX - 13} bytes`,
      );
    }
    await bind(server, made);
    chmodSync(made, 0o600);
    renameSync(made, path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function shutDown(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const cutOff = setTimeout(() => server.forceShutdown(), STOP_GRACE_MS);
    server.tryShutdown(() => {
      clearTimeout(cutOff);
      resolve();
    });
  });
}

/**
 * Serves. `InUse` when another process answers at the path, `InvalidArgument` when the path is too long.
 */
export async function serveGrpc(options: ServeOptions): Promise<GrpcServer> {
  const { path, what, services, log } = options;
  await freeSocketPath(path, what);
  const server = new Server({
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
  });
  for (const { definition, implementation } of services) {
    server.addService(definition, implementation);
  }
  try {
    await bindPrivately(server, path);
  } catch (error) {
    server.forceShutdown();
    if (error instanceof TrilithError) throw error;
    throw placeInUse(what, path, error instanceof Error ? error.message : String(error));
  }
  const { ino } = statSync(path);
  log("info", `${what} is served`, { socket: path, services: services.map(({ name }) => name) });
  return {
    path,
    async stop() {
      // A server that was started meanwhile has put its own socket there.
      if (statSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
      await shutDown(server);
    },
  };
}
