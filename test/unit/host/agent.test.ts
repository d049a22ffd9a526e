/** The agent of a host over a kernel that is played: what is connected, kept, followed and let go. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { TrilithError } from "../../../src/errors.ts";
import { Agent } from "../../../src/host/agent.ts";
import { fabricsError, missingModule } from "../../../src/host/fabrics.ts";
import type { ConnectRequest, VolumePath } from "../../../src/host/host.ts";
import type { PathSource } from "../../../src/host/path-book.ts";
import type { KnownPath } from "../../../src/host/plan.ts";
import { readState } from "../../../src/host/state-file.ts";
import { waitUntil } from "../../support/cluster.ts";
import { controller, HOST_NQN, NQN, PlayedKernel, VOLUME } from "../../support/host-kernel.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const newFolder = tempFolders();
const A = { address: "10.0.0.1", port: 8420 };
const B = { address: "10.0.0.2", port: 8420 };
const request: ConnectRequest = {
  volumeUuid: VOLUME,
  nqn: NQN,
  paths: [A],
  hostNqn: HOST_NQN,
  options: { ctrlLossTmoSeconds: 600 },
};

/** A cluster whose paths of the volume can be changed, and that tells when they are. */
class PlayedCluster implements PathSource {
  paths: readonly KnownPath[] | null;
  #changed: (volumeUuid: string | null) => void = () => {};

  constructor(paths: readonly VolumePath[] | null) {
    this.paths = paths?.map((path) => ({ ...path, isPending: false })) ?? null;
  }

  async ask(): Promise<readonly KnownPath[]> {
    if (this.paths === null) throw new TrilithError("Unavailable", "no leader");
    return this.paths;
  }

  follow(_signal: AbortSignal, changed: (volumeUuid: string | null) => void): void {
    this.#changed = changed;
  }

  move(...paths: VolumePath[]): void {
    this.paths = paths.map((path) => ({ ...path, isPending: false }));
    this.#changed(VOLUME);
  }
}

const open: Agent[] = [];
afterEach(() => {
  for (const agent of open.splice(0)) agent.close();
});

function played(source: PathSource | null = null, stateFile = join(newFolder(), "host.json")) {
  const kernel = new PlayedKernel();
  const said: string[] = [];
  const start = (): Agent => {
    const log = (_level: string, text: string) => void said.push(text);
    const agent = new Agent({ kernel, stateFile, source, log });
    open.push(agent);
    return agent;
  };
  return { kernel, said, stateFile, start, agent: start() };
}

const until = (what: string, isSo: () => boolean) => waitUntil(what, isSo, (so) => so);

