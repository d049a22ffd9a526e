/**
 * csi-sanity on the node service, where there is a kernel with an NVMe/TCP host: driver and csi-sanity run
 * in a guest, against a cluster of three nodes.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { csiSanity } from "../../images/csi-sanity.mjs";
import { SET_UP_TIMEOUT_MS, TEST_TIMEOUT_MS } from "../initiator/limits.ts";
import { Guest, quote } from "../initiator/vm.ts";
import { Cluster, endClusters, waitUntil } from "../support/cluster.ts";
import { outcomesOf, sanityCommand, sanityFiles } from "../support/csi-sanity.ts";

const MIB = 1 << 20;
const HOST = "kubelet-a";
const PROGRAM = "/opt/csi-sanity";
const DRIVER_LOG = "/tmp/driver.log";
const options = {
  socket: "/run/csi.sock",
  folder: "/run/sanity",
  parameters: { repl: "2" },
  volumeBytes: 64 * MIB,
  expandBytes: 96 * MIB,
  focus: "Node Service",
};

setDefaultTimeout(TEST_TIMEOUT_MS);

describe.skipIf(csiSanity() === null)("csi-sanity on the node service", () => {
  let guest: Guest;
  let cluster: Cluster;

  beforeAll(async () => {
    const boot = async () => {
      guest = await Guest.boot();
      await guest.install();
      await guest.copyIn(csiSanity()!, PROGRAM, "755");
    };
    [cluster] = await Promise.all([Cluster.start(3), boot()]);
    for (const node of cluster.nodes) {
      await cluster.createPool(node, `pool-${node.name}`, 1_024 * MIB);
    }
    await guest.ok(
      `mkdir -p /var/lib/kubelet/plugins_registry
      trilith csi --node-name ${HOST} --rest ${cluster.nodes[0]!.restUrl} --csi-socket "$1" \\
        --log-level debug >${DRIVER_LOG} 2>&1 3<&- &`,
      { args: [options.socket] },
    );
    await waitUntil(
      "the host being known",
      () => cluster.rest.appNode(HOST),
      ({ id }) => id === HOST,
    );
  }, SET_UP_TIMEOUT_MS);

  afterAll(async () => {
    await guest?.stop();
    await endClusters();
  });

  test("finds no fault", async () => {
    const files = sanityFiles(options);
    const output = await guest.ok(
      `mkdir -p "$1"; printf %s "$2" >"$3"
      ${sanityCommand(PROGRAM, options).map(quote).join(" ")} >/tmp/sanity.log 2>&1 || true
      cat "$4" || { tail -n 50 /tmp/sanity.log ${DRIVER_LOG}; exit 1; }`,
      {
        args: [options.folder, JSON.stringify(options.parameters), files.parameters, files.report],
        timeoutMs: TEST_TIMEOUT_MS,
      },
    );
    const outcomes = outcomesOf(output);
    const failed = outcomes.filter(({ state }) => state === "failed");
    for (const { name, failure } of failed) console.log(`${name}\n${failure}\n`);
    if (failed.length > 0) console.log(await guest.ok(`tail -n 100 ${DRIVER_LOG}`));
    expect(failed.map(({ name }) => name)).toEqual([]);
    const passed = outcomes.filter(({ state }) => state === "passed");
    console.log(`csi-sanity: ${passed.length} tests of the node service`);
    // So that a run of nothing does not pass.
    expect(passed.length).toBeGreaterThan(20);
  });

  test("leaves no mount, connection, record, volume or publication behind", async () => {
    const left = await guest.ok(
      "grep -E 'sanity|nvme' /proc/self/mountinfo || true; ls /sys/class/nvme /run/trilith/csi",
    );
    expect(left.split("\n").filter((line) => !line.endsWith(":") && line !== "")).toEqual([]);
    expect((await cluster.rest.volumes()).map(({ spec }) => spec.uuid)).toEqual([]);
    expect(guest.complaints()).toEqual([]);
  });
});
