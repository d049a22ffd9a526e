/** Commands that nvme-cli sends to a controller or a namespace by hand, and how each is answered. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { GUEST_CPUS, SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { Guest } from "./vm.ts";

const NQN = nqnOf("commands");
const SIZE_MIB = 64;
const BLOCK_BYTES = 512;
/** SCT << 8 | SC (Base 2.0, 3.3.3.2.1). */
const STATUS = {
  invalidOpcode: 0x001,
  invalidField: 0x002,
  invalidNamespace: 0x00b,
  lbaOutOfRange: 0x080,
  invalidLogPage: 0x109,
  compareFailure: 0x285,
};
/** Feature identifiers (Base 2.0, figure 317). */
const FEATURE = {
  volatileCache: 0x06,
  queues: 0x07,
  asyncEvents: 0x0b,
  keepAlive: 0x0f,
  hostId: 0x81,
};

let engine: TestEngine;
let guest: Guest;
let device: string;
let controller: string;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  const uri = `malloc:///commands?size_mb=${SIZE_MIB}&blk_size=${BLOCK_BYTES}`;
  engine = await TestEngine.start([{ nqn: NQN, device: uri }]);
  guest = await Guest.boot();
  device = await guest.ok(`attach ${NQN} ${engine.address} ${IO_PORT} -k 7`);
  controller = `/dev/${await guest.ok(`controllers_of ${NQN}`)}`;
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.end();
});

type Fields = Readonly<Record<string, unknown>>;

/** JSON that a command about the controller prints. */
async function controllerJson(command: string, options = ""): Promise<Fields> {
  return (await guest.json(`nvme ${command} ${controller} ${options} -o json`)) as Fields;
}

/** A command that must be refused; returns its status, SCT << 8 | SC. */
async function refusal(command: string): Promise<number> {
  const { status, output } = await guest.run(command);
  const code = /\(0x([0-9a-f]+)\)/.exec(output);
  if (status !== 0 && code !== null) return Number.parseInt(code[1]!, 16) & 0x7ff;
  throw new Error(`not refused by the controller: ${command}\n${output}`);
}

describe("I/O commands", () => {
  /** Four blocks of random bytes at block 8, and a file of as many zeroes. */
  const fill = `
    device=$1
    head -c 2048 /dev/urandom >/tmp/data
    head -c 2048 /dev/zero >/tmp/zeroes
    nvme write $device -s 8 -c 3 -z 2048 -d /tmp/data
    same() { nvme read $device -s 8 -c 3 -z 2048 -d /tmp/back && cmp /tmp/back $1; }
  `;
  const run = (script: string) => guest.ok(fill + script, { args: [device] });

  test("write, with FUA as well, read and flush", async () => {
    await run(`
      same /tmp/data
      nvme write $device -s 8 -c 3 -z 2048 -d /tmp/zeroes --force-unit-access
      same /tmp/zeroes
      nvme flush $device -n 1
    `);
  });

  test("write-zeroes, keeping and deallocating", async () => {
    await run(`
      nvme write-zeroes $device -s 8 -c 3
      same /tmp/zeroes
      nvme write $device -s 8 -c 3 -z 2048 -d /tmp/data
      nvme write-zeroes $device -s 8 -c 3 --deac
      same /tmp/zeroes
    `);
  });

  test("dsm deallocates several ranges at once", async () => {
    await run(`
      nvme write $device -s 100 -c 3 -z 2048 -d /tmp/data
      nvme dsm $device -n 1 --ad --slbs=8,100 --blocks=4,4
      same /tmp/zeroes
      nvme read $device -s 100 -c 3 -z 2048 -d /tmp/back
      cmp /tmp/back /tmp/zeroes
    `);
  });

  test("compare tells equal from different", async () => {
    await run(`nvme compare $device -s 8 -c 3 -z 2048 -d /tmp/data`);
    const said = await refusal(`nvme compare ${device} -s 8 -c 3 -z 2048 -d /tmp/zeroes`);
    expect(said).toBe(STATUS.compareFailure);
  });

  test("verify reads without sending", async () => {
    await run(`nvme verify $device -s 8 -c 3`);
  });

  test("blkdiscard discards and zeroes through the kernel", async () => {
    await run(`
      blkdiscard $device
      same /tmp/zeroes
      nvme write $device -s 8 -c 3 -z 2048 -d /tmp/data
      blkdiscard --zeroout --offset 4096 --length 2048 $device
      same /tmp/zeroes
    `);
  });

  const end = (SIZE_MIB << 20) / BLOCK_BYTES;
  test.each([
    ["read", "-c 0 -z 512 -d /dev/null"],
    ["write", "-c 0 -z 512 -d /tmp/zeroes"],
    ["write-zeroes", "-c 0"],
    ["compare", "-c 0 -z 512 -d /tmp/zeroes"],
    ["verify", "-c 0"],
    ["dsm", "--ad -n 1 --blocks=1"],
  ])("%s beyond the last block is refused", async (command, options) => {
    const where = command === "dsm" ? `--slbs=${end}` : `-s ${end}`;
    const said = await refusal(`nvme ${command} ${device} ${options} ${where}`);
    expect(said).toBe(STATUS.lbaOutOfRange);
  });

  test("an opcode nobody knows is refused", async () => {
    const said = await refusal(`nvme io-passthru ${device} --opcode=0x6f --namespace-id=1`);
    expect(said).toBe(STATUS.invalidOpcode);
  });
});

