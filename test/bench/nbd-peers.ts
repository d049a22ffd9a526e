/** NBD servers from Debian that are measured beside ours. */
import { truncateSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { START_TIMEOUT_MS } from "./limits.ts";
import { freePorts } from "./machine.ts";
import { type Place, Service } from "./processes.ts";

/** A server and the URI of what it serves. */
export interface NbdPeer {
  readonly name: string;
  readonly uri: string;
  readonly service: Service;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = createConnection({ host: "127.0.0.1", port });
    connection.on("connect", () => {
      connection.destroy();
      resolve(true);
    });
    connection.on("error", () => resolve(false));
  });
}

async function started(name: string, service: Service, port: number): Promise<NbdPeer> {
  try {
    await service.serves(() => accepts(port), START_TIMEOUT_MS);
  } catch (error) {
    await service.stop();
    throw error;
  }
  return { name, uri: `nbd://127.0.0.1:${port}`, service };
}

/** nbdkit with its memory plug-in. */
export function startNbdkit(mib: number, place: Place, folder: string): Promise<NbdPeer> {
  const [port] = freePorts(1) as [number];
  const command = ["nbdkit", "--foreground", "--port", String(port), "--ipaddr", "127.0.0.1"];
  command.push("memory", `${mib}M`);
  return started("nbdkit memory", new Service("nbdkit", command, place, folder), port);
}

/** qemu-nbd over a file in memory; `memoryFolder` is one in a memory file system. */
export function startQemuNbd(
  mib: number,
  place: Place,
  folder: string,
  memoryFolder: string,
): Promise<NbdPeer> {
  const [port] = freePorts(1) as [number];
  const path = join(memoryFolder, "qemu-nbd.raw");
  writeFileSync(path, "");
  truncateSync(path, mib * (1 << 20));
  const command = ["qemu-nbd", "--format=raw", "--persistent", "--shared=8"];
  command.push("--bind=127.0.0.1", `--port=${port}`, path);
  return started("qemu-nbd", new Service("qemu-nbd", command, place, folder), port);
}
