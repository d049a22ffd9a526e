/** NBD exports as Debian's own clients see them: libnbd's tools, QEMU's tools and fio. */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NbdProcess, run, succeed } from "../support/nbd-process.ts";
import { testSeed } from "../support/random.ts";
import { tempFolders } from "../support/temp-folder.ts";

const SIZE_MB = 64;
const SIZE_BYTES = SIZE_MB << 20;
const tempFolder = tempFolders();
let server: NbdProcess | undefined;

afterEach(async () => {
  const ended = server;
  server = undefined;
  await ended?.stop();
});

async function start(exports: Record<string, string>): Promise<NbdProcess> {
  server = await NbdProcess.start(exports);
  return server;
}

const memory = (blockSize = 512) => `malloc:///m?size_mb=${SIZE_MB}&blk_size=${blockSize}`;

/** A file of zeroes to be served. */
function diskFile(folder: string): string {
  const path = join(folder, "disk");
  writeFileSync(path, "");
  truncateSync(path, SIZE_BYTES);
  return path;
}

/** An image with data in it, holes between, and a ragged pattern. */
function imageFile(folder: string): string {
  const path = join(folder, "image");
  const bytes = new Uint8Array(SIZE_BYTES);
  for (let at = 0; at < SIZE_BYTES; at += 3 << 20) {
    for (let i = at; i < Math.min(at + (1 << 20) + 512, SIZE_BYTES); i++) {
      bytes[i] = (i * 31 + (i >>> 11)) & 0xff;
    }
  }
  writeFileSync(path, bytes);
  return path;
}

/** The devices that exports are tested over. */
const devices: [string, (folder: string) => string][] = [
  ["memory with 512-byte blocks", () => memory()],
  ["memory with 4096-byte blocks", () => memory(4096)],
  ["a file", (folder) => `uring://${diskFile(folder)}`],
];

describe("nbdinfo", () => {
  test("lists the exports and what they can do", async () => {
    const nbd = await start({ volume: memory(), fixed: `${memory(4096)}#ro` });
    const list = JSON.parse(await succeed("nbdinfo", "--list", "--json", nbd.uri("")));
    expect(list).toMatchObject({ protocol: "newstyle-fixed", TLS: false, structured: true });
    const byName = Object.fromEntries(
      list.exports.map((e: { "export-name": string }) => [e["export-name"], e]),
    );
    expect(byName.volume).toMatchObject({
      "export-size": SIZE_BYTES,
      contexts: ["base:allocation"],
      is_read_only: false,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 512,
      block_size_preferred: 4096,
      block_size_maximum: 1 << 20,
    });
    expect(byName.fixed).toMatchObject({
      is_read_only: true,
      can_trim: false,
      can_zero: false,
      can_multi_conn: true,
      block_size_minimum: 4096,
    });
  });

  test("answers single questions", async () => {
    const nbd = await start({ volume: memory(), fixed: `${memory()}#ro` });
    expect((await succeed("nbdinfo", "--size", nbd.uri("volume"))).trim()).toBe(`${SIZE_BYTES}`);
    const can = async (what: string, name: string) =>
      (await run("nbdinfo", "--can", what, nbd.uri(name))).code;
    for (const what of ["multi-conn", "flush", "fua", "trim", "zero", "df", "fast-zero"]) {
      expect([what, await can(what, "volume")]).toEqual([what, 0]);
    }
    expect([await can("trim", "fixed"), await can("cache", "volume")]).toEqual([2, 2]);
    expect((await run("nbdinfo", "--is", "readonly", nbd.uri("fixed"))).code).toBe(0);
    const unknown = await run("nbdinfo", nbd.uri("another"));
    expect(unknown.code).not.toBe(0);
    expect(unknown.out).toContain("another");
  });
});

