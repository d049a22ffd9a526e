/** When a host tells the cluster of paths that it has lost. */
import { describe, expect, test } from "bun:test";
import type { PathReportBody } from "../../../src/client/types.ts";
import { REPORT_AGAIN_MS, REPORT_RETRY_MS } from "../../../src/host/limits.ts";
import type { DesiredVolume } from "../../../src/host/plan.ts";
import { PathReporter } from "../../../src/host/reporter.ts";
import { controller, HOST_NQN, NQN, VOLUME } from "../../support/host-kernel.ts";

const A = { address: "10.0.0.1", port: 8420 };
const B = { address: "10.0.0.2", port: 8420 };
const volume = (hostNqn = HOST_NQN): DesiredVolume => ({
  wanted: { volumeUuid: VOLUME, nqn: NQN, hostNqn, options: {}, paths: [] },
  paths: [A, B].map((path) => ({ ...path, isPending: false })),
  isConfirmed: true,
});
const well = [controller("nvme0", A), controller("nvme1", B)];
const lost = [controller("nvme0", A), controller("nvme1", B, { state: "connecting" })];
const stateOf = (report: PathReportBody | undefined) =>
  report?.volumes.flatMap(({ paths }) => paths.map(({ state }) => state));

function reporting() {
  const sent: PathReportBody[] = [];
  const failures: unknown[] = [];
  const world = { nowMs: 0, error: null as Error | null };
  const reporter = new PathReporter({
    hostName: "app",
    nowMs: () => world.nowMs,
    failed: (error) => failures.push(error),
    send: async (report) => {
      sent.push(report);
      if (world.error !== null) throw world.error;
    },
  });
  const observe = async (controllers = lost, volumes = [volume()]) => {
    reporter.observe(volumes, { controllers, disks: [] });
    await Bun.sleep(0);
  };
  return { sent, failures, world, observe };
}

describe("a host's reports", () => {
  test("are not made while all is well", async () => {
    const { sent, observe } = reporting();
    await observe(well);
    await observe([], []);
    expect(sent).toEqual([]);
  });

  test("come at once, again after a while, and once more when all is well", async () => {
    const { sent, world, observe } = reporting();
    await observe();
    expect(sent).toHaveLength(1);
    expect(sent[0]).toMatchObject({ host: HOST_NQN, name: "app" });
    expect(stateOf(sent[0])).toEqual(["live", "lost"]);
    world.nowMs += REPORT_AGAIN_MS - 1;
    await observe();
    expect(sent).toHaveLength(1);
    world.nowMs += 1;
    await observe();
    expect(sent).toHaveLength(2);
    world.nowMs += REPORT_RETRY_MS;
    await observe(well);
    expect(sent[2]?.volumes).toEqual([]);
    world.nowMs += REPORT_AGAIN_MS;
    await observe(well);
    expect(sent).toHaveLength(3);
  });

  test("of something new wait a moment for the one before", async () => {
    const { sent, world, observe } = reporting();
    await observe();
    await observe([]);
    expect(sent).toHaveLength(1);
    world.nowMs += REPORT_RETRY_MS;
    await observe([]);
    expect(stateOf(sent[1])).toEqual(["lost", "lost"]);
  });

  test("that were not taken are made again", async () => {
    const { sent, failures, world, observe } = reporting();
    world.error = new Error("no leader");
    await observe();
    expect(failures).toEqual([world.error]);
    world.error = null;
    world.nowMs += REPORT_RETRY_MS;
    await observe();
    expect(sent).toHaveLength(2);
    expect(failures).toHaveLength(1);
  });

  test("are each of one host NQN, and end with its volumes", async () => {
    const { sent, world, observe } = reporting();
    const other = "nqn.2014-08.org.example:other";
    await observe(lost, [volume(), volume(other)]);
    expect(sent.map(({ host }) => host)).toEqual([HOST_NQN, other]);
    world.nowMs += REPORT_RETRY_MS;
    await observe(lost, [volume()]);
    expect(sent.slice(2)).toEqual([{ host: other, name: "app", volumes: [] }]);
  });
});
