/** Discovery, connecting and what the host is told about controllers and namespaces. */
import {
  afterAll,
  afterEach,
  beforeAll,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { DISCOVERY_PORT, IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { Guest, hostNqnOf } from "./vm.ts";

const SMALL = nqnOf("small-blocks");
const LARGE = nqnOf("large-blocks");
const PRIVATE = nqnOf("private");
const DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery";
const ADMITTED_HOST = "7f3d5c2e-0001-4000-8000-0000000000aa";
const SMALL_UUID = "7f3d5c2e-0001-4000-8000-000000000001";
const LARGE_UUID = "7f3d5c2e-0001-4000-8000-000000000002";
const MIB = 1 << 20;
/** Identify pads with spaces. */
const MODEL = expect.stringMatching(/^Trilith NVMe controller *$/);
const SIZE_MIB = 64;

let engine: TestEngine;
let guest: Guest;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  const size = `size_mb=${SIZE_MIB}`;
  engine = await TestEngine.start([
    { nqn: SMALL, device: `malloc:///small?${size}&blk_size=512&uuid=${SMALL_UUID}` },
    { nqn: LARGE, device: `malloc:///large?${size}&blk_size=4096&uuid=${LARGE_UUID}` },
    { nqn: PRIVATE, device: `malloc:///private?${size}`, hosts: [hostNqnOf(ADMITTED_HOST)] },
  ]);
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.end();
});

afterEach(() => guest.ok("detach_all"));

/** Connects to a subsystem; returns its block device. */
function attach(nqn: string, options = ""): Promise<string> {
  return guest.ok(`attach ${nqn} ${engine.address} ${IO_PORT} ${options}`);
}

describe("discovery", () => {
  interface Entry {
    readonly trtype: string;
    readonly adrfam: string;
    readonly subtype: string;
    readonly treq: string;
    readonly trsvcid: string;
    readonly subnqn: string;
    readonly traddr: string;
  }

  async function discover(port: number, options = ""): Promise<readonly Entry[]> {
    const command = `nvme discover -t tcp -a ${engine.address} -s ${port} ${options} -o json`;
    return ((await guest.json(command)) as { records: Entry[] }).records;
  }

  const subsystemsOf = (entries: readonly Entry[]) =>
    entries.filter((entry) => entry.subtype === "nvme subsystem");

  test.each([IO_PORT, DISCOVERY_PORT])("port %d lists what this host may use", async (port) => {
    const entries = subsystemsOf(await discover(port));
    expect(entries.map((entry) => entry.subnqn).sort()).toEqual([LARGE, SMALL].sort());
    for (const entry of entries) {
      expect(entry).toMatchObject({ trtype: "tcp", adrfam: "ipv4", traddr: engine.address });
      expect(entry.trsvcid).toBe(String(IO_PORT));
      // "required" makes nvme-cli ask for TLS and then connect nothing.
      expect(entry.treq).not.toStartWith("required");
    }
  });

  test("an admitted host finds the private subsystem as well", async () => {
    const host = `-q ${hostNqnOf(ADMITTED_HOST)} -I ${ADMITTED_HOST}`;
    const found = subsystemsOf(await discover(IO_PORT, host)).map((entry) => entry.subnqn);
    expect(found.sort()).toEqual([LARGE, PRIVATE, SMALL].sort());
  });

  test("the discovery subsystem has a name of its own", async () => {
    const output = await guest.ok(`
      nvme discover -t tcp -a ${engine.address} -s ${DISCOVERY_PORT} --persistent >/dev/null
      cat /sys/class/nvme/nvme*/subsysnqn; cat /sys/class/nvme/nvme*/cntrltype
      cat /sys/class/nvme/nvme*/state; cat /sys/class/nvme/nvme*/kato
      nvme id-ctrl /dev/nvme0 -o json | jq -r .subnqn
      nvme disconnect-all
    `);
    const [connected, type, state, keepAliveSeconds, own] = output.split("\n");
    expect(type).toBe("discovery");
    expect(state).toBe("live");
    expect(Number(keepAliveSeconds)).toBeGreaterThan(0);
    expect([connected, DISCOVERY_NQN]).toContain(own);
  });

  test.each([
    ["the I/O port", `-s ${IO_PORT}`],
    ["the default port", ""],
  ])("connect-all through %s", async (_name, port) => {
    const output = await guest.ok(`
      nvme connect-all -t tcp -a ${engine.address} ${port}
      for nqn in ${SMALL} ${LARGE}; do
        wait_for 10 has_live_paths $nqn 1
        wait_for 10 device_of $nqn
        ana_states $nqn
      done
      nvme disconnect-all
      for nqn in ${SMALL} ${LARGE}; do wait_for 10 is_detached $nqn; done
    `);
    const address = `traddr=${engine.address},trsvcid=${IO_PORT}`;
    const paths = output.split("\n").filter((line) => line.startsWith(address));
    expect(paths).toHaveLength(2);
    for (const path of paths) expect(path).toEndWith(" optimized");
  });
});