describe.each(devices)("over %s:", (_what, device) => {
  test("qemu-img converts, compares, and reads back", async () => {
    const folder = tempFolder();
    const image = imageFile(folder);
    const nbd = await start({ volume: device(folder) });
    const uri = nbd.uri("volume");
    const raw = ["-f", "raw"];
    await succeed("qemu-img", "convert", ...raw, "-n", "-O", "raw", image, uri);
    await succeed("qemu-img", "compare", ...raw, "-F", "raw", image, uri);
    const info = JSON.parse(await succeed("qemu-img", "info", "--output=json", uri));
    expect(info).toMatchObject({ format: "raw", "virtual-size": SIZE_BYTES });
    const map = JSON.parse(await succeed("qemu-img", "map", "--output=json", uri));
    expect(map).toEqual([expect.objectContaining({ start: 0, length: SIZE_BYTES, data: true })]);
    const back = join(folder, "back");
    await succeed("qemu-img", "convert", ...raw, "-O", "qcow2", uri, back);
    await succeed("qemu-img", "compare", ...raw, "-F", "qcow2", image, back);
  });

  test("nbdcopy copies in and out over several connections", async () => {
    const folder = tempFolder();
    const image = imageFile(folder);
    const back = join(folder, "back");
    const nbd = await start({ volume: device(folder) });
    const many = ["--connections=4", "--requests=64"];
    await succeed("nbdcopy", ...many, "--flush", image, nbd.uri("volume"));
    await succeed("nbdcopy", ...many, "--request-size=1048576", nbd.uri("volume"), back);
    await succeed("cmp", image, back);
  });

  test("nbdcopy copies from one export to another, and tools of others agree", async () => {
    const folder = tempFolder();
    const image = imageFile(folder);
    const nbd = await start({ volume: device(folder), second: memory() });
    await succeed("nbdcopy", image, nbd.uri("second"));
    await succeed("nbdcopy", "--allocated", nbd.uri("second"), nbd.uri("volume"));
    const raw = ["-f", "raw", "-F", "raw"];
    await succeed("qemu-img", "compare", ...raw, image, nbd.uri("volume"));
  });

  test("qemu-io writes, reads, zeroes, discards and flushes", async () => {
    const nbd = await start({ volume: device(tempFolder()) });
    const commands = [
      "write -P 0x5a 0 1M",
      "read -P 0x5a 0 1M",
      "write -f -P 0x77 64k 4k",
      "read -P 0x77 64k 4k",
      "write -z 128k 256k",
      "read -P 0 128k 256k",
      "write -z -u 512k 64k",
      "read -P 0 512k 64k",
      "discard 1M 8M",
      "write -P 0x11 8M 20M",
      "read -P 0x11 8M 20M",
      "aio_write -P 0x22 30M 2M",
      "aio_write -P 0x33 32M 2M",
      "aio_flush",
      "read -P 0x22 30M 2M",
      "read -P 0x33 32M 2M",
      "write -z 1M 48M",
      "read -P 0 1M 48M",
      "read -P 0x5a 0 64k",
      "flush",
    ];
    const args = commands.flatMap((command) => ["-c", command]);
    const out = await succeed("qemu-io", "-f", "raw", ...args, nbd.uri("volume"));
    expect(out).not.toContain("verification failed");
    expect(out).not.toContain("failed");
  });

  test.each([
    ["small blocks at random", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]],
    ["mixed sizes at random", ["--rw=randrw", "--bsrange=4k-256k", "--iodepth=16"]],
    ["large blocks in sequence", ["--rw=write", "--bs=1m", "--iodepth=8"]],
    [
      "four connections",
      [
        "--rw=randwrite",
        "--bs=8k",
        "--iodepth=16",
        "--numjobs=4",
        "--size=16m",
        "--offset_increment=16m",
      ],
    ],
  ])("fio verifies %s", async (_how, options) => {
    const folder = tempFolder();
    const nbd = await start({ volume: device(folder) });
    const report = join(folder, "report");
    await succeed(
      "fio",
      "--name=verified",
      "--ioengine=nbd",
      `--uri=${nbd.uri("volume")}`,
      "--size=32m",
      ...options,
      "--verify=crc32c",
      "--verify_fatal=1",
      "--do_verify=1",
      "--end_fsync=1",
      "--fsync=100",
      `--randseed=${testSeed() & 0x7fffffff}`,
      `--aux-path=${folder}`,
      "--output-format=json",
      `--output=${report}`,
    );
    const { jobs } = JSON.parse(readFileSync(report, "utf8").replace(/^[^{]*/, ""));
    for (const job of jobs) {
      // What was written has been read, and found to be what was written: otherwise fio stops.
      expect(job.error).toBe(0);
      expect(job.read.io_bytes).toBeGreaterThanOrEqual(job.write.io_bytes);
      expect(job.write.io_bytes).toBeGreaterThan(8 << 20);
    }
  });
});

