/** The listening sockets of an engine. They are opened here and served by all reactors. */
import { closeFd, Errno, listenTcp, localAddress, NativeError } from "../../../ffi/index.ts";
import { TrilithError } from "../../errors.ts";
import { LISTEN_BACKLOG } from "../reactor/limits.ts";
import type { EngineSettings } from "../settings.ts";
import { FORMER_ENGINE_MS, FORMER_ENGINE_POLL_MS } from "../shard/limits.ts";

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

interface Listening extends Endpoint {
  readonly fd: number;
}

export interface Sockets {
  readonly nvmf: readonly Listening[];
  readonly discovery: readonly Listening[];
  readonly nbd: readonly Listening[];
  close(): void;
}

/**
 * Opens one listening socket; says who to look for when the port is taken. It is waited for a little:
 * after an engine was killed the kernel takes its rings down, and they hold its sockets until then.
 */
async function listenOn(address: string, port: number, what: string): Promise<Listening> {
  const untilMs = performance.now() + FORMER_ENGINE_MS;
  for (;;) {
    try {
      const fd = listenTcp({ address, port }, LISTEN_BACKLOG);
      return { fd, address, port: localAddress(fd).port };
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      const where = `${what} on ${address}:${port}`;
      if (error.errno !== Errno.EADDRINUSE) {
        throw new TrilithError("Unavailable", `cannot listen for ${where}: ${error.message}`);
      }
      if (performance.now() > untilMs) {
        throw new TrilithError(
          "InUse",
          `cannot listen for ${where}: the port is taken`,
          `see \`ss -ltnp sport = :${port}\`, or choose another port`,
        );
      }
    }
    await Bun.sleep(FORMER_ENGINE_POLL_MS);
  }
}

/** Opens all listening sockets that the settings name. `InUse` when a port is taken. */
export async function openSockets(settings: EngineSettings): Promise<Sockets> {
  const { nvmfListen, nvmfPort, discoveryPort, nbdPort } = settings;
  const nvmf: Listening[] = [];
  const discovery: Listening[] = [];
  const nbd: Listening[] = [];
  const close = (): void => {
    for (const { fd } of [...nvmf, ...discovery, ...nbd]) closeFd(fd);
  };
  try {
    for (const address of nvmfListen) {
      nvmf.push(await listenOn(address, nvmfPort, "NVMe/TCP"));
      if (discoveryPort !== null) {
        discovery.push(await listenOn(address, discoveryPort, "NVMe discovery"));
      }
      if (nbdPort !== null) nbd.push(await listenOn(address, nbdPort, "NBD"));
    }
    return { nvmf, discovery, nbd, close };
  } catch (error) {
    close();
    throw error;
  }
}
