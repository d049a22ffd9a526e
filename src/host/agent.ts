/**
 * The agent of an application host: keeps volumes connected (see `host.ts` for what it promises). One pass
 * looks at what is wanted, at the kernel and at the cluster's paths, and does what `plan.ts` says; passes
 * follow whatever changes. Of several processes with one state file one keeps all connections; the others
 * see only to volumes that they have been asked to connect.
 */
import { watch as watchFolder } from "node:fs";
import { basename, dirname } from "node:path";
import { TrilithError } from "../errors.ts";
import { nqnOf } from "../names.ts";
import type { Log } from "../ops/log.ts";
import type { ConnectedVolume, ConnectRequest, HostAgent, VolumePath } from "./host.ts";
import type { HostKernel } from "./kernel.ts";
import { controllersOf, diskOf, isServing, type KernelView, pathOf } from "./kernel-view.ts";
import {
  CONNECT_ATTEMPTS,
  CONNECT_PATIENCE_MS,
  CONNECTS_AT_ONCE,
  DELETE_PATIENCE_MS,
  IDLE_POLL_MS,
  KEEPER_RETRY_MS,
  POLL_MS,
  RESCAN_WAIT_MS,
  RETRY_MAX_MS,
  RETRY_MIN_MS,
  WAIT_POLL_MS,
} from "./limits.ts";
import { PathBook, type PathSource } from "./path-book.ts";
import {
  type Attempt,
  attemptKey,
  type DesiredVolume,
  isEnding,
  planHost,
  troubleOf,
} from "./plan.ts";
import { changeState, readState, takeKeeping, type WantedVolume } from "./state-file.ts";

export interface AgentOptions {
  readonly kernel: HostKernel;
  readonly stateFile: string;
  /** Who knows a volume's paths; null: those of the requests are all there are. */
  readonly source: PathSource | null;
  readonly log: Log;
  /** Hears after each pass what is wanted and what there is. */
  readonly onPass?: (volumes: readonly DesiredVolume[], view: KernelView) => void;
}

interface FailedAttempt extends Attempt {
  readonly error: TrilithError | null;
}

/** NQNs that volumes are served under end in their UUID (`names.ts`). */
const VOLUME_NQN = /:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/i;

/** The volume that is served under an NQN; null when it is none of ours. */
export function volumeOfNqn(nqn: string): string | null {
  const uuid = VOLUME_NQN.exec(nqn)?.[1];
  return uuid !== undefined && nqnOf(uuid) === nqn ? uuid : null;
}

function asError(error: unknown): TrilithError {
  if (error instanceof TrilithError) return error;
  return new TrilithError("Internal", error instanceof Error ? error.message : String(error));
}