describe("a read-only export", () => {
  test("is read and never written", async () => {
    const folder = tempFolder();
    const path = imageFile(folder);
    const nbd = await start({ volume: `uring://${path}#ro` });
    await succeed("nbdcopy", nbd.uri("volume"), join(folder, "back"));
    await succeed("cmp", path, join(folder, "back"));
    const written = await run("qemu-io", "-f", "raw", "-c", "write 0 4k", nbd.uri("volume"));
    expect(written.code).not.toBe(0);
    expect((await run("nbdcopy", path, nbd.uri("volume"))).code).not.toBe(0);
    const read = ["-c", "read 0 1M"];
    await succeed("qemu-io", "-r", "-f", "raw", ...read, nbd.uri("volume"));
    await succeed("cmp", path, join(folder, "back"));
  });
});

describe("under load", () => {
  const load = (uri: string, folder: string) => [
    "fio",
    "--name=load",
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--rw=randrw",
    "--bs=16k",
    "--iodepth=32",
    "--numjobs=2",
    "--thread",
    "--size=32m",
    "--time_based",
    "--runtime=600",
    `--aux-path=${folder}`,
  ];

  /** Resolves when a load is being served. */
  async function isLoaded(nbd: NbdProcess, connections: number): Promise<void> {
    const first = await nbd.command("stats");
    for (;;) {
      const now = await nbd.command("stats");
      const more = Number(now.completions) - Number(first.completions);
      if (Number(now.connections) >= connections && more > 5000) return;
      await Bun.sleep(5);
    }
  }

  test("an export that is removed ends its clients and no other's", async () => {
    const folder = tempFolder();
    const nbd = await start({ volume: `uring://${diskFile(folder)}`, other: memory() });
    const doomed = Bun.spawn(load(nbd.uri("volume"), folder), {
      stdout: "ignore",
      stderr: "ignore",
    });
    await isLoaded(nbd, 2);
    expect(await nbd.command("remove volume")).toMatchObject({ connections: 0 });
    expect(await doomed.exited).not.toBe(0);
    expect((await run("nbdinfo", nbd.uri("volume"))).code).not.toBe(0);
    expect(await nbd.command(`add volume ${memory()}`)).toMatchObject({ connections: 0 });
    await succeed("nbdinfo", nbd.uri("volume"));
    await succeed("qemu-io", "-f", "raw", "-c", "write 0 1M", nbd.uri("other"));
  });

  test("clients that are killed leave nothing behind", async () => {
    const folder = tempFolder();
    const nbd = await start({ volume: `uring://${diskFile(folder)}` });
    for (let i = 0; i < 3; i++) {
      const killed = Bun.spawn(load(nbd.uri("volume"), folder), {
        stdout: "ignore",
        stderr: "ignore",
      });
      await isLoaded(nbd, 2);
      killed.kill("SIGKILL");
      await killed.exited;
      await nbd.untilIdle();
    }
    await succeed("qemu-io", "-f", "raw", "-c", "write 0 1M", nbd.uri("volume"));
  });
});
