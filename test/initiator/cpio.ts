/**
 * Writes archives in the "newc" cpio format, which the Linux kernel unpacks as its initial file
 * system (Documentation/driver-api/early-userspace/buffer-format.rst). Pure.
 *
 * An entry is a header of 6 magic and 13 x 8 hexadecimal characters, the name ending in a zero
 * byte, padding to 4 bytes, the content, padding to 4 bytes. Several archives may follow each
 * other; what comes later replaces what came before.
 */

const MAGIC = "070701";
const ALIGNMENT = 4;
const TYPE_DIRECTORY = 0o040000;
const TYPE_FILE = 0o100000;
const TYPE_SYMLINK = 0o120000;
const TRAILER = "TRAILER!!!";

export class CpioArchive {
  readonly #parts: Uint8Array[] = [];
  readonly #directories = new Set<string>();
  #bytes = 0;
  #inode = 1;

  /** Adds a directory and those above it, each once. Paths are relative to the root. */
  directory(path: string): void {
    if (path === "" || path === "." || this.#directories.has(path)) return;
    this.directory(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    this.#directories.add(path);
    this.#entry(path, TYPE_DIRECTORY | 0o755, new Uint8Array(0));
  }

  /** Adds a file and the directories it lies in. */
  file(path: string, content: Uint8Array | string, mode = 0o644): void {
    this.#parentOf(path);
    this.#entry(path, TYPE_FILE | mode, typeof content === "string" ? utf8(content) : content);
  }

  /** Adds a symbolic link to `target` and the directories it lies in. */
  symlink(path: string, target: string): void {
    this.#parentOf(path);
    this.#entry(path, TYPE_SYMLINK | 0o777, utf8(target));
  }

  /** The archive with its trailer, in pieces to be written one after another. */
  finish(): readonly Uint8Array[] {
    this.#entry(TRAILER, 0, new Uint8Array(0));
    return this.#parts;
  }

  #parentOf(path: string): void {
    this.directory(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
  }

  #entry(path: string, mode: number, content: Uint8Array): void {
    const name = utf8(path);
    // Inode, mode, user, group, links, time, size, device (2), special device (2), name size, check.
    const inode = path === TRAILER ? 0 : this.#inode++;
    const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0];
    this.#push(utf8(MAGIC + fields.map((n) => n.toString(16).padStart(8, "0")).join("")));
    this.#push(name);
    this.#push(new Uint8Array(1));
    this.#pad();
    this.#push(content);
    this.#pad();
  }

  #push(part: Uint8Array): void {
    this.#parts.push(part);
    this.#bytes += part.length;
  }

  #pad(): void {
    const over = this.#bytes % ALIGNMENT;
    if (over !== 0) this.#push(new Uint8Array(ALIGNMENT - over));
  }
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
