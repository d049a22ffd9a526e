/** Two paths to one volume: what the kernel does as their ANA states change while I/O goes on. */
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { AnaState } from "./ana.ts";
import { IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { Guest } from "./vm.ts";

const NQN = nqnOf("two-paths");

let engine: TestEngine;
let guest: Guest;
let device: string;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  engine = await TestEngine.start({
    subsystems: [{ nqn: NQN, device: "malloc:///volume?size_mb=64&blk_size=4096" }],
    paths: ["optimized", "inaccessible"],
  });
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  await engine?.stop();
});

afterEach(async () => {
  await guest.ok("detach_all");
  await engine.setAnaState(0, "optimized");
  await engine.setAnaState(1, "inaccessible");
});

/** Connects through both paths. */
async function attachBoth(): Promise<void> {
  const [first, second] = engine.addresses;
  device = await guest.ok(`attach ${NQN} ${first} ${IO_PORT}`);
  await guest.ok(`
    attach ${NQN} ${second} ${IO_PORT}
    wait_for 10 has_live_paths ${NQN} 2
  `);
}

/** Changes the state of both paths and waits until the kernel has heard of it. */
async function setStates(first: AnaState, second: AnaState): Promise<void> {
  await engine.setAnaState(0, first);
  await engine.setAnaState(1, second);
  const [a, b] = engine.addresses.map((address) => `traddr=${address},trsvcid=${IO_PORT}`);
  await guest.ok(
    `
    as_wanted() {
      ana_states ${NQN} >/tmp/states
      grep -q "^$1.* $2$" /tmp/states && grep -q "^$3.* $4$" /tmp/states
    }
    wait_for 20 as_wanted "$@" || { cat /tmp/states; exit 1; }
  `,
    { args: [a!, first, b!, second] },
  );
}

/** Writes and verifies while `during` runs. */
function loaded(during: () => Promise<void>): Promise<number> {
  return underLoad(guest, { target: device }, during);
}

/** Waits until each of the given paths (0, 1) has been written to from now on. */
function moreWrittenTo(...paths: readonly number[]): Promise<void> {
  return moreWritten(guest, NQN, ...paths.map((path) => engine.addresses[path]!));
}

test("connect-all finds both paths", async () => {
  const output = await guest.ok(`
    nvme connect-all -t tcp -a ${engine.addresses[1]} -s ${IO_PORT}
    wait_for 10 has_live_paths ${NQN} 2
    wait_for 10 device_of ${NQN}
    ana_states ${NQN}
  `);
  for (const [i, state] of ["optimized", "inaccessible"].entries()) {
    const path = `^traddr=${engine.addresses[i]},trsvcid=${IO_PORT}.* ${state}$`;
    expect(output).toMatch(new RegExp(path, "m"));
  }
});

test("I/O follows the accessible path", async () => {
  await attachBoth();
  await loaded(async () => {
    await moreWrittenTo(0);
    // The order of a move: nobody is accessible for a moment, and I/O waits.
    await setStates("inaccessible", "inaccessible");
    await setStates("inaccessible", "optimized");
    await moreWrittenTo(1);
    await setStates("optimized", "inaccessible");
    await moreWrittenTo(0);
  });
});

test("the change state holds I/O until it is over", async () => {
  await attachBoth();
  await loaded(async () => {
    await moreWrittenTo(0);
    await setStates("change", "inaccessible");
    await setStates("non-optimized", "inaccessible");
    await moreWrittenTo(0);
    await setStates("persistent-loss", "non-optimized");
    await moreWrittenTo(1);
    await setStates("optimized", "non-optimized");
    await moreWrittenTo(0);
  });
});

test("two optimized paths share the I/O", async () => {
  await attachBoth();
  await setStates("optimized", "optimized");
  await guest.ok(`
    echo round-robin >/sys/class/nvme-subsystem/$(subsystem_of ${NQN})/iopolicy
  `);
  await loaded(async () => {
    await moreWrittenTo(0, 1);
  });
});

test("a path that is disconnected leaves the other one to do the work", async () => {
  await attachBoth();
  await setStates("optimized", "non-optimized");
  await loaded(async () => {
    await moreWrittenTo(0);
    await guest.ok(`nvme disconnect -d $(controllers_of ${NQN} | head -1)`);
    await moreWrittenTo(1);
    await guest.ok(`
      attach ${NQN} ${engine.addresses[0]} ${IO_PORT}
      wait_for 10 has_live_paths ${NQN} 2
    `);
    await moreWrittenTo(0);
  });
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
