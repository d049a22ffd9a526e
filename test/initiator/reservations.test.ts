/** Reservations between two hosts: two guests that share a volume (Base 2.0, 8.19). */
import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { Guest } from "./vm.ts";

const NQN = nqnOf("reserved");
const DEVICE = "/dev/nvme0n1";
const KEY_A = 0xa11ce;
const KEY_B = 0xb0b;
/** Types of reservations (Base 2.0, figure 305), and what a host that is not the holder may do. */
const TYPES = [
  { type: 1, name: "write exclusive", stranger: "read", registrant: "read" },
  { type: 2, name: "exclusive access", stranger: "nothing", registrant: "nothing" },
  { type: 3, name: "write exclusive, registrants only", stranger: "read", registrant: "all" },
  { type: 4, name: "exclusive access, registrants only", stranger: "nothing", registrant: "all" },
  { type: 5, name: "write exclusive, all registrants", stranger: "read", registrant: "all" },
  { type: 6, name: "exclusive access, all registrants", stranger: "nothing", registrant: "all" },
] as const;
type Access = "all" | "read" | "nothing";

interface Report {
  readonly gen: number;
  readonly rtype: number;
  readonly regctl: number;
  readonly ptpls: number;
  readonly regctlext: readonly { rcsts: number; rkey: number; hostid: string }[];
}

let engine: TestEngine;
let a: Guest;
let b: Guest;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  engine = await TestEngine.start([{ nqn: NQN, device: "malloc:///reserved?size_mb=16" }]);
  [a, b] = await Promise.all([Guest.boot(), Guest.boot()]);
  for (const guest of [a, b]) {
    expect(await guest.ok(`attach ${NQN} ${engine.address} ${IO_PORT}`)).toBe(DEVICE);
  }
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await a?.stop();
  await b?.stop();
  await engine?.end();
});

/** Every test begins without registrations. */
beforeEach(async () => {
  for (const guest of [a, b]) {
    await guest.ok(`nvme resv-register ${DEVICE} -n 1 --nrkey=1 --rrega=0 --iekey || true
      nvme resv-register ${DEVICE} -n 1 --rrega=1 --iekey || true`);
  }
  const { regctl, rtype } = await report(a);
  expect({ regctl, rtype }).toEqual({ regctl: 0, rtype: 0 });
});

async function report(guest: Guest): Promise<Report> {
  return (await guest.json(`nvme resv-report ${DEVICE} -n 1 --eds -o json`)) as Report;
}

/** Who is registered, as the report tells it: host id without dashes to key. */
function keysOf({ regctlext }: Report): Record<string, number> {
  return Object.fromEntries(regctlext.map(({ hostid, rkey }) => [hostid, rkey]));
}

const hostIdOf = (guest: Guest) => guest.hostUuid.replaceAll("-", "");

const register = (guest: Guest, key: number) =>
  guest.ok(`nvme resv-register ${DEVICE} -n 1 --nrkey=${key} --rrega=0`);
const acquire = (guest: Guest, key: number, type: number) =>
  guest.ok(`nvme resv-acquire ${DEVICE} -n 1 --crkey=${key} --rtype=${type} --racqa=0`);
const release = (guest: Guest, key: number, type: number) =>
  guest.ok(`nvme resv-release ${DEVICE} -n 1 --crkey=${key} --rtype=${type} --rrela=0`);

/** What a host can do: it tries to read and to write; being refused is a reservation conflict. */
async function accessOf(guest: Guest): Promise<Access> {
  const said = await guest.ok(`
    attempt() {
      if nvme "$@" -s 8 -c 0 -z 512 -d /tmp/block >/tmp/said 2>&1; then echo yes
      elif grep -q '(0x83)' /tmp/said; then echo no
      else cat /tmp/said; fi
    }
    head -c 512 /dev/urandom >/tmp/block
    echo $(attempt read ${DEVICE}) $(attempt write ${DEVICE})
  `);
  const names: Record<string, Access> = { "yes yes": "all", "yes no": "read", "no no": "nothing" };
  const access = names[said];
  if (access === undefined) throw new Error(`neither done nor a conflict: ${said}`);
  return access;
}

/** Runs a command that must end in a reservation conflict. */
async function expectConflict(guest: Guest, command: string): Promise<void> {
  const { status, output } = await guest.run(command);
  expect(output).toContain("(0x83)");
  expect(status).not.toBe(0);
}

