/**
 * An NBD server in a process of its own, for clients that are programs:
 *
 *   bun test/support/nbd-server.ts NAME=URI[#ro]...
 *
 * Prints `{"port":N}`. Each line on its standard input is a command: `remove NAME`, `add NAME URI`,
 * `stats`; each is answered by one line of JSON. At the end of the input it closes everything,
 * prints what the reactor still holds beyond what it started with, and exits.
 */
import { readSync, writeSync } from "node:fs";
import { closeFd, listenTcp, localAddress, Op } from "../../ffi/index.ts";
import type { Bdev } from "../../src/engine/bdev/bdev.ts";
import { openFileBdev } from "../../src/engine/bdev/file.ts";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import { parseBdevUri } from "../../src/engine/bdev/uri.ts";
import { NbdServer } from "../../src/engine/nbd/server.ts";
import { Reactor } from "../../src/engine/reactor/reactor.ts";
import { recvBuffersOf } from "../../src/engine/reactor/tcp-stream.ts";
import { toErrorBody } from "../../src/errors.ts";

const ARENA_BYTES = 64 << 20;
const STDIN = 0;
const POLLIN = 1;

function say(body: unknown): void {
  writeSync(1, `${JSON.stringify(body)}\n`);
}

const reactor = new Reactor({ index: 0, arenaBytes: ARENA_BYTES });
const buffers = recvBuffersOf(reactor);
const devices = new Map<string, Bdev>();
const server = new NbdServer(reactor, buffers, {
  log: (level, text, fields) => {
    if (level !== "debug") console.error(level, text, JSON.stringify(fields ?? {}));
  },
  handOver: () => {
    throw new Error("there is one reactor");
  },
});

function open(uri: string): Bdev {
  const parsed = parseBdevUri(uri);
  switch (parsed.driver) {
    case "malloc":
    case "null":
      return openMemoryBdev(reactor, parsed);
    case "uring":
    case "aio":
      return openFileBdev(reactor, parsed);
    default:
      throw new Error(`${uri} is not for this server`);
  }
}

function addExport(name: string, spec: string): void {
  const readOnly = spec.endsWith("#ro");
  const bdev = open(readOnly ? spec.slice(0, -3) : spec);
  devices.set(name, bdev);
  server.addExport({ name, bdev, readOnly, description: bdev.uri });
}

async function removeExport(name: string): Promise<void> {
  await server.removeExport(name);
  await devices.get(name)!.close();
  devices.delete(name);
}

async function command(line: string): Promise<void> {
  const [verb, name, uri] = line.split(" ");
  try {
    if (verb === "remove") await removeExport(name!);
    else if (verb === "add") addExport(name!, uri!);
    else if (verb !== "stats") throw new Error(`unknown command ${line}`);
    say({ connections: server.connections.size, ...reactor.stats });
  } catch (error) {
    say(toErrorBody(error));
  }
}

/** Lines of the standard input; the ring says when there is something, because the loop never lets go. */
async function serve(): Promise<void> {
  const piece = Buffer.alloc(4096);
  let text = "";
  for (;;) {
    await reactor.submit(Op.POLL_ADD, STDIN, 0, 0, 0, POLLIN);
    const n = readSync(STDIN, piece);
    if (n === 0) return;
    text += piece.toString("utf8", 0, n);
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      await command(line);
    }
  }
}

async function main(): Promise<void> {
  const before = {
    slots: reactor.io.free,
    bytes: reactor.arena.freeBytes,
    handlers: reactor.handlerCount,
  };
  for (const argument of process.argv.slice(2)) {
    const at = argument.indexOf("=");
    addExport(argument.slice(0, at), argument.slice(at + 1));
  }
  const fd = listenTcp({ address: "127.0.0.1", port: 0 }, 128);
  server.listen(fd);
  say({ port: localAddress(fd).port });
  await serve();
  await server.close();
  closeFd(fd);
  for (const bdev of devices.values()) await bdev.close();
  say({
    slots: before.slots - reactor.io.free,
    bytes: before.bytes - reactor.arena.freeBytes,
    handlers: reactor.handlerCount - before.handlers,
  });
}

reactor.runUntil(main());
process.exit(0);