export class Agent implements HostAgent {
  readonly #options: AgentOptions;
  readonly #book: PathBook;
  readonly #attempts = new Map<string, FailedAttempt>();
  readonly #removing = new Set<string>();
  /** Volumes that calls of `connect` wait for, with what is called after each pass. */
  readonly #waiting = new Map<string, Set<(view: KernelView) => void>>();
  #surplusSinceMs: ReadonlyMap<string, number> = new Map();
  #problems = new Map<string, TrilithError>();
  #timer: Timer | null = null;
  #stopWatching: (() => void) | null = null;
  #stopWatchingState: (() => void) | null = null;
  #endKeeping: (() => void) | null = null;
  #keeperTimer: Timer | null = null;
  #isKeepingPaths = false;
  #closed = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#book = new PathBook(options.source, () => this.#wake(0));
  }

  // ------------------------------------------------------------------------------ what users call

  async connect(request: ConnectRequest, signal?: AbortSignal): Promise<ConnectedVolume> {
    const { kernel, stateFile } = this.#options;
    const { volumeUuid, nqn, hostNqn, options } = request;
    await kernel.prepare();
    const paths = request.paths.map(({ address, port }) => ({ address, port }));
    const wanted: WantedVolume = { volumeUuid, nqn, hostNqn, options: { ...options }, paths };
    const before = new Set(controllersOf(kernel.view(), nqn).map(({ name }) => name));
    let wasWanted = false;
    await changeState(stateFile, (volumes) => {
      wasWanted = volumes.some((one) => one.volumeUuid === volumeUuid);
      return [...volumes.filter((one) => one.volumeUuid !== volumeUuid), wanted];
    });
    this.#book.expect(volumeUuid, paths);
    for (const path of paths) this.#attempts.delete(attemptKey(volumeUuid, path));
    try {
      return await this.#untilServed(wanted, signal);
    } catch (error) {
      if (!wasWanted) await this.#forget(wanted, before);
      throw error;
    }
  }

  async disconnect(volumeUuid: string, options: { readonly force?: boolean } = {}): Promise<void> {
    const { kernel, stateFile } = this.#options;
    const known = readState(stateFile).volumes.find((one) => one.volumeUuid === volumeUuid);
    const nqn = known?.nqn ?? nqnOf(volumeUuid);
    const disk = diskOf(kernel.view(), nqn, volumeUuid);
    const users = disk === undefined || options.force === true ? [] : await kernel.users(disk.name);
    if (users.length > 0) {
      throw new TrilithError(
        "FailedPrecondition",
        `/dev/${disk!.name} of volume ${volumeUuid} is in use: ${users.join("; ")}`,
        "unmount it and end what uses it, then again",
      );
    }
    if (known !== undefined) {
      await changeState(stateFile, (all) => all.filter((one) => one.volumeUuid !== volumeUuid));
    }
    this.#book.drop(volumeUuid);
    await this.#removeAll(nqn, new Set());
  }

  /**
   * Ends the connections of the state file that nothing uses, for the shutdown of the machine: targets need
   * not find out by themselves. They stay wanted. Returns those that are in use, and why, by volume.
   */
  async release(): Promise<ReadonlyMap<string, readonly string[]>> {
    const { kernel, stateFile } = this.#options;
    const kept = new Map<string, readonly string[]>();
    const work = readState(stateFile).volumes.map(async ({ nqn, volumeUuid }) => {
      const disk = diskOf(kernel.view(), nqn, volumeUuid);
      const users = disk === undefined ? [] : await kernel.users(disk.name);
      if (users.length > 0) kept.set(volumeUuid, users);
      else await this.#removeAll(nqn, new Set());
    });
    const failed = (await Promise.allSettled(work)).find(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
    return kept;
  }

  async list(): Promise<readonly ConnectedVolume[]> {
    const view = this.#options.kernel.view();
    const wanted = readState(this.#options.stateFile).volumes;
    const nqns = new Map(wanted.map((one) => [one.nqn, one.volumeUuid]));
    for (const { nqn } of view.controllers) {
      const volumeUuid = nqns.get(nqn) ?? volumeOfNqn(nqn);
      if (volumeUuid !== null) nqns.set(nqn, volumeUuid);
    }
    return [...nqns].map(([nqn, volumeUuid]) => this.#connected(view, nqn, volumeUuid));
  }

  async rescan(volumeUuid: string): Promise<number> {
    const { kernel } = this.#options;
    const nqn = this.#nqnOf(volumeUuid);
    const before = this.#sizeOf(nqn, volumeUuid);
    const live = controllersOf(kernel.view(), nqn).filter(({ state }) => state === "live");
    await Promise.all(live.map(({ name }) => kernel.rescan(name)));
    const untilMs = performance.now() + RESCAN_WAIT_MS;
    let now = this.#sizeOf(nqn, volumeUuid);
    // The kernel looks in its own time, and says nothing when all is as it was.
    while (now === before && performance.now() < untilMs) {
      await Bun.sleep(WAIT_POLL_MS);
      now = this.#sizeOf(nqn, volumeUuid);
    }
    return now;
  }

  problems(): ReadonlyMap<string, TrilithError> {
    return this.#problems;
  }

  /** Keeps all connections of the state file, as soon as no other process does, until `close`. */
  keep(): void {
    if (this.#closed || this.#endKeeping !== null) return;
    this.#endKeeping = takeKeeping(this.#options.stateFile);
    if (this.#endKeeping === null) {
      this.#keeperTimer = setTimeout(() => this.keep(), KEEPER_RETRY_MS);
      return;
    }
    this.#options.log("info", "keeps the host's connections", { file: this.#options.stateFile });
    this.#watch();
    this.#watchState();
    this.#book.follow();
    this.#wake(0);
  }

  get isKeeper(): boolean {
    return this.#endKeeping !== null;
  }

  /** Ends the agent; connections stay as they are. */
  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#keeperTimer !== null) clearTimeout(this.#keeperTimer);
    this.#stopWatching?.();
    this.#stopWatchingState?.();
    this.#book.close();
    this.#endKeeping?.();
    this.#endKeeping = null;
  }

  // ------------------------------------------------------------------------------------- a pass

  #watch(): void {
    if (this.#closed) return;
    try {
      const watch = this.#options.kernel.watch(() => this.#wake(0));
      this.#stopWatching = watch.stop;
      void watch.ended.then(() => {
        if (this.#closed) return;
        this.#wake(0);
        // Not at once: one that ends as soon as it begins is not to keep the agent busy.
        setTimeout(() => this.#watch(), POLL_MS);
      });
    } catch (error) {
      this.#options.log("warn", "the kernel's events cannot be had: it is asked every second", {
        error: asError(error),
      });
    }
  }

  /** Hears of what other processes want. */
  #watchState(): void {
    const { stateFile } = this.#options;
    try {
      // The folder, as the file is replaced whole. Others change files there all the time.
      const watch = watchFolder(dirname(stateFile), (_event, name) => {
        if (name === basename(stateFile)) this.#wake(0);
      });
      this.#stopWatchingState = () => watch.close();
    } catch (error) {
      this.#options.log("warn", "changes of the state file are seen late", {
        error: asError(error),
      });
    }
  }

  /** Has a pass made after so many milliseconds, or earlier. */
  #wake(afterMs: number): void {
    if (this.#closed) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#pass(), afterMs);
  }

  #pass(): void {
    this.#timer = null;
    if (this.#closed) return;
    const { kernel, stateFile, log, onPass } = this.#options;
    let nextMs = this.#waiting.size > 0 ? WAIT_POLL_MS : POLL_MS;
    try {
      const all = readState(stateFile).volumes;
      // Nothing is to be kept, and whoever changes that is heard of (`#watch`).
      if (all.length === 0 && this.#problems.size === 0) nextMs = IDLE_POLL_MS;
      const mine = this.isKeeper ? all : all.filter((one) => this.#waiting.has(one.volumeUuid));
      const view = kernel.view();
      const volumes = mine.map((wanted) => this.#book.desired(wanted));
      this.#forgetSuccesses(volumes, view);
      const nowMs = performance.now();
      const plan = planHost({
        nowMs,
        volumes,
        view,
        attempts: this.#attempts,
        surplusSinceMs: this.#surplusSinceMs,
      });
      this.#surplusSinceMs = plan.surplusSinceMs;
      for (const { wanted, path } of plan.connects) this.#begin(wanted, path);
      for (const { controller, reason } of plan.removals) this.#end(controller, reason);
      this.#judge(volumes, view);
      if (this.isKeeper) this.#keepPaths(volumes);
      this.#book.refresh(volumes, this.#problems);
      if (plan.wakeAtMs !== null) nextMs = Math.min(nextMs, Math.max(0, plan.wakeAtMs - nowMs));
      onPass?.(volumes, view);
      for (const waiters of this.#waiting.values()) for (const tell of waiters) tell(view);
    } catch (error) {
      log("error", "the host's connections cannot be looked after", { error: asError(error) });
    }
    if (this.isKeeper || this.#waiting.size > 0) this.#wake(nextMs);
  }

  #forgetSuccesses(volumes: readonly DesiredVolume[], view: KernelView): void {
    for (const { wanted } of volumes) {
      for (const one of controllersOf(view, wanted.nqn)) {
        const key = attemptKey(wanted.volumeUuid, one);
        const attempt = this.#attempts.get(key);
        if (attempt?.isRunning === false && one.state === "live") this.#attempts.delete(key);
      }
    }
  }

  #begin(wanted: WantedVolume, path: VolumePath): void {
    const running = [...this.#attempts.values()].filter(({ isRunning }) => isRunning).length;
    if (running >= CONNECTS_AT_ONCE) return;
    const key = attemptKey(wanted.volumeUuid, path);
    const failures = this.#attempts.get(key)?.failures ?? 0;
    this.#attempts.set(key, { failures, isRunning: true, nextMs: 0, error: null });
    void this.#attempt(wanted, path, key, failures);
  }

  async #attempt(
    wanted: WantedVolume,
    path: VolumePath,
    key: string,
    failures: number,
  ): Promise<void> {
    const { kernel, log, stateFile } = this.#options;
    const { volumeUuid, nqn, hostNqn, options } = wanted;
    const about = { volume: volumeUuid, address: path.address, port: path.port };
    try {
      await kernel.prepare();
      const hostId = kernel.hostId(hostNqn);
      const controller = await kernel.connect({ ...path, nqn, hostNqn, hostId, options });
      log("info", "path connected", { ...about, controller });
      this.#attempts.delete(key);
      const isWanted = readState(stateFile).volumes.some((one) => one.volumeUuid === volumeUuid);
      // It was disconnected while this went on.
      if (!isWanted) await kernel.remove(controller);
    } catch (thrown) {
      const error = asError(thrown);
      if (error.code === "AlreadyExists") {
        this.#attempts.delete(key);
      } else {
        const pauseMs = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** failures);
        const nextMs = performance.now() + pauseMs;
        this.#attempts.set(key, { failures: failures + 1, isRunning: false, nextMs, error });
        const level = failures === 0 ? "warn" : "debug";
        log(level, "a path cannot be connected", { ...about, error, failures: failures + 1 });
      }
    }
    this.#wake(0);
  }

  #end(controller: string, reason: string): void {
    if (this.#removing.has(controller)) return;
    this.#removing.add(controller);
    this.#options.log("info", "path removed", { controller, reason });
    void this.#options.kernel
      .remove(controller)
      .catch((error) => {
        this.#options.log("warn", "a path cannot be removed", {
          controller,
          error: asError(error),
        });
      })
      .finally(() => {
        this.#removing.delete(controller);
        this.#wake(0);
      });
  }

  /** Keeps what the cluster has said of paths, for a start at which it cannot be asked. */
  #keepPaths(volumes: readonly DesiredVolume[]): void {
    const learned = new Map<string, WantedVolume["paths"]>();
    for (const { wanted, paths, isConfirmed } of volumes) {
      const now = paths.map(({ address, port }) => ({ address, port }));
      const isNew = isConfirmed && JSON.stringify(now) !== JSON.stringify(wanted.paths);
      if (isNew) learned.set(wanted.volumeUuid, now);
    }
    if (learned.size === 0 || this.#isKeepingPaths) return;
    this.#isKeepingPaths = true;
    const change = (all: readonly WantedVolume[]): readonly WantedVolume[] =>
      all.map((one) => ({ ...one, paths: learned.get(one.volumeUuid) ?? one.paths }));
    void changeState(this.#options.stateFile, change)
      .catch((error) => {
        this.#options.log("warn", "paths cannot be kept", { error: asError(error) });
      })
      .finally(() => {
        this.#isKeepingPaths = false;
      });
  }

  /** Takes down what is wrong, and says what is new of it. */
  #judge(volumes: readonly DesiredVolume[], view: KernelView): void {
    const problems = new Map<string, TrilithError>();
    for (const volume of volumes) {
      const { volumeUuid } = volume.wanted;
      const trouble = troubleOf(volume, view);
      const former = this.#problems.get(volumeUuid);
      if (trouble === null) {
        if (former !== undefined)
          this.#options.log("info", "all paths live", { volume: volumeUuid });
        continue;
      }
      if (former?.message !== trouble) {
        this.#options.log("warn", "not all paths live", { volume: volumeUuid, trouble });
      }
      const remedy = "see `trilith host list` here and `trilith get volumes` in the cluster";
      problems.set(volumeUuid, new TrilithError("Unavailable", trouble, remedy));
    }
    this.#problems = problems;
  }

  // ---------------------------------------------------------------------------- waiting, ending

  async #untilServed(wanted: WantedVolume, signal?: AbortSignal): Promise<ConnectedVolume> {
    const { volumeUuid } = wanted;
    const { promise, resolve, reject } = Promise.withResolvers<ConnectedVolume>();
    const untilMs = performance.now() + CONNECT_PATIENCE_MS;
    const look = (view: KernelView): void => {
      try {
        const served = this.#served(view, wanted);
        if (served !== null) resolve(served);
        else this.#checkHope(view, wanted, performance.now() > untilMs);
      } catch (error) {
        reject(error);
      }
    };
    const aborted = (): void => {
      reject(new TrilithError("Aborted", `connecting volume ${volumeUuid} was given up`));
    };
    if (signal?.aborted === true) aborted();
    signal?.addEventListener("abort", aborted, { once: true });
    const waiters = this.#waiting.get(volumeUuid) ?? new Set();
    this.#waiting.set(volumeUuid, waiters.add(look));
    this.#wake(0);
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", aborted);
      waiters.delete(look);
      if (waiters.size === 0) this.#waiting.delete(volumeUuid);
    }
  }

  /** The volume once it can be used. `FailedPrecondition` when what is served is not the volume. */
  #served(view: KernelView, { nqn, volumeUuid }: WantedVolume): ConnectedVolume | null {
    const foreign = view.disks.find((disk) => disk.nqn === nqn && disk.uuid !== volumeUuid);
    if (foreign !== undefined) {
      throw new TrilithError(
        "FailedPrecondition",
        `${nqn} serves a namespace with UUID ${foreign.uuid || "(none)"}, not volume ${volumeUuid}`,
        "see whether the addresses belong to this cluster",
      );
    }
    if (!controllersOf(view, nqn).some((one) => isServing(one, volumeUuid))) return null;
    const connected = this.#connected(view, nqn, volumeUuid);
    return connected.device === null ? null : connected;
  }

  /** Throws when there is no use in waiting any longer. */
  #checkHope(view: KernelView, wanted: WantedVolume, isLate: boolean): void {
    const { nqn, volumeUuid } = wanted;
    const { paths } = this.#book.desired(wanted);
    const attempts = paths.map((path) => this.#attempts.get(attemptKey(volumeUuid, path)));
    const own = controllersOf(view, nqn);
    const isVain =
      own.length === 0 &&
      attempts.length > 0 &&
      attempts.every((one) => one?.isRunning === false && one.failures >= CONNECT_ATTEMPTS);
    if (!isVain && !isLate) return;
    const errors = attempts.flatMap((one) => (one?.error ? [one.error] : []));
    const states = own.map((one) => `${one.address} is ${one.state}`);
    const said = [...new Set([...errors.map(({ message }) => message), ...states])].join("; ");
    throw new TrilithError(
      errors.find(({ code }) => code !== "Unavailable")?.code ?? "Unavailable",
      `volume ${volumeUuid} cannot be connected: ${said || "none of its paths serves it"}`,
      errors.find(({ remedy }) => remedy !== "")?.remedy ?? "see `trilith get volumes`",
    );
  }

  /** Takes back what a connect in vain has left. */
  async #forget(wanted: WantedVolume, before: ReadonlySet<string>): Promise<void> {
    const { volumeUuid, nqn } = wanted;
    await changeState(this.#options.stateFile, (volumes) =>
      volumes.filter((one) => one.volumeUuid !== volumeUuid),
    );
    this.#book.drop(volumeUuid);
    await this.#removeAll(nqn, before);
  }

  /** Ends the controllers of a subsystem, except some. `Timeout` when the kernel does not. */
  async #removeAll(nqn: string, except: ReadonlySet<string>): Promise<void> {
    const { kernel } = this.#options;
    const untilMs = performance.now() + DELETE_PATIENCE_MS;
    for (;;) {
      const left = controllersOf(kernel.view(), nqn).filter(({ name }) => !except.has(name));
      if (left.length === 0) return;
      if (performance.now() > untilMs) {
        throw new TrilithError(
          "Timeout",
          `the kernel does not end ${left.map(({ name }) => name).join(", ")}`,
          "see `dmesg | tail`",
        );
      }
      await Promise.all(
        left.filter((one) => !isEnding(one)).map(({ name }) => kernel.remove(name)),
      );
      await Bun.sleep(WAIT_POLL_MS);
    }
  }

  // ------------------------------------------------------------------------------------ looking

  #nqnOf(volumeUuid: string): string {
    const wanted = readState(this.#options.stateFile).volumes;
    return wanted.find((one) => one.volumeUuid === volumeUuid)?.nqn ?? nqnOf(volumeUuid);
  }

  #sizeOf(nqn: string, volumeUuid: string): number {
    const disk = diskOf(this.#options.kernel.view(), nqn, volumeUuid);
    if (disk !== undefined) return disk.sizeBytes;
    throw new TrilithError(
      "NotFound",
      `volume ${volumeUuid} is not connected to this host`,
      `trilith host connect ${volumeUuid}`,
    );
  }

  #connected(view: KernelView, nqn: string, volumeUuid: string): ConnectedVolume {
    const disk = diskOf(view, nqn, volumeUuid);
    const device = disk === undefined ? null : this.#options.kernel.deviceFile(disk.name);
    return {
      volumeUuid,
      nqn,
      paths: controllersOf(view, nqn).map(pathOf),
      device,
      sizeBytes: device === null || disk === undefined ? null : disk.sizeBytes,
    };
  }
}
