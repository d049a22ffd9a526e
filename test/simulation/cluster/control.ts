/**
 * A control process of a simulated machine, put together as `control/node.ts` does it: raft on the machine's
 * SQLite file, the store, observer, executor, service and recorder. The port for other members (mutual TLS),
 * the HTTP API, certificates and joining are left out: messages go over the simulated network, and operations are
 * called as functions.
 */
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Executor } from "../../../src/control/executor/executor.ts";
import type { NodeRecord } from "../../../src/control/model.ts";
import { Observer } from "../../../src/control/observer/observer.ts";
import type { RaftClock } from "../../../src/control/raft/clock.ts";
import type { Disk as RaftDisk } from "../../../src/control/raft/disk.ts";
import type { RaftNode, RaftTransport } from "../../../src/control/raft/raft.ts";
import { openRaftNode } from "../../../src/control/raft/raft-node.ts";
import { controlRecorder, type RecordRequest } from "../../../src/control/recorder/recorder.ts";
import { makeSettingsReader } from "../../../src/control/service/settings.ts";
import { createService, type Service } from "../../../src/control/service.ts";
import { StoreMachine } from "../../../src/control/store/machine.ts";
import { openStore, type ReplicatedStore } from "../../../src/control/store/replicated-store.ts";
import { keepUpgraded } from "../../../src/control/store/upgrade.ts";
import type { EngineClient } from "../../../src/engine/rpc/client.ts";
import { TrilithError } from "../../../src/errors.ts";
import type { Log } from "../../../src/ops/log.ts";
import { Crash, type SimDatabase } from "../../support/raft/sim-database.ts";
import { call, type Network } from "./network.ts";
import type { Process } from "./world.ts";

const SYNC_MAX_MS = 3;
const SLOW_SYNC_MAX_MS = 200;
const SLOW_SYNC_CHANCE = 0.02;
const FORWARD_TIMEOUT_MS = 5_000;

export interface ControlOptions {
  readonly process: Process;
  readonly network: Network;
  readonly nodeName: string;
  readonly raftId: string;
  readonly db: SimDatabase;
  readonly folder: string;
  readonly isFirst: boolean;
  /** The control process with this raft id, if it runs. */
  readonly member: (raftId: string) => Control | null;
  /** Machine of a raft id. */
  readonly machineOf: (raftId: string) => string;
  readonly engineOf: (node: NodeRecord) => EngineClient;
  /** The process cannot go on. */
  readonly onFailure: (error: unknown) => void;
}

export interface Control {
  readonly process: Process;
  readonly raft: RaftNode;
  readonly store: ReplicatedStore;
  readonly executor: Executor;
  readonly observer: Observer;
  readonly service: Service;
  /** Serves an engine of this machine, or another member. */
  record(request: RecordRequest): Promise<void>;
}

function clockOf(process: Process): RaftClock {
  const { world } = process;
  return {
    nowMs: () => world.nowMs,
    every(intervalMs, run) {
      let isEnded = false;
      const again = (): void => {
        if (isEnded) return;
        run();
        world.after(intervalMs * (0.9 + world.random.next() * 0.2), process, again);
      };
      world.after(world.random.next() * intervalMs, process, again);
      return () => {
        isEnded = true;
      };
    },
    soon: (run) => void world.after(world.random.next() * 0.2, process, run),
  };
}

function diskOf(process: Process, db: SimDatabase): RaftDisk {
  const { world } = process;
  return {
    sync(done) {
      const isThere = db.sync();
      const isSlow = world.random.chance(SLOW_SYNC_CHANCE);
      const delayMs = 0.05 + world.random.next() * (isSlow ? SLOW_SYNC_MAX_MS : SYNC_MAX_MS);
      world.after(delayMs, process, () => {
        isThere();
        done(null);
      });
    },
    close: () => {},
  };
}

let files = 0;

