/** `trilith host`, against a stand-in of the API and a kernel that is played. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { CliContext } from "../../../src/cli/context.ts";
import { hostCommand } from "../../../src/cli/host.ts";
import { runCli } from "../../../src/cli/run.ts";
import type { Volume } from "../../../src/client/types.ts";
import { fabricsError, missingModule } from "../../../src/host/fabrics.ts";
import { readState, takeKeeping } from "../../../src/host/state-file.ts";
import { type Answers, apiStandIn, type StandIn } from "../../support/api-stand-in.ts";
import { PlayedKernel } from "../../support/host-kernel.ts";
import { tempFolders } from "../../support/temp-folder.ts";
import { VOLUME, volume } from "./fixtures.ts";

const newFolder = tempFolders();
const HOST = "nqn.2014-08.org.example:host";
const NQN = `nqn.2019-05.io.openebs:${VOLUME}`;
const target = `PUT /volumes/${VOLUME}/target`;

const open: StandIn[] = [];
afterEach(async () => {
  for (const api of open.splice(0)) await api.stop();
});

const pathAt = (n: number, role: "target" | "standby", state: string) => ({
  ...{ node: `node-${n}`, role, state },
  uri: state === "pending" ? "" : `nvmf+tcp://10.0.0.${n}:8420/${NQN}?uuid=${VOLUME}`,
});
const paths = [
  pathAt(1, "target", "serving"),
  pathAt(2, "standby", "listening"),
  pathAt(3, "standby", "pending"),
];

/** The volume, served to these hosts; null: to nobody. */
function published(hosts: readonly string[] | null): Volume {
  const { target: _target, ...spec } = volume.spec;
  if (hosts === null) return { ...volume, spec };
  const frontend_nodes = hosts.map((nqn) => ({ name: nqn, nqn }));
  return {
    ...volume,
    spec: { ...spec, target: { node: "node-1", protocol: "nvmf", frontend_nodes } },
  };
}

/** A host, on which lines can be run. */
function host() {
  const kernel = new PlayedKernel();
  const state = join(newFolder(), "host.json");
  const run = async (line: string, answers: Answers = {}) => {
    const api = apiStandIn(answers);
    open.push(api);
    const out: string[] = [];
    const err: string[] = [];
    const context = {
      print: (text: string) => out.push(text),
      printError: (text: string) => err.push(text),
      env: { TRILITH_REST: api.url },
      sleep: () => Bun.sleep(0),
    };
    const verb = {
      name: "host",
      summary: "",
      usesApi: true,
      load: async () => (given: CliContext) => hostCommand(given, kernel),
    } as const;
    // Commander reads the environment of the process for options that have a variable.
    const args = [...line.split(" "), "--state", state];
    const status = await runCli("trilith", ["host", ...args], context, [verb]);
    expect(api.problems).toEqual([]);
    return { status, out: out.join("\n"), err: err.join("\n"), asked: api.asked };
  };
  return { kernel, state, run };
}

const connectLine = `connect ${VOLUME} --host-nqn ${HOST}`;
const served = (hosts: readonly string[] | null): Answers => ({
  [`GET /volumes/${VOLUME}`]: { body: published(hosts) },
  [`GET /volumes/${VOLUME}/paths`]: { body: paths },
  [target]: { body: published([HOST]) },
});