test.each(TYPES)("type $type: $name", async ({ type, stranger, registrant }) => {
  await register(a, KEY_A);
  await acquire(a, KEY_A, type);
  expect(await accessOf(a)).toBe("all");
  expect(await accessOf(b)).toBe(stranger);
  await register(b, KEY_B);
  expect(await accessOf(b)).toBe(registrant);

  const held = await report(b);
  expect(held.rtype).toBe(type);
  expect(keysOf(held)).toEqual({ [hostIdOf(a)]: KEY_A, [hostIdOf(b)]: KEY_B });
  // With "all registrants" every registrant is a holder.
  const holders = held.regctlext.filter(({ rcsts }) => (rcsts & 1) === 1);
  expect(holders).toHaveLength(type >= 5 ? 2 : 1);

  await release(a, KEY_A, type);
  expect((await report(a)).rtype).toBe(0);
  expect(await accessOf(b)).toBe("all");
});

test("a holder is preempted and locked out", async () => {
  await register(a, KEY_A);
  await acquire(a, KEY_A, 1);
  await register(b, KEY_B);
  const before = await report(b);
  await b.ok(
    `nvme resv-acquire ${DEVICE} -n 1 --crkey=${KEY_B} --prkey=${KEY_A} --rtype=2 --racqa=1`,
  );
  const after = await report(b);
  expect(after.rtype).toBe(2);
  expect(after.gen).toBeGreaterThan(before.gen);
  expect(keysOf(after)).toEqual({ [hostIdOf(b)]: KEY_B });
  expect(await accessOf(a)).toBe("nothing");
  expect(await accessOf(b)).toBe("all");
  // The kernel's own I/O meets the conflict as well, and its caller is told.
  const { status, output } = await a.run(`dd if=${DEVICE} of=/dev/null bs=4k count=1 iflag=direct`);
  expect(status).toBe(1);
  expect(output).toContain("Invalid exchange");
});

test("preempt and abort takes the holder's place, too", async () => {
  await register(a, KEY_A);
  await acquire(a, KEY_A, 3);
  await register(b, KEY_B);
  await b.ok(
    `nvme resv-acquire ${DEVICE} -n 1 --crkey=${KEY_B} --prkey=${KEY_A} --rtype=3 --racqa=2`,
  );
  expect(keysOf(await report(b))).toEqual({ [hostIdOf(b)]: KEY_B });
  expect(await accessOf(a)).toBe("read");
});

test("whoever is not in the right meets a conflict", async () => {
  await register(a, KEY_A);
  await acquire(a, KEY_A, 1);
  const acquisition = (key: number) =>
    `nvme resv-acquire ${DEVICE} -n 1 --crkey=${key} --rtype=1 --racqa=0`;
  // Not registered; with a wrong key; registered while another one holds.
  await expectConflict(b, acquisition(KEY_B));
  await register(b, KEY_B);
  await expectConflict(b, acquisition(KEY_A));
  await expectConflict(b, acquisition(KEY_B));
  await expectConflict(b, `nvme resv-register ${DEVICE} -n 1 --nrkey=5 --rrega=0`);
  await expectConflict(a, `nvme resv-release ${DEVICE} -n 1 --crkey=${KEY_B} --rtype=1 --rrela=0`);
  expect(keysOf(await report(a))).toEqual({ [hostIdOf(a)]: KEY_A, [hostIdOf(b)]: KEY_B });
});

test("keys are replaced, cleared and given back", async () => {
  await register(a, KEY_A);
  await acquire(a, KEY_A, 1);
  await a.ok(`nvme resv-register ${DEVICE} -n 1 --crkey=${KEY_A} --nrkey=0x77 --rrega=2`);
  const replaced = await report(a);
  expect(keysOf(replaced)).toEqual({ [hostIdOf(a)]: 0x77 });
  expect(replaced.rtype).toBe(1);
  await register(b, KEY_B);
  await b.ok(`nvme resv-release ${DEVICE} -n 1 --crkey=${KEY_B} --rrela=1`);
  const { rtype, regctl } = await report(a);
  expect({ rtype, regctl }).toEqual({ rtype: 0, regctl: 0 });
});

test("a reservation outlives the connection of its holder", async () => {
  await register(a, KEY_A);
  await acquire(a, KEY_A, 2);
  await a.ok("detach_all");
  expect(await accessOf(b)).toBe("nothing");
  expect(await a.ok(`attach ${NQN} ${engine.address} ${IO_PORT}`)).toBe(DEVICE);
  expect(await accessOf(a)).toBe("all");
});