function transportOf(options: ControlOptions): RaftTransport {
  const { process, network, member, machineOf, folder } = options;
  const { world } = process;
  return {
    send(to, bytes) {
      const there = member(to);
      if (there === null) return;
      const copy = bytes.slice();
      network.datagram(process.machine, there.process, () => there.raft.receive(copy));
    },
    sendSnapshot(to, message, path) {
      // Read at once: the file goes away when its sender dies.
      const copy = join(folder, "..", `wire-${++files}.db`);
      copyFileSync(path, copy);
      return new Promise<void>((resolve, reject) => {
        const end = (outcome: () => void): void => {
          rmSync(copy, { force: true });
          world.after(network.delayMs(machineOf(to), process.machine), process, outcome);
        };
        world.after(network.delayMs(process.machine, machineOf(to)) * 5, null, () => {
          const there = member(to);
          if (there === null || network.isCut(process.machine, machineOf(to))) {
            end(() => reject(new Error("lost")));
            return;
          }
          const unlisten = there.process.onEnd(() => end(() => reject(new Error("receiver died"))));
          world.after(0, there.process, () => {
            const outcome = (call: () => void) => () => {
              unlisten();
              end(call);
            };
            there.raft.receiveSnapshot(message, copy).then(
              outcome(resolve),
              outcome(() => reject(new Error("refused"))),
            );
          });
        });
      });
    },
  };
}

/** Starts a control process; called as part of it. */
export function startSimControl(options: ControlOptions): Control {
  const { process, network, nodeName, raftId, db, folder, member, machineOf } = options;
  const { world } = process;
  const nowMs = (): number => Math.trunc(process.wallMs());
  const monotonicMs = (): number => world.nowMs;
  const log: Log = (level, text, fields = {}) => {
    if (level === "debug") return;
    const shown = JSON.stringify(fields, (_name, value) =>
      value instanceof Error ? value.message : value,
    );
    world.note(`${nodeName} control ${text} ${shown}`);
  };
  mkdirSync(folder, { recursive: true });
  const machine = new StoreMachine();
  const raft = openRaftNode({
    raftId,
    db,
    folder,
    stateMachine: machine,
    transport: transportOf(options),
    ...(options.isFirst ? { bootstrap: { context: nodeName } } : {}),
    clock: clockOf(process),
    disk: diskOf(process, db),
    random: () => world.random.next(),
    onProblem: (what, error) => log("warn", what, { error }),
    onFailure: (error) => options.onFailure(error),
  });
  const store = openStore({ machine, raft, log, now: nowMs });
  const settings = makeSettingsReader();
  const observer = new Observer({
    clientOf: options.engineOf,
    nodeDeadlineMs: () => settings(store.view().settings).nodeDeadlineMs,
    log,
    nowMs,
    monotonicMs,
  });
  const executor = new Executor({
    store,
    observer,
    settings: (view) => settings(view.settings),
    log,
    nowMs,
    monotonicMs,
  });
  const unsupported = () => Promise.reject(new TrilithError("Unimplemented", "not simulated"));
  const service = createService({
    store,
    observation: observer,
    execution: executor,
    membership: {
      createToken: unsupported,
      transferLeadership: unsupported,
      removeMember: unsupported,
    },
    plan: (state) => executor.planNow(state),
    log,
    now: nowMs,
    newUuid: () => simUuid(process),
  });
  const forward = (request: RecordRequest): Promise<void> => {
    const { leader } = raft.status();
    if (leader === null || leader === raftId) {
      return Promise.reject(new TrilithError("Unavailable", "the cluster has no leader"));
    }
    return call(network, {
      from: process,
      machine: machineOf(leader),
      listener: () => member(leader)?.process ?? null,
      what: `record at ${leader}`,
      timeoutMs: FORWARD_TIMEOUT_MS,
      serve: () => member(leader)!.record(request),
    });
  };
  const recorder = controlRecorder({ store, forward, nowMs, log });
  executor.start();
  const memberVersions = async () =>
    new Map(store.status().members.map((one) => [one.raftId, machine.knownVersion]));
  keepUpgraded({ store, knownVersion: machine.knownVersion, memberVersions, log });
  return {
    process,
    raft,
    store,
    executor,
    observer,
    service,
    record: (request) => recorder.record(request),
  };
}

/** A UUID out of the world's randomness. */
export function simUuid(process: Process): string {
  const { random } = process.world;
  const hex = (digits: number): string =>
    Array.from({ length: digits }, () => random.below(16).toString(16)).join("");
  return `${hex(8)}-${hex(4)}-4${hex(3)}-8${hex(3)}-${hex(12)}`;
}

export { Crash };