describe("connect", () => {
  test("publishes a volume that nobody serves, to this host, and connects what is listening", async () => {
    const { kernel, run, state } = host();
    const { status, out, err, asked } = await run(connectLine, served(null));
    expect([status, out]).toEqual([0, "/dev/nvme0n1"]);
    expect(asked.find(({ method }) => method === "PUT")?.body).toEqual({
      publish_context: {},
      protocol: "nvmf",
      frontend_node: HOST,
    });
    expect(kernel.connections.map(({ address }) => address)).toEqual(["10.0.0.1", "10.0.0.2"]);
    expect(kernel.connections[0]!.options).toEqual({
      ctrlLossTmoSeconds: 1980,
      reconnectDelaySeconds: 2,
      keepAliveTmoSeconds: 5,
    });
    expect(err).toContain("systemctl enable --now trilith-host");
    expect(readState(state).volumes).toHaveLength(1);
  });

  test("leaves one that is published where it is, and says nothing of an agent that runs", async () => {
    for (const hosts of [[], [HOST], ["nqn.other", HOST]]) {
      const { run, state } = host();
      const give = takeKeeping(state);
      const { status, err, asked } = await run(connectLine, served(hosts));
      give!();
      expect([status, err]).toEqual([0, ""]);
      expect(asked.some(({ method }) => method !== "GET")).toBe(false);
    }
  });

  test("refuses one that is published to others, and moves nothing", async () => {
    const { kernel, run } = host();
    const { status, err, asked } = await run(connectLine, served(["nqn.other"]));
    expect(status).toBe(6);
    expect(err).toContain(`volume ${VOLUME} is published to nqn.other, not to ${HOST}`);
    expect(err).toContain(`trilith unpublish volume ${VOLUME}`);
    expect(asked.some(({ method }) => method !== "GET")).toBe(false);
    expect(kernel.connections).toEqual([]);
  });

  test("passes on what it is told of the connections", async () => {
    const { kernel, run } = host();
    const options =
      "--ctrl-loss-tmo -1 --reconnect-delay 3 --keep-alive-tmo 9 --fast-io-fail-tmo 30 " +
      "--io-queues 4 --queue-depth 64 --hdr-digest --data-digest";
    expect((await run(`${connectLine} ${options}`, served([HOST]))).status).toBe(0);
    expect(kernel.connections[0]!.options).toEqual({
      ctrlLossTmoSeconds: -1,
      reconnectDelaySeconds: 3,
      keepAliveTmoSeconds: 9,
      fastIoFailTmoSeconds: 30,
      ioQueues: 4,
      queueDepth: 64,
      headerDigest: true,
      dataDigest: true,
    });
    for (const wrong of ["--ctrl-loss-tmo -2", "--reconnect-delay 0", "--io-queues x"]) {
      expect((await run(`${connectLine} ${wrong}`)).status).toBe(2);
    }
    expect((await run("connect pvc-1")).status).toBe(2);
  });

  test("says what the kernel lacks before it asks for anything, and what cannot be reached", async () => {
    const { kernel, run, state } = host();
    kernel.missing = missingModule();
    const missing = await run(connectLine);
    expect(missing.status).toBe(6);
    expect(missing.err).toContain("modprobe nvme-tcp");
    expect(missing.asked).toEqual([]);
    kernel.missing = null;
    for (const n of [1, 2]) {
      const path = { address: `10.0.0.${n}`, port: 8420 };
      kernel.unreachable.set(path.address, fabricsError(path, "ECONNREFUSED", ""));
    }
    const refused = await run(connectLine, served([HOST]));
    expect(refused.status).toBe(9);
    expect(refused.err).toContain("10.0.0.1:8420 was refused");
    expect(readState(state).volumes).toEqual([]);
  });
});

describe("list", () => {
  test("shows a line for each path, and says by its status whether all is well", async () => {
    const { kernel, run } = host();
    expect(await run("list")).toMatchObject({
      status: 0,
      out: "VOLUME  DEVICE  SIZE  PATH  CONTROLLER  STATE  ANA",
    });
    await run(connectLine, served([HOST]));
    const well = await run("list");
    expect([well.status, well.out.split("\n").length]).toEqual([0, 3]);
    expect(well.out).toContain("10.0.0.1:8420");
    kernel.set({ ...kernel.controllers.get("nvme0")!, state: "connecting" });
    const lost = await run("list");
    expect(lost.status).toBe(9);
    expect(lost.out).toContain("connecting");
    const json = await run("list -o json");
    expect(json.status).toBe(9);
    expect(JSON.parse(json.out)).toHaveLength(1);
  });
});

describe("disconnect", () => {
  test("lets go, and unpublishes when it is told to", async () => {
    const { kernel, run, state } = host();
    await run(connectLine, served([HOST]));
    const { status, out, asked } = await run(`disconnect ${VOLUME}`);
    expect([status, out, asked]).toEqual([0, `Volume ${VOLUME} disconnected`, []]);
    expect([kernel.controllers.size, readState(state).volumes.length]).toEqual([0, 0]);
    const gone = { [`DELETE /volumes/${VOLUME}/target`]: { body: published(null) } };
    const also = await run(`disconnect ${VOLUME} --unpublish`, gone);
    expect([also.status, also.asked.length]).toEqual([0, 1]);
  });

  test("is refused while the device is in use: then nothing is unpublished either", async () => {
    const { kernel, run } = host();
    await run(connectLine, served([HOST]));
    kernel.inUse = ["it is mounted at /mnt"];
    const refused = await run(`disconnect ${VOLUME} --unpublish`);
    expect([refused.status, refused.asked]).toEqual([6, []]);
    expect(refused.err).toContain("it is mounted at /mnt");
    expect((await run(`disconnect ${VOLUME} --force`)).status).toBe(0);
  });
});