describe("identity", () => {
  test.each([
    [SMALL, SMALL_UUID, 512],
    [LARGE, LARGE_UUID, 4096],
  ])("%s is what was configured", async (nqn, uuid, blockSize) => {
    const device = await attach(nqn);
    const controller = `/dev/${await guest.ok(`controllers_of ${nqn}`)}`;
    const id = (await guest.json(`nvme id-ctrl ${controller} -o json`)) as Record<string, unknown>;
    expect(id).toMatchObject({ subnqn: nqn, mn: MODEL, nn: 1, sqes: 0x66, cqes: 0x44 });
    expect(id.sn).toStartWith("TRI");
    expect(id.cntlid).toBeGreaterThan(0);
    expect(4096 << Number(id.mdts)).toBe(MIB);
    // Multi-path and multi-host; ANA reported.
    expect(Number(id.cmic) & 0b1010).toBe(0b1010);
    expect(Number(id.anagrpmax)).toBeGreaterThan(0);

    const ns = (await guest.json(`nvme id-ns ${device} -o json`)) as {
      nsze: number;
      nguid: string;
      nmic: number;
      lbafs: { ds: number }[];
      flbas: number;
    };
    expect(ns.nsze * blockSize).toBe(SIZE_MIB * MIB);
    expect(2 ** ns.lbafs[ns.flbas & 15]!.ds).toBe(blockSize);
    expect(ns.nguid).toBe(uuid.replaceAll("-", ""));
    expect(ns.nmic & 1).toBe(1);

    const descriptors = await guest.ok(`nvme ns-descs ${device}`);
    expect(descriptors).toMatch(new RegExp(`uuid\\s*: ${uuid}`));
    const kernel = await guest.ok(`
      cat /sys/class/block/${device.slice(5)}/wwid
      blockdev --getsize64 --getss ${device}
      nvme list-ns ${controller}
    `);
    const lines = kernel.split("\n");
    expect(lines.slice(0, 3)).toEqual([`uuid.${uuid}`, String(SIZE_MIB * MIB), `${blockSize}`]);
    expect(lines.slice(3).join(" ")).toMatch(/\[\s*0\]:0x1$/);
  });

  test("list-subsys and list show a live path and a device", async () => {
    const device = await attach(SMALL);
    const hosts = (await guest.json("nvme list-subsys -o json")) as {
      HostNQN: string;
      Subsystems: { NQN: string; Paths: Record<string, string>[] }[];
    }[];
    const [host] = hosts;
    expect(host!.HostNQN).toBe(guest.hostNqn);
    expect(host!.Subsystems).toHaveLength(1);
    expect(host!.Subsystems[0]!.NQN).toBe(SMALL);
    expect(host!.Subsystems[0]!.Paths).toHaveLength(1);
    expect(host!.Subsystems[0]!.Paths[0]).toMatchObject({ Transport: "tcp", State: "live" });
    const list = (await guest.json("nvme list -o json")) as { Devices: object[] };
    expect(list.Devices).toHaveLength(1);
    const size = { PhysicalSize: SIZE_MIB * MIB, SectorSize: 512 };
    expect(list.Devices[0]).toMatchObject({ DevicePath: device, ModelNumber: MODEL, ...size });
  });
});

describe("data", () => {
  test.each([
    ["no digest", ""],
    ["header digest", "-g"],
    ["data digest", "-G"],
    ["header and data digest", "-g -G"],
  ])("is verified with %s", async (_name, digests) => {
    for (const nqn of [SMALL, LARGE]) {
      const device = await attach(nqn, digests);
      await guest.ok(`verified_io ${device} 4m`);
      // Transfers as large as the controller takes: several R2T and data PDUs each.
      await guest.ok(`verified_io ${device} 6m --bsrange=512k-1m --iodepth=4`);
    }
  });

  test("is verified with blocks of 512 bytes and with deep queues", async () => {
    const device = await attach(SMALL, "-Q 1024");
    await guest.ok(`verified_io ${device} 1m --bsrange=512-8k --blockalign=512`);
    await guest.ok(`verified_io ${device} 12m --bsrange=4k-4k --iodepth=512`);
  });

  test("is verified over separate write and poll queues", async () => {
    const device = await attach(LARGE, "-i 1 -W 1 -P 1");
    await guest.ok(`verified_io ${device} 4m`);
    await guest.ok(`verified_io ${device} 1m --ioengine=pvsync2 --hipri=1 --iodepth=1`);
    expect(guest.kernelLog().join("\n")).toContain("mapped 1/1/1 default/read/poll queues");
  });

  test("is verified after a controller reset", async () => {
    const device = await attach(SMALL, "-g");
    await guest.ok(
      `
      controller=/dev/$(controllers_of ${SMALL})
      verified_io $1 2m
      nvme reset $controller
      wait_for 10 has_live_paths ${SMALL} 1
      verified_io $1 2m
      nvme ns-rescan $controller
      nvme show-regs $controller | grep csts
    `,
      { args: [device] },
    );
  });

  test("goes over several connections of one host", async () => {
    const device = await attach(LARGE);
    await guest.ok(`
      add_path ${LARGE} ${engine.address} ${IO_PORT} duplicate_connect
      subsystem=$(subsystem_of ${LARGE})
      echo round-robin >/sys/class/nvme-subsystem/$subsystem/iopolicy
      verified_io ${device} 4m
      for path in /sys/class/nvme/nvme*/nvme*c*n1; do [ $(written_sectors $path) -gt 0 ]; done
    `);
  });
});

describe("a host is refused", () => {
  test.each([
    ["a subsystem that does not exist", nqnOf("no-such-volume")],
    ["a subsystem that does not admit it", PRIVATE],
  ])("%s", async (_name, nqn) => {
    const result = await guest.run(
      `nvme connect -t tcp -a ${engine.address} -s ${IO_PORT} -n ${nqn}`,
    );
    expect(result.status).not.toBe(0);
    expect(await guest.ok("ls /sys/class/nvme")).toBe("");
  });

  test("but one that is admitted connects", async () => {
    const host = `-q ${hostNqnOf(ADMITTED_HOST)} -I ${ADMITTED_HOST}`;
    const device = await attach(PRIVATE, host);
    await guest.ok(`verified_io ${device} 1m`);
  });
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