describe("connecting", () => {
  test("resolves with the device, and may be repeated", async () => {
    const { agent, kernel, stateFile } = played();
    const volume = await agent.connect(request);
    expect(volume).toMatchObject({
      volumeUuid: VOLUME,
      nqn: NQN,
      device: "/dev/nvme0n1",
      sizeBytes: 1 << 26,
      paths: [{ controller: "nvme0", ...A, state: "live", ana: "optimized" }],
    });
    expect(await agent.connect(request)).toEqual(volume);
    expect(kernel.connections).toHaveLength(1);
    expect(kernel.connections[0]).toMatchObject({
      ...A,
      hostNqn: HOST_NQN,
      options: request.options,
    });
    expect(readState(stateFile).volumes.map(({ volumeUuid }) => volumeUuid)).toEqual([VOLUME]);
    expect(await agent.list()).toEqual([volume]);
  });

  test("takes the first path that serves, and goes on with the others", async () => {
    const { agent, kernel } = played();
    kernel.unreachable.set(A.address, fabricsError(A, "ECONNREFUSED", ""));
    const volume = await agent.connect({ ...request, paths: [A, B] });
    expect(volume.paths.map(({ address }) => address)).toEqual([B.address]);
  });

  test("in vain says why, and leaves nothing behind", async () => {
    const { agent, kernel, stateFile } = played();
    kernel.unreachable.set(A.address, fabricsError(A, "ECONNREFUSED", ""));
    const refused = await agent.connect(request).catch((error) => error);
    expect(refused).toBeInstanceOf(TrilithError);
    expect(refused).toMatchObject({ code: "Unavailable" });
    expect(refused.message).toContain("10.0.0.1:8420 was refused");
    expect(readState(stateFile).volumes).toEqual([]);
    kernel.missing = missingModule();
    const missing = await agent.connect(request).catch((error) => error);
    expect(missing).toMatchObject({ code: "FailedPrecondition" });
    expect(missing.remedy).toContain("modprobe nvme-tcp");
  });

  test("to what is not the volume is refused, and undone", async () => {
    const { agent, kernel, stateFile } = played();
    const foreign = "11111111-2222-4333-8444-555555555555";
    const namespaces = [{ name: "x", uuid: foreign, ana: "optimized" as const, sizeBytes: 1 }];
    const connect = kernel.connect.bind(kernel);
    kernel.connect = async (connection) => {
      const name = await connect(connection);
      kernel.set(controller(name, A, { namespaces }));
      return name;
    };
    const wrong = await agent.connect(request).catch((error) => error);
    expect(wrong).toMatchObject({ code: "FailedPrecondition" });
    expect(wrong.message).toContain(foreign);
    expect(kernel.controllers.size).toBe(0);
    expect(readState(stateFile).volumes).toEqual([]);
  });

  test("ends with its signal", async () => {
    const { agent, kernel, stateFile } = played();
    kernel.connect = () => new Promise(() => {});
    const aborter = new AbortController();
    const connecting = agent.connect(request, aborter.signal).catch((error) => error);
    await until("it being wanted", () => readState(stateFile).volumes.length === 1);
    aborter.abort();
    expect(await connecting).toMatchObject({ code: "Aborted" });
    expect(readState(stateFile).volumes).toEqual([]);
  });
});

describe("keeping", () => {
  test("makes again what the kernel has given up, at once", async () => {
    const { agent, kernel, said } = played();
    agent.keep();
    await agent.connect(request);
    kernel.drop("nvme0");
    await until("another connection", () => kernel.at(A.address).length === 1);
    expect(kernel.at(A.address)).toEqual(["nvme1"]);
    await until("all well", () => agent.problems().size === 0);
    expect(said).toContain("path connected");
  });

  test("tries again what fails, and says what is wrong until it is well", async () => {
    const { agent, kernel } = played();
    agent.keep();
    await agent.connect(request);
    kernel.unreachable.set(A.address, fabricsError(A, "EHOSTUNREACH", ""));
    kernel.drop("nvme0");
    await until("a problem", () => agent.problems().has(VOLUME));
    expect(agent.problems().get(VOLUME)).toMatchObject({ code: "Unavailable" });
    await until("attempts", () => kernel.connections.length >= 3);
    kernel.unreachable.clear();
    await until("all well", () => agent.problems().size === 0);
    expect(kernel.at(A.address)).toHaveLength(1);
  });

  test("follows the volume to where the cluster serves it", async () => {
    const cluster = new PlayedCluster([A]);
    const { agent, kernel, stateFile } = played(cluster);
    agent.keep();
    await agent.connect(request);
    cluster.move(A, B);
    await until("the other path", () => kernel.at(B.address).length === 1);
    // Another agent, after a restart, begins with what was known last.
    await until("the paths being kept", () => readState(stateFile).volumes[0]?.paths.length === 2);
    expect(kernel.removed).toEqual([]);
  });

  test("goes on after a restart, without a cluster that answers", async () => {
    const { agent, kernel, start } = played(new PlayedCluster(null));
    agent.keep();
    await agent.connect({ ...request, paths: [A, B] });
    await until("both paths", () => kernel.controllers.size === 2);
    agent.close();
    for (const name of kernel.controllers.keys()) kernel.drop(name);
    start().keep();
    await until("both paths again", () => kernel.controllers.size === 2);
  });

  test("is done by one agent at a time; another takes over when it ends", async () => {
    const { agent, kernel, start } = played();
    agent.keep();
    const second = start();
    second.keep();
    expect([agent.isKeeper, second.isKeeper]).toEqual([true, false]);
    await second.connect(request);
    agent.close();
    await until("the other keeping", () => second.isKeeper);
    kernel.drop("nvme0");
    await until("another connection", () => kernel.at(A.address).length === 1);
  }, 30_000);
});

