/**
 * A target process for the initiator tests: one reactor serving what its first argument, an
 * `EngineConfig` as JSON, describes. Says READY on standard output, then answers orders (JSON, one
 * per line on standard input) with a line each: "ok", or what went wrong. Ends when its standard
 * input does.
 *
 * Every path is a target of its own with its own subsystems over the same devices, as two nodes
 * that share a replica would be.
 */
import { writeSync } from "node:fs";
import { listenTcp, Op } from "../../ffi/index.ts";
import type { Bdev } from "../../src/engine/bdev/bdev.ts";
import { openFileBdev } from "../../src/engine/bdev/file.ts";
import { openMemoryBdev } from "../../src/engine/bdev/memory.ts";
import { parseBdevUri } from "../../src/engine/bdev/uri.ts";
import { Reactor } from "../../src/engine/reactor/reactor.ts";
import { RecvBuffers } from "../../src/engine/reactor/tcp-stream.ts";
import { H2C_DATA_BYTES_DEFAULT } from "../../src/engine/target/limits.ts";
import { Subsystem } from "../../src/engine/target/subsystem.ts";
import { Target } from "../../src/engine/target/target.ts";
import { type AnaState, AnaStates } from "./ana.ts";

export interface SubsystemConfig {
  readonly nqn: string;
  /** URI of the device that is served. */
  readonly device: string;
  /** Host NQNs admitted; every host without it. */
  readonly hosts?: readonly string[];
}

export interface PathConfig {
  readonly address: string;
  readonly ports: readonly number[];
  readonly anaState: AnaState;
}

export interface EngineConfig {
  readonly subsystems: readonly SubsystemConfig[];
  readonly paths: readonly PathConfig[];
}

/** What a test may tell a running engine to do. */
export type Order = { readonly do: "ana"; readonly path: number; readonly state: AnaState };

const ARENA_BYTES = 64 << 20;
const ORDER_BYTES_MAX = 4096;
const BACKLOG = 128;
/** Controller ids of one path; the paths' ranges must not overlap. */
const CONTROLLER_IDS_PER_PATH = 1000;
const DISCOVERY_NQN = "nqn.2019-05.io.openebs:discovery-of-path-";

function openDevice(reactor: Reactor, text: string): Bdev {
  const uri = parseBdevUri(text);
  switch (uri.driver) {
    case "malloc":
    case "null":
      return openMemoryBdev(reactor, uri);
    case "uring":
    case "aio":
      return openFileBdev(reactor, uri);
    default:
      throw new Error(`${text}: the initiator tests serve memory and files only`);
  }
}

function startPath(
  reactor: Reactor,
  buffers: RecvBuffers,
  config: EngineConfig,
  devices: readonly Bdev[],
  index: number,
): Target {
  const path = config.paths[index]!;
  const target = new Target(reactor, buffers, {
    h2cDataBytes: H2C_DATA_BYTES_DEFAULT,
    firmware: "0.1",
    discovery: { nqn: `${DISCOVERY_NQN}${index}`, serial: "TRILITH", model: "Trilith" },
    log: (level, text, fields) =>
      writeSync(2, `${level} ${text} ${JSON.stringify(fields ?? {})}\n`),
    handOver: () => {
      throw new Error("there is one reactor");
    },
  });
  for (const [i, { nqn, hosts }] of config.subsystems.entries()) {
    const min = 1 + index * CONTROLLER_IDS_PER_PATH;
    const options = {
      nqn,
      serial: `TRILITH${String(i).padStart(4, "0")}`,
      model: "Trilith",
      hosts,
      controllerIds: { min, max: min + CONTROLLER_IDS_PER_PATH - 1 },
      anaState: AnaStates[path.anaState],
    };
    target.addSubsystem(new Subsystem(options, devices[i]!));
  }
  // Every path tells of all of them, as the nodes of a cluster do.
  target.discovery!.setData({
    generation: 1,
    ports: config.paths.map(({ address, ports }) => ({ address, port: ports[0]! })),
    subsystems: config.subsystems.map(({ nqn, hosts }) => ({ nqn, hosts })),
  });
  for (const port of path.ports) target.listen(listenTcp({ address: path.address, port }, BACKLOG));
  return target;
}

function obey(order: Order, config: EngineConfig, paths: readonly Target[]): void {
  for (const { nqn } of config.subsystems) {
    const subsystem = paths[order.path]!.subsystem(nqn);
    if (subsystem instanceof Subsystem) subsystem.setAnaState(AnaStates[order.state]);
  }
}

/** Reads orders from standard input until it ends. */
async function obeyOrders(
  reactor: Reactor,
  config: EngineConfig,
  paths: readonly Target[],
): Promise<void> {
  const buffer = reactor.arena.alloc(ORDER_BYTES_MAX, 0);
  const address = reactor.arena.address + buffer;
  let text = "";
  for (;;) {
    const bytes = await reactor.submit(Op.READ, 0, address, ORDER_BYTES_MAX, 0, 0);
    if (bytes <= 0) return;
    const lines = (text + Buffer.from(reactor.arena.u8.slice(buffer, buffer + bytes))).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      let answer = "ok";
      try {
        obey(JSON.parse(line) as Order, config, paths);
      } catch (error) {
        answer = error instanceof Error ? error.message : String(error);
      }
      writeSync(1, `${answer}\n`);
    }
  }
}

const config = JSON.parse(process.argv[2]!) as EngineConfig;
const reactor = new Reactor({
  index: 0,
  arenaBytes: ARENA_BYTES,
  onStall: (stall) => writeSync(2, `stall ${JSON.stringify(stall)}\n`),
});
const buffers = new RecvBuffers(reactor);
const devices = config.subsystems.map((subsystem) => openDevice(reactor, subsystem.device));
const paths = config.paths.map((_, i) => startPath(reactor, buffers, config, devices, i));
writeSync(1, "READY\n");
reactor.runUntil(obeyOrders(reactor, config, paths));
process.exit(0);
