/**
 * An application host: what Linux does with the paths of a multipath NVMe namespace, without its queues. It
 * keeps an association with every node that offers the volume's subsystem, sends where the ANA state allows,
 * takes a request elsewhere when its path fails, waits while there is no path, and gives up only what is
 * answered with an error that is not the path's.
 */
import { IoOp } from "../../../src/engine/reactor/io-table.ts";
import { AnaState, STATUS_DNR, Status } from "../../../src/nvme/constants.ts";
import { Association, connect, type FabricHost, type FabricTarget } from "./fabric.ts";
import type { Network } from "./network.ts";
import type { Process } from "./world.ts";

const RECONNECT_MS = 1_000;
const CONNECT_TIMEOUT_MS = 3_000;
const REQUEUE_MS = 50;
const RETRIES_MAX = 5;
const CODE_MASK = 0x7ff;
const PATH_RELATED = 3;

export interface HostRequest {
  readonly op: number;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
  readonly data: Uint8Array | null;
  /** `status` 0 is success, else the NVMe status that it failed with. */
  readonly done: (status: number, data: Uint8Array) => void;
}

interface Queued extends HostRequest {
  retries: number;
}

interface Path {
  readonly machine: string;
  readonly target: () => FabricTarget | null;
  association: Association | null;
  ana: AnaState;
  readonly underWay: Set<Queued>;
}

export interface HostOptions {
  readonly network: Network;
  readonly process: Process;
  readonly nqn: string;
  readonly hostNqn: string;
  /** 32 hex digits. */
  readonly hostId: string;
  readonly machines: readonly {
    readonly name: string;
    readonly target: () => FabricTarget | null;
  }[];
}

/** One volume as one host has it. */
export class HostVolume {
  readonly #options: HostOptions;
  readonly #host: FabricHost;
  readonly #paths: Path[];
  #waiting: Queued[] = [];

  constructor(options: HostOptions) {
    this.#options = options;
    this.#host = {
      nqn: options.hostNqn,
      id: options.hostId,
      keepAliveMs: 5_000,
      keepAliveAnswerMs: 5_000,
      ioTimeoutMs: 30_000,
    };
    this.#paths = options.machines.map(({ name, target }) => ({
      machine: name,
      target,
      association: null,
      ana: AnaState.INACCESSIBLE,
      underWay: new Set(),
    }));
    for (const path of this.#paths) this.#connect(path);
  }

  /** Requests without an outcome. */
  get outstanding(): number {
    return this.#paths.reduce((sum, path) => sum + path.underWay.size, this.#waiting.length);
  }

  describe(): string {
    const paths = this.#paths.map(
      ({ machine, association, ana, underWay }) =>
        `${machine} ${association === null ? "lost" : `ana ${ana}`} ${underWay.size} under way`,
    );
    return `${paths.join("; ")}; ${this.#waiting.length} wait`;
  }

  #connect(path: Path): void {
    const { network, process, nqn } = this.#options;
    const { world } = network;
    const ended = (outcome: unknown): void => {
      if (!(outcome instanceof Association)) {
        world.after(RECONNECT_MS, process, () => this.#connect(path));
        return;
      }
      path.association = outcome;
      path.ana = outcome.facts.ana;
      outcome.onFacts = ({ ana }) => {
        path.ana = ana;
        this.#pump();
      };
      outcome.onLost = (reason) => this.#lost(path, reason);
      world.note(`host has ${nqn.slice(-6)} at ${path.machine}, ana ${path.ana}`);
      this.#pump();
    };
    connect(
      network,
      process,
      path.machine,
      path.target,
      nqn,
      this.#host,
      CONNECT_TIMEOUT_MS,
      ended,
    );
  }

  #lost(path: Path, reason: string): void {
    const { network, process, nqn } = this.#options;
    network.world.note(`host lost ${nqn.slice(-6)} at ${path.machine}: ${reason}`);
    path.association = null;
    path.ana = AnaState.INACCESSIBLE;
    // They go elsewhere at once: whether the path had carried them out is not known.
    this.#waiting.push(...path.underWay);
    path.underWay.clear();
    network.world.after(RECONNECT_MS, process, () => this.#connect(path));
    this.#pump();
  }

  submit(request: HostRequest): void {
    this.#waiting.push({ ...request, retries: 0 });
    this.#pump();
  }

  #path(): Path | null {
    const live = this.#paths.filter(({ association }) => association !== null);
    return (
      live.find(({ ana }) => ana === AnaState.OPTIMIZED) ??
      live.find(({ ana }) => ana === AnaState.NON_OPTIMIZED) ??
      null
    );
  }

  #pump(): void {
    for (let path = this.#path(); path !== null && this.#waiting.length > 0; path = this.#path()) {
      this.#send(path, this.#waiting.shift()!);
    }
  }

  #send(path: Path, request: Queued): void {
    const { op, offset, length, flags, data } = request;
    path.underWay.add(request);
    path.association!.send({ kind: "io", op, offset, length, flags, data }, (answer) => {
      path.underWay.delete(request);
      this.#answered(path, request, answer.status, answer.data);
    });
  }

  #answered(path: Path, request: Queued, status: number, data: Uint8Array): void {
    const { network, process } = this.#options;
    const code = status & CODE_MASK;
    if (code === 0) {
      request.done(0, data);
      return;
    }
    const requeue = (): void => {
      network.world.after(REQUEUE_MS, process, () => {
        this.#waiting.push(request);
        this.#pump();
      });
    };
    if (code >> 8 === PATH_RELATED) {
      // Until it is told of another state, or connects anew, the path is not used.
      if (code !== Status.INTERNAL_PATH_ERROR) path.ana = AnaState.INACCESSIBLE;
      requeue();
      return;
    }
    if ((status & STATUS_DNR) === 0 && request.retries < RETRIES_MAX) {
      request.retries++;
      requeue();
    } else request.done(status, data);
  }
}

export { IoOp };
