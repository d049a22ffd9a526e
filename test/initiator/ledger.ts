/**
 * Ledgers: what an application in the guest was told to be durable, kept outside of it. Record after record
 * is written and synchronised, and told here only then; at the end every one that was told has to be there.
 */
import { expect } from "bun:test";
import { randomBytes } from "node:crypto";
import { waitUntil } from "../support/cluster.ts";
import { FAULTS_TIMEOUT_MS } from "./limits.ts";
import { type Guest, quote } from "./vm.ts";

const RECORD_BYTES = 512;

export class Ledger {
  readonly #guest: Guest;
  /** Files that records go to in turn, one per file system. */
  readonly #files: readonly string[];
  readonly #nonce = randomBytes(8).toString("hex");
  /** Records told to be durable, by file. */
  readonly #told: number[];
  readonly #writing: Promise<string>;

  /** Begins to write to a file `ledger` in each of the folders. */
  constructor(guest: Guest, folders: readonly string[]) {
    this.#guest = guest;
    this.#files = folders.map((folder) => `${folder}/ledger`);
    this.#told = folders.map(() => 0);
    this.#writing = guest.ok(this.#script(), {
      timeoutMs: FAULTS_TIMEOUT_MS,
      onMark: (file) => {
        this.#told[Number(file)]!++;
        return undefined;
      },
    });
    // Looked at by `end`; until then it is no rejection that nobody handles.
    this.#writing.catch(() => {});
  }

  #script(): string {
    const files = this.#files.map(quote).join(" ");
    return `
      rm -f /tmp/stop-ledger
      files=(${files})
      seek=0
      until [ -e /tmp/stop-ledger ]; do
        for i in \${!files[@]}; do
          printf '%-${RECORD_BYTES - 1}s\\n' "$seek ${this.#nonce}" |
            dd of=\${files[i]} bs=${RECORD_BYTES} seek=$seek count=1 iflag=fullblock \
              conv=notrunc,fsync 2>/tmp/dd.ledger || { cat /tmp/dd.ledger >&2; exit 1; }
          mark $i
        done
        seek=$((seek + 1))
      done
    `;
  }

  /** Records told to be durable so far. */
  get told(): number {
    return this.#told.reduce((sum, count) => sum + count, 0);
  }

  /** Waits until `count` more records are durable. Fails when the writing has ended meanwhile. */
  async progresses(count: number): Promise<void> {
    const until = this.told + count;
    let ended = false;
    void this.#writing
      .finally(() => {
        ended = true;
      })
      .catch(() => {});
    await waitUntil(
      `${count} records more made durable`,
      () => this.told,
      (told) => ended || told >= until,
    );
    if (ended) await this.#writing;
  }

  /** Ends the writing. */
  async stop(): Promise<void> {
    await this.#guest.ok("touch /tmp/stop-ledger");
    await this.#writing;
  }

  /** Fails unless every record that was told is in its file; to be called with nothing cached. */
  async check(): Promise<void> {
    for (const [index, file] of this.#files.entries()) {
      const count = this.#told[index]!;
      expect(count).toBeGreaterThan(0);
      const found = await this.#guest.ok(`tr -s ' ' <${quote(file)} | sed 's/ $//'`);
      const wanted = Array.from({ length: count }, (_, n) => `${n} ${this.#nonce}`);
      expect(found.split("\n").slice(0, count)).toEqual(wanted);
    }
  }
}
