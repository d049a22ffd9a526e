/** Starts a thread that runs a reactor, and talks to it: the main thread's side of `doorbell.ts`. */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { closeFd, eventFd, libraryFds, wakeEventFd } from "../../../ffi/index.ts";
import { TrilithError } from "../../errors.ts";
import { REACTOR_START_MS } from "./limits.ts";
import { type Envelope, Mailbox, type Serves } from "./mailbox.ts";

/** What every such thread finds in its `workerData`, beside what is its own. */
export interface ThreadInput {
  /** Read by `ffi/library.ts`. */
  readonly libraries: ReturnType<typeof libraryFds>;
  readonly port: MessagePort;
  /** An eventfd: written when messages are on the port. */
  readonly wakeFd: number;
}

/** What a thread tells before anything else. */
export interface ThreadUser {
  ready(input: Record<string, never>): Promise<void>;
}

export interface ReactorThread<Local extends Serves<Local>, Remote extends Serves<Remote>> {
  readonly mailbox: Mailbox<Local, Remote>;
  /** Resolves when the thread has ended. */
  readonly ended: Promise<void>;
  /** Frees what belongs to the thread; it has ended. */
  release(): void;
  /** Ends the thread at once, whatever it does. */
  terminate(): Promise<void>;
}

export interface ThreadOptions<Local> {
  /** Of errors: "reactor 0". */
  readonly name: string;
  /** File of the thread's entry point. */
  readonly url: URL;
  /** Further `workerData`. */
  readonly input: object;
  /** What this side serves. */
  readonly local: Omit<Local, "ready">;
  /** It has died, or ended, after it was ready. */
  readonly onDeath: (error: unknown) => void;
}

/** Starts the thread; resolves when its loop runs, rejects with what it died of before. */
export async function startReactorThread<
  Local extends Serves<Local> & ThreadUser,
  Remote extends Serves<Remote>,
>(options: ThreadOptions<Local>): Promise<ReactorThread<Local, Remote>> {
  const { name, url, onDeath } = options;
  const wakeFd = eventFd();
  const { port1: port, port2 } = new MessageChannel();
  const input: ThreadInput = { libraries: libraryFds(), port: port2, wakeFd };
  const worker = new Worker(url, {
    workerData: { ...options.input, ...input },
    transferList: [port2],
  });
  const ready = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  let isReady = false;
  const die = (error: unknown): void => {
    if (isReady) onDeath(error);
    else ready.reject(error);
  };
  const becomeReady: ThreadUser = {
    async ready() {
      isReady = true;
      ready.resolve();
    },
  };
  const mailbox = new Mailbox<Local, Remote>({
    post: (envelope) => {
      port.postMessage(envelope);
      wakeEventFd(wakeFd);
    },
    local: { ...options.local, ...becomeReady } as Local,
    onFatal: die,
  });
  port.on("message", (envelope: Envelope) => mailbox.receive(envelope));
  worker.on("error", die);
  worker.on("exit", () => {
    ended.resolve();
    mailbox.close(`${name} has ended`);
    die(new Error("its thread has ended"));
  });
  const timer = setTimeout(() => {
    ready.reject(new TrilithError("Timeout", `${name} did not start in time`));
  }, REACTOR_START_MS);
  try {
    await ready.promise;
  } finally {
    clearTimeout(timer);
  }
  return {
    mailbox,
    ended: ended.promise,
    release() {
      port.close();
      closeFd(wakeFd);
    },
    async terminate() {
      mailbox.close(`${name} was ended`);
      await worker.terminate();
      port.close();
    },
  };
}
