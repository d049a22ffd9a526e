/** NBD exports of an engine with several reactors, told what to do over its RPC. */
import { afterEach, expect, test } from "bun:test";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type EngineClient, engineClient } from "../../src/engine/rpc/client.ts";
import { freePorts } from "../bench/machine.ts";
import { projectRoot } from "../support/executable.ts";
import { run, succeed } from "../support/nbd-process.ts";
import { Random, testSeed } from "../support/random.ts";
import { tempFolders } from "../support/temp-folder.ts";

const SIZE_MB = 16;
const REACTORS = 2;
const tempFolder = tempFolders();
let engine: Bun.Subprocess | undefined;

afterEach(async () => {
  engine?.kill();
  expect(await engine?.exited).toBe(0);
  engine = undefined;
});

/** An engine from sources that answers. */
async function startEngine(folder: string): Promise<EngineClient> {
  const [nvmfPort, nbdPort, rpcPort] = freePorts(3).map(String) as [string, string, string];
  const options = {
    "--node-name": "node",
    "--data-dir": join(folder, "data"),
    "--reactors": String(REACTORS),
    "--listen": "127.0.0.1",
    "--port": nvmfPort,
    "--discovery-port": "none",
    "--nbd-port": nbdPort,
    "--rpc": `127.0.0.1:${rpcPort}`,
    "--log-level": "warn",
  };
  engine = Bun.spawn(
    ["bun", join(projectRoot, "src/main.ts"), "engine", ...Object.entries(options).flat()],
    {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    },
  );
  const rpc = engineClient(`http://127.0.0.1:${rpcPort}`);
  while (!(await rpc.getInfo().then(Boolean, () => false))) {
    if (engine.exitCode !== null) throw new Error("the engine has ended");
    await Bun.sleep(20);
  }
  return rpc;
}

/** Opens a memory device and shares it; returns its export. */
async function share(rpc: EngineClient, name: string) {
  const uri = `malloc:///${name}?size_mb=${SIZE_MB}`;
  const bdev = await rpc.createBdev({ uri });
  await rpc.shareBdevNbd({ name: bdev.name, exportName: name });
  return (await rpc.listNbdExports()).find((shared) => shared.name === name)!;
}

function imageFile(folder: string, name: string): string {
  const random = new Random(testSeed());
  const path = join(folder, name);
  const bytes = new Uint8Array(SIZE_MB << 20);
  for (let at = 0; at < bytes.byteLength; at += 512) bytes[at] = random.below(256);
  writeFileSync(path, bytes);
  return path;
}

test("connections find their export, whatever reactor accepts them", async () => {
  const folder = tempFolder();
  const rpc = await startEngine(folder);
  const names = ["one", "two", "three", "four"];
  const exports = [];
  for (const name of names) exports.push(await share(rpc, name));
  expect(new Set(exports.map(({ reactor }) => reactor)).size).toBe(REACTORS);
  const list = await succeed("nbdinfo", "--list", exports[0]!.uri.replace(/[^/]*$/, ""));
  for (const { name } of exports) expect(list).toContain(`export="${name}"`);
  // Which reactor accepts is up to the kernel: enough connections meet every case.
  await Promise.all(
    exports.map(async ({ name, uri }) => {
      const image = imageFile(folder, name);
      const back = join(folder, `${name}.back`);
      await succeed("nbdcopy", "--connections=4", image, uri);
      await succeed("nbdcopy", "--connections=4", uri, back);
      await succeed("cmp", image, back);
      await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri);
    }),
  );
});

test("a volume mirrored over three devices is shared like any device", async () => {
  const folder = tempFolder();
  const rpc = await startEngine(folder);
  const uuid = crypto.randomUUID();
  const children = ["a", "b", "c"].map((name) => ({
    uri: `malloc:///${name}?size_mb=${SIZE_MB}`,
  }));
  await rpc.createNexus({ uuid, epoch: 1, children });
  await rpc.shareNexusNbd({ uuid });
  const [shared] = await rpc.listNbdExports();
  const image = imageFile(folder, "image");
  const uri = shared!.uri;
  const size = ["--target-is-zero"];
  await succeed("qemu-img", "convert", "-n", ...size, "-f", "raw", "-O", "raw", image, uri);
  const back = join(folder, "back");
  await succeed("nbdcopy", uri, back);
  const head = ["-n", String(shared!.sizeBytes)];
  await succeed("cmp", ...head, image, back);
  await rpc.unshareNexus({ uuid, protocol: "nbd" });
  expect((await run("nbdinfo", uri)).code).not.toBe(0);
});

test("a thin replica tells its clients where it holds nothing", async () => {
  const folder = tempFolder();
  const rpc = await startEngine(folder);
  const disk = join(folder, "disk");
  writeFileSync(disk, "");
  truncateSync(disk, 256 << 20);
  await rpc.createPool({ name: "pool", disks: [disk], clusterSizeBytes: 1 << 20 });
  const uuid = crypto.randomUUID();
  await rpc.createReplica({ uuid, poolName: "pool", sizeBytes: 64 << 20, thin: true });
  await rpc.shareReplicaNbd({ uuid });
  const [shared] = await rpc.listNbdExports();
  const { uri } = shared!;
  const map = async (): Promise<unknown> =>
    JSON.parse(await succeed("nbdinfo", "--map", "--json", uri));
  const extent = (offsetMb: number, lengthMb: number, description: string) =>
    expect.objectContaining({
      offset: offsetMb << 20,
      length: lengthMb << 20,
      type: description === "data" ? 0 : 3,
    });
  expect(await map()).toEqual([extent(0, 64, "hole,zero")]);
  const write = ["-c", "write -P 5 8M 2M", "-c", "write -P 6 40M 4k"];
  await succeed("qemu-io", "-f", "raw", ...write, uri);
  expect(await map()).toEqual([
    extent(0, 8, "hole,zero"),
    extent(8, 2, "data"),
    extent(10, 30, "hole,zero"),
    extent(40, 1, "data"),
    extent(41, 23, "hole,zero"),
  ]);
  // A copy that skips the holes is the same.
  const image = join(folder, "image");
  await succeed("nbdcopy", uri, image);
  await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri);
  await succeed("qemu-io", "-f", "raw", "-c", "discard 8M 1M", uri);
  expect(await map()).toContainEqual(extent(0, 9, "hole,zero"));
});