describe("letting go", () => {
  test("ends all paths, and nobody makes them again", async () => {
    const { agent, kernel, stateFile } = played();
    agent.keep();
    await agent.connect({ ...request, paths: [A, B] });
    await agent.disconnect(VOLUME);
    expect(kernel.controllers.size).toBe(0);
    expect(readState(stateFile).volumes).toEqual([]);
    await agent.disconnect(VOLUME);
    expect(await agent.list()).toEqual([]);
  });

  test("is refused while the device is in use, unless it is forced", async () => {
    const { agent, kernel, stateFile } = played();
    await agent.connect(request);
    kernel.inUse = ["it is mounted at /mnt"];
    const refused = await agent.disconnect(VOLUME).catch((error) => error);
    expect(refused).toMatchObject({ code: "FailedPrecondition" });
    expect(refused.message).toContain("/dev/nvme0n1");
    expect(refused.message).toContain("it is mounted at /mnt");
    expect(kernel.removed).toEqual([]);
    expect(readState(stateFile).volumes).toHaveLength(1);
    await agent.disconnect(VOLUME, { force: true });
    expect(kernel.removed).toEqual(["nvme0"]);
  });

  test("a connection that is made meanwhile is taken back", async () => {
    const { agent, kernel } = played();
    agent.keep();
    const gate = Promise.withResolvers<void>();
    const connect = kernel.connect.bind(kernel);
    kernel.connect = async (connection) => {
      if (connection.address === B.address) await gate.promise;
      return connect(connection);
    };
    await agent.connect({ ...request, paths: [A, B] });
    await agent.disconnect(VOLUME);
    gate.resolve();
    await until("it being removed", () => kernel.removed.length === 2);
    expect(kernel.controllers.size).toBe(0);
  });

  test("at the end of the machine leaves what is in use, and what is wanted", async () => {
    const { agent, kernel, stateFile } = played();
    await agent.connect(request);
    kernel.inUse = ["it is mounted at /mnt"];
    expect(await agent.release()).toEqual(new Map([[VOLUME, ["it is mounted at /mnt"]]]));
    expect(kernel.controllers.size).toBe(1);
    kernel.inUse = [];
    expect(await agent.release()).toEqual(new Map());
    expect(kernel.controllers.size).toBe(0);
    expect(readState(stateFile).volumes).toHaveLength(1);
  });
});

describe("looking", () => {
  test("shows what others have connected, and what is wanted and is not there", async () => {
    const { agent, kernel } = played();
    kernel.set(controller("nvme0", A));
    kernel.set(controller("nvme1", A, { nqn: "nqn.2014-08.org.other:disk" }));
    expect((await agent.list()).map(({ volumeUuid }) => volumeUuid)).toEqual([VOLUME]);
    await agent.connect(request);
    kernel.drop("nvme0");
    expect(await agent.list()).toEqual([
      { volumeUuid: VOLUME, nqn: NQN, paths: [], device: null, sizeBytes: null },
    ]);
  });

  test("at a size that has grown waits for the kernel to see it", async () => {
    const { agent, kernel } = played();
    await agent.connect(request);
    kernel.rescan = async () => {
      kernel.sizeBytes = 1 << 27;
    };
    expect(await agent.rescan(VOLUME)).toBe(1 << 27);
    const nowhere = await agent.rescan("11111111-2222-4333-8444-555555555555").catch((e) => e);
    expect(nowhere).toMatchObject({ code: "NotFound" });
  });
});
