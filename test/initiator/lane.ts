/** The host's end of a lane: a Unix socket that QEMU connects to a port of the guest. */
import type { Socket, UnixSocketListener } from "bun";
import type { ScriptResult } from "./vm.ts";

/** Who hears of a script's output while it runs. */
export interface ScriptHandlers {
  /** A line, without its end. */
  readonly onLine?: (line: string) => void;
  /** The script called `mark` and waits; what this returns is sent as the answer. */
  readonly onMark?: (words: string) => Promise<string | undefined> | string | undefined;
}

interface Job {
  readonly handlers: ScriptHandlers;
  /** What `onMark` threw; the script is told to give up. */
  error: Error | null;
  readonly resolve: (result: ScriptResult) => void;
  readonly reject: (error: Error) => void;
}

/** Begins the line that tells a script's status. */
const END_MARK = "\x1e";
const MARK = "MARK ";
/** Answer that makes the guest's `mark` fail. */
const ANSWER_FAILED = "\x18";

export class Lane {
  readonly path: string;
  /** What the present script has written. */
  output = "";
  readonly #listener: UnixSocketListener<undefined>;
  readonly #decoder = new TextDecoder();
  #socket: Socket<undefined> | null = null;
  /** Bytes to be sent when the socket takes them. */
  #unsent = Buffer.alloc(0);
  #partialLine = "";
  #job: Job | null = null;

  constructor(path: string) {
    this.path = path;
    this.#listener = Bun.listen<undefined>({
      unix: path,
      socket: {
        open: (socket) => {
          this.#socket = socket;
          this.#flush();
        },
        data: (_socket, bytes) => this.#received(this.#decoder.decode(bytes, { stream: true })),
        drain: () => this.#flush(),
        close: () => {
          this.#socket = null;
        },
      },
    });
  }

  /** Sends a script and resolves when it has ended. One at a time. */
  run(script: string, handlers: ScriptHandlers): Promise<ScriptResult> {
    if (this.#job !== null) throw new Error("a lane runs one script at a time");
    this.output = "";
    return new Promise((resolve, reject) => {
      this.#job = { handlers, error: null, resolve, reject };
      const bytes = Buffer.from(script);
      this.#send(Buffer.concat([Buffer.from(`${bytes.length}\n`), bytes]));
    });
  }

  /** Rejects the script that runs, if one does. */
  fail(error: Error): void {
    const job = this.#job;
    this.#job = null;
    job?.reject(error);
  }

  close(): void {
    this.#listener.stop(true);
    this.#socket?.end();
  }

  #send(bytes: Buffer): void {
    this.#unsent = Buffer.concat([this.#unsent, bytes]);
    this.#flush();
  }

  #flush(): void {
    if (this.#socket === null || this.#unsent.length === 0) return;
    const written = this.#socket.write(this.#unsent);
    if (written > 0) this.#unsent = this.#unsent.subarray(written);
  }

  #received(text: string): void {
    const lines = (this.#partialLine + text).split("\n");
    this.#partialLine = lines.pop()!;
    for (const line of lines) this.#line(line);
  }

  #line(line: string): void {
    const job = this.#job;
    if (job === null) return;
    const end = line.indexOf(END_MARK);
    if (end === -1) {
      this.output += `${line}\n`;
      job.handlers.onLine?.(line);
      if (line.startsWith(MARK)) void this.#answer(job, line.slice(MARK.length));
      return;
    }
    // The script's last line may lack its end.
    if (end > 0) {
      this.output += line.slice(0, end);
      job.handlers.onLine?.(line.slice(0, end));
    }
    this.#job = null;
    if (job.error !== null) job.reject(job.error);
    else job.resolve({ status: Number(line.slice(end + 1)), output: this.output });
  }

  async #answer(job: Job, words: string): Promise<void> {
    let answer: string;
    try {
      answer = (await job.handlers.onMark?.(words)) ?? "";
    } catch (error) {
      job.error = error instanceof Error ? error : new Error(String(error));
      answer = ANSWER_FAILED;
    }
    if (this.#job === job) this.#send(Buffer.from(`${answer}\n`));
  }
}
