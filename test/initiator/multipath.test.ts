/** Two paths to one volume: what the kernel does as their ANA states change while I/O goes on. */
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { AnaStateName } from "../../src/engine/rpc/fields.ts";
import { IO_PORT, nqnOf, TestEngine } from "./engine.ts";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "./limits.ts";
import { moreWritten, underLoad } from "./load.ts";
import { Guest } from "./vm.ts";

const NQN = nqnOf("two-paths");
/** How the engines of both paths reach the device they share. */
const SHARED = nqnOf("shared-by-both");

let storage: TestEngine;
/** Two engines that serve one volume, as the nodes of a cluster do. */
let paths: readonly TestEngine[];
let guest: Guest;
let device: string;

setDefaultTimeout(TEST_TIMEOUT_MS);

beforeAll(async () => {
  storage = await TestEngine.start([
    { nqn: SHARED, device: "malloc:///volume?size_mb=64&blk_size=4096" },
  ]);
  const served = { nqn: NQN, device: `nvmf+tcp://${storage.address}:${IO_PORT}/${SHARED}` };
  paths = [
    await TestEngine.start([{ ...served, controllerIds: { min: 1, max: 100 } }]),
    await TestEngine.start([
      { ...served, controllerIds: { min: 101, max: 200 }, anaState: "inaccessible" },
    ]),
  ];
  guest = await Guest.boot();
}, SET_UP_TIMEOUT_MS);

afterAll(async () => {
  await guest?.stop();
  for (const engine of [...(paths ?? []), storage]) {
    await engine?.end();
  }
});

afterEach(async () => {
  await guest.ok("detach_all");
  await paths[0]!.setAnaState(NQN, "optimized");
  await paths[1]!.setAnaState(NQN, "inaccessible");
});

/** Connects through both paths. */
async function attachBoth(options = ""): Promise<void> {
  const [first, second] = paths.map(({ address }) => address);
  device = await guest.ok(`attach ${NQN} ${first} ${IO_PORT} ${options}`);
  await guest.ok(`
    attach ${NQN} ${second} ${IO_PORT} ${options}
    wait_for 10 has_live_paths ${NQN} 2
  `);
}

/** Changes the state of both paths and waits until the kernel has heard of it. */
async function setStates(first: AnaStateName, second: AnaStateName): Promise<void> {
  await paths[0]!.setAnaState(NQN, first);
  await paths[1]!.setAnaState(NQN, second);
  const [a, b] = paths.map(({ address }) => `traddr=${address},trsvcid=${IO_PORT}`);
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
function moreWrittenTo(...indices: readonly number[]): Promise<void> {
  return moreWritten(guest, NQN, ...indices.map((i) => paths[i]!.address));
}

test("both paths lead to one device", async () => {
  await attachBoth();
  const list = (await guest.json("nvme list -o json")) as { Devices: object[] };
  expect(list.Devices).toHaveLength(1);
  const states = await guest.ok(`ana_states ${NQN}`);
  for (const [i, state] of ["optimized", "inaccessible"].entries()) {
    const path = `^traddr=${paths[i]!.address},trsvcid=${IO_PORT}.* ${state}$`;
    expect(states).toMatch(new RegExp(path, "m"));
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

test("a path whose engine is killed leaves the other one to do the work", async () => {
  await attachBoth("-c 1 -l 600");
  await setStates("optimized", "non-optimized");
  await loaded(async () => {
    await moreWrittenTo(0);
    await paths[0]!.kill();
    await moreWrittenTo(1);
    await paths[0]!.start();
    await guest.ok(`wait_for 60 has_live_paths ${NQN} 2`);
    await moreWrittenTo(0);
  });
});

test("the kernel complained of nothing", () => {
  expect(guest.complaints()).toEqual([]);
});
