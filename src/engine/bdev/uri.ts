/**
 * Device URIs: what an operator, the API and a nexus name devices with. Pure.
 *
 * | URI                                                             | device                      |
 * |-----------------------------------------------------------------|-----------------------------|
 * | `malloc:///name?size_mb=|num_blocks=&blk_size=512|4096&uuid=`   | memory                      |
 * | `null:///name?size_mb=|num_blocks=&blk_size=&uuid=`             | reads zeroes, drops writes  |
 * | `uring:///path?blk_size=&uuid=`, `aio:///path?...`, `/path`     | file or block device        |
 * | `nvmf+tcp://host:port/nqn?uuid=&hostnqn=&hdgst=&ddgst=&queues=` | NVMe/TCP; also `nvmf://`    |
 * | `bdev:///name`, `loopback:///name`                              | a device already open       |
 *
 * Unknown parameters and malformed values are errors that name the parameter.
 */
import { TrilithError } from "../../errors.ts";

export interface MemoryUri {
  readonly driver: "malloc" | "null";
  readonly name: string;
  readonly blockSize: 512 | 4096;
  readonly blockCount: number;
  readonly uuid: string | undefined;
}

export interface FileUri {
  readonly driver: "uring" | "aio";
  readonly path: string;
  /** Undefined: the device's own, 512 for a file. */
  readonly blockSize: 512 | 4096 | undefined;
  readonly uuid: string | undefined;
}

export interface NvmfUri {
  readonly driver: "nvmf";
  readonly address: string;
  readonly port: number;
  readonly nqn: string;
  /** When given, the namespace must carry it. */
  readonly uuid: string | undefined;
  readonly hostNqn: string | undefined;
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** I/O queues wanted; undefined: the initiator's default. */
  readonly queues: number | undefined;
}

export interface LocalUri {
  readonly driver: "bdev";
  readonly name: string;
}

export type BdevUri = MemoryUri | FileUri | NvmfUri | LocalUri;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const BLOCKS_MAX = 2 ** 42;
const NVMF_PORT_DEFAULT = 8420;

function invalid(uri: string, what: string, remedy = ""): TrilithError {
  return new TrilithError("InvalidArgument", `device URI "${uri}": ${what}`, remedy);
}

/** Query parameters, each used at most once; `finish` complains of those nobody asked for. */
class Parameters {
  readonly #uri: string;
  readonly #values = new Map<string, string>();