describe("log pages", () => {
  test("ana-log shows one group, optimized, with the namespace", async () => {
    const log = (await controllerJson("ana-log")) as {
      ngrps: number;
      "ANA DESC LIST ": { state: string; NSIDS: { nsid: number }[] }[];
    };
    expect(log.ngrps).toBe(1);
    const [group] = log["ANA DESC LIST "];
    expect(group).toMatchObject({ state: "optimized", NSIDS: [{ nsid: 1 }] });
  });

  test("smart-log counts what was read and written", async () => {
    const before = await controllerJson("smart-log");
    await guest.ok(`
      nvme read ${device} -s 0 -c 0 -z 512 -d /dev/null
      dd if=/dev/zero of=${device} bs=1M count=4 oflag=direct
      dd if=${device} of=/dev/null bs=1M count=4 iflag=direct
    `);
    const after = await controllerJson("smart-log");
    const grown = (field: string) => Number(after[field]) - Number(before[field]);
    expect(grown("host_read_commands")).toBeGreaterThan(0);
    expect(grown("host_write_commands")).toBeGreaterThan(0);
    // Units of 1000 blocks of 512 bytes, rounded up.
    expect(grown("data_units_read")).toBeGreaterThanOrEqual(8);
    expect(grown("data_units_written")).toBeGreaterThanOrEqual(8);
    expect(Number(after.critical_warning)).toBe(0);
    expect(Number(after.media_errors)).toBe(0);
  });

  test("error-log holds the command that failed last", async () => {
    await guest.ok(`
      head -c 512 /dev/urandom >/tmp/other
      nvme write-zeroes ${device} -s 8 -c 0
    `);
    const difference = await refusal(`nvme compare ${device} -s 8 -c 0 -z 512 -d /tmp/other`);
    const { errors } = (await controllerJson("error-log", "-e 4")) as { errors: Fields[] };
    expect(errors[0]).toMatchObject({ nsid: 1, lba: 8 });
    expect(Number(errors[0]!.status_field) & 0x7ff).toBe(difference);
    expect(Number(errors[0]!.error_count)).toBeGreaterThan(Number(errors[1]!.error_count));
    const smart = await controllerJson("smart-log");
    expect(Number(smart.num_err_log_entries)).toBe(Number(errors[0]!.error_count));
  });

  test("effects-log knows what is served", async () => {
    const output = await guest.ok(`nvme effects-log ${controller} --csi=0`);
    for (const opcode of ["Flush", "Write", "Read", "Compare", "Write Zeroes", "Verify"]) {
      expect(output).toMatch(new RegExp(`\\[ *${opcode} *\\] +0000000[13]`));
    }
  });

  test("firmware, changed namespaces and the list of logs", async () => {
    expect(await guest.ok(`nvme fw-log ${controller}`)).toContain("0.1");
    await guest.ok(`nvme changed-ns-list-log ${controller}`);
    const logs = await guest.ok(`nvme supported-log-pages ${controller}`);
    const ids = [...logs.matchAll(/^LID (0x\w+)/gm)].map((match) => Number(match[1]));
    expect(ids).toEqual(expect.arrayContaining([1, 2, 3, 4, 5, 0x0c, 0x80]));
  });

  test("a log page nobody knows is refused", async () => {
    const said = await refusal(`nvme get-log ${controller} --log-id=0xbe --log-len=512`);
    expect(said).toBe(STATUS.invalidLogPage);
  });
});

describe("features", () => {
  /** The value of a feature, as nvme-cli prints it. */
  async function feature(id: number): Promise<number> {
    const output = await guest.ok(`nvme get-feature ${controller} -f ${id}`);
    const value = /value:\s*(0x)?([0-9a-f]+)/i.exec(output);
    if (value === null) throw new Error(`no value: ${output}`);
    return Number.parseInt(value[2]!, 16);
  }

  test("number of queues is what the kernel asked for", async () => {
    const value = await feature(FEATURE.queues);
    expect((value & 0xffff) + 1).toBe(GUEST_CPUS);
    expect((value >>> 16) + 1).toBe(GUEST_CPUS);
  });

  test("keep-alive time-out is what the host connected with", async () => {
    // The kernel adds its own grace of 5 s to the 7 s of the connection.
    expect([7000, 12_000]).toContain(await feature(FEATURE.keepAlive));
  });

  test("async events: the kernel has asked for changes of ANA and namespaces", async () => {
    const value = await feature(FEATURE.asyncEvents);
    expect(value & (1 << 8)).not.toBe(0);
    expect(value & (1 << 11)).not.toBe(0);
  });

  test("the host identifier is the host's", async () => {
    const output = await guest.ok(
      `nvme get-feature ${controller} -f ${FEATURE.hostId} -c 1 -l 16 -b | od -An -tx1 | tr -d ' \\n'`,
    );
    expect(output).toBe(guest.hostUuid.replaceAll("-", ""));
  });

  test("the volatile write cache can be asked for", async () => {
    expect([0, 1]).toContain(await feature(FEATURE.volatileCache));
  });

  test("a feature nobody knows is refused", async () => {
    expect(await refusal(`nvme get-feature ${controller} -f 0x7f`)).toBe(STATUS.invalidField);
    expect(await refusal(`nvme set-feature ${controller} -f 0x7f -v 1`)).toBe(STATUS.invalidField);
  });
});

describe("identify", () => {
  test("a namespace that is not there is refused", async () => {
    expect(await refusal(`nvme id-ns ${device} -n 7`)).toBe(STATUS.invalidNamespace);
    expect(await refusal(`nvme ns-descs ${device} -n 7`)).toBe(STATUS.invalidNamespace);
  });

  test("pages of the I/O command sets", async () => {
    await guest.ok(`
      nvme nvm-id-ctrl ${controller}
      nvme nvm-id-ns ${device}
      nvme cmdset-ind-id-ns ${device} -n 1
    `);
  });
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