  constructor(uri: string, search: URLSearchParams) {
    this.#uri = uri;
    for (const [name, value] of search) {
      if (this.#values.has(name)) throw invalid(uri, `parameter "${name}" is given twice`);
      this.#values.set(name, value);
    }
  }

  text(name: string): string | undefined {
    const value = this.#values.get(name);
    this.#values.delete(name);
    return value;
  }

  count(name: string, max: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : 0;
    if (value < 1 || value > max) {
      throw invalid(this.#uri, `parameter "${name}" is "${text}", not a number from 1 to ${max}`);
    }
    return value;
  }

  flag(name: string): boolean {
    const text = this.text(name);
    if (text === undefined || text === "false" || text === "0") return false;
    if (text === "" || text === "true" || text === "1") return true;
    throw invalid(this.#uri, `parameter "${name}" is "${text}", not true or false`);
  }

  uuid(): string | undefined {
    const text = this.text("uuid");
    if (text === undefined) return undefined;
    const lower = text.toLowerCase();
    if (!UUID.test(lower)) throw invalid(this.#uri, `parameter "uuid" is "${text}", not a UUID`);
    return lower;
  }

  blockSize(): 512 | 4096 | undefined {
    const text = this.text("blk_size");
    if (text === undefined) return undefined;
    if (text === "512") return 512;
    if (text === "4096") return 4096;
    throw invalid(this.#uri, `parameter "blk_size" is "${text}", not 512 or 4096`);
  }

  finish(known: string): void {
    const [unknown] = this.#values.keys();
    if (unknown !== undefined) {
      throw invalid(this.#uri, `unknown parameter "${unknown}"`, `known parameters: ${known}`);
    }
  }
}

/** True when `text` is a UUID in lower case. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

function pathOf(uri: string, url: URL): string {
  if (url.host !== "") {
    throw invalid(uri, `has a host ("${url.host}")`, "write three slashes, e.g. uring:///dev/sdb");
  }
  let path: string;
  try {
    path = decodeURIComponent(url.pathname);
  } catch {
    throw invalid(uri, "its path is not valid percent-encoding");
  }
  if (path.includes("\0")) throw invalid(uri, "its path contains a zero byte");
  return path;
}

function nameOf(uri: string, url: URL): string {
  const name = pathOf(uri, url).slice(1);
  if (!/^[A-Za-z0-9._:-]{1,128}$/.test(name)) {
    throw invalid(uri, `the name "${name}" is not 1 to 128 letters, digits, or any of . _ : -`);
  }
  return name;
}

function parseMemory(uri: string, url: URL, driver: "malloc" | "null"): MemoryUri {
  const p = new Parameters(uri, url.searchParams);
  const name = nameOf(uri, url);
  const blockSize = p.blockSize() ?? 512;
  const sizeMb = p.count("size_mb", 1 << 26);
  const blocks = p.count("num_blocks", BLOCKS_MAX);
  const uuid = p.uuid();
  p.finish("size_mb, num_blocks, blk_size, uuid");
  if ((sizeMb === undefined) === (blocks === undefined)) {
    throw invalid(uri, 'exactly one of the parameters "size_mb" and "num_blocks" is needed');
  }
  const blockCount = blocks ?? (sizeMb! * (1 << 20)) / blockSize;
  return { driver, name, blockSize, blockCount, uuid };
}

function parseFile(uri: string, url: URL, driver: "uring" | "aio"): FileUri {
  const p = new Parameters(uri, url.searchParams);
  const path = pathOf(uri, url);
  if (path.length < 2) throw invalid(uri, "names no path", "e.g. uring:///dev/sdb");
  const blockSize = p.blockSize();
  const uuid = p.uuid();
  p.finish("blk_size, uuid");
  return { driver, path, blockSize, uuid };
}

function parseNvmf(uri: string, url: URL): NvmfUri {
  const p = new Parameters(uri, url.searchParams);
  const address = url.hostname.replace(/^\[|\]$/g, "");
  if (address === "") throw invalid(uri, "names no host", "e.g. nvmf+tcp://10.0.0.1:8420/nqn...");
  const port = url.port === "" ? NVMF_PORT_DEFAULT : Number(url.port);
  let nqn: string;
  try {
    nqn = decodeURIComponent(url.pathname.slice(1));
  } catch {
    throw invalid(uri, "its NQN is not valid percent-encoding");
  }
  if (nqn === "" || Buffer.byteLength(nqn) > 223) {
    throw invalid(uri, "its path is not an NQN of 1 to 223 bytes");
  }
  const parsed: NvmfUri = {
    driver: "nvmf",
    address,
    port,
    nqn,
    uuid: p.uuid(),
    hostNqn: p.text("hostnqn"),
    headerDigest: p.flag("hdgst"),
    dataDigest: p.flag("ddgst"),
    queues: p.count("queues", 128),
  };
  p.finish("uuid, hostnqn, hdgst, ddgst, queues");
  return parsed;
}

/** Parses a device URI or plain path; throws `InvalidArgument` that names what is wrong. */
export function parseBdevUri(uri: string): BdevUri {
  if (uri.startsWith("/")) {
    return { driver: "uring", path: uri, blockSize: undefined, uuid: undefined };
  }
  let url: URL;
  try {
    url = new URL(uri);
  } catch {
    throw invalid(uri, "is neither an absolute path nor a URI", "e.g. /dev/sdb");
  }
  if (url.hash !== "") throw invalid(uri, `has a fragment ("${url.hash}")`);
  switch (url.protocol) {
    case "malloc:":
      return parseMemory(uri, url, "malloc");
    case "null:":
      return parseMemory(uri, url, "null");
    case "uring:":
      return parseFile(uri, url, "uring");
    case "aio:":
      return parseFile(uri, url, "aio");
    case "nvmf:":
    case "nvmf+tcp:":
      return parseNvmf(uri, url);
    case "bdev:":
    case "loopback:": {
      const p = new Parameters(uri, url.searchParams);
      p.uuid(); // Accepted and redundant: the name says it all.
      p.finish("uuid");
      return { driver: "bdev", name: nameOf(uri, url) };
    }
    default:
      throw invalid(
        uri,
        `unknown scheme "${url.protocol.slice(0, -1)}"`,
        "known schemes: malloc, null, uring, aio, nvmf, nvmf+tcp, bdev, loopback, or a path",
      );
  }
}
