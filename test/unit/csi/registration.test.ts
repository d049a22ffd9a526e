/** The plugin-registration protocol, as the kubelet speaks it. */
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { Registration } from "../../../src/csi/generated/pluginregistration_pb.js";
import { keepRegistered } from "../../../src/csi/registration.ts";
import type { Log } from "../../../src/ops/log.ts";
import { csiClient } from "../../support/csi-client.ts";
import { until } from "../../support/engine-process.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const newFolder = tempFolders();
const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

function registered() {
  const folder = newFolder();
  const socket = join(folder, "plugins_registry", "csi.example.org-reg.sock");
  const said: string[] = [];
  const log: Log = (level, text) => void said.push(`${level}: ${text}`);
  const endpoint = join(folder, "plugins/csi.example.org/csi.sock");
  const options = { socket, driverName: "csi.example.org", endpoint, log, lookMs: 10 };
  const start = () => {
    const kept = keepRegistered(options);
    stops.push(() => kept.stop());
    return kept;
  };
  return { socket, endpoint, said, start };
}

const isThere = (socket: string) =>
  until(
    "the socket",
    () => existsSync(socket),
    (found) => found,
  );

async function asked(socket: string) {
  const kubelet = csiClient(Registration, socket);
  try {
    return await kubelet.getInfo({});
  } finally {
    kubelet.close();
  }
}

test("the kubelet is told which driver it is, and where it answers", async () => {
  const { socket, endpoint, said, start } = registered();
  mkdirSync(dirname(socket));
  const kept = start();
  await isThere(socket);
  expect(statSync(socket).mode & 0o777).toBe(0o600);
  expect(await asked(socket)).toMatchObject({
    type: "CSIPlugin",
    name: "csi.example.org",
    endpoint,
    supportedVersions: ["1.0.0"],
  });
  const kubelet = csiClient(Registration, socket);
  await kubelet.notifyRegistrationStatus({ pluginRegistered: true });
  await kubelet.notifyRegistrationStatus({ pluginRegistered: false, error: "no" });
  kubelet.close();
  expect(said).toContain("info: the kubelet has registered the driver");
  expect(said.some((line) => line.startsWith("error: the kubelet refuses"))).toBe(true);
  await kept.stop();
  expect(existsSync(socket)).toBe(false);
});

test("a kubelet that comes later, or makes its folder anew, finds the driver again", async () => {
  const { socket, said, start } = registered();
  start();
  await until(
    "that it waits",
    () => said.join("\n"),
    (text) => text.includes("waits for the kubelet"),
  );
  // Said once, however often it is looked.
  expect(said.filter((line) => line.includes("waits")).length).toBe(1);
  mkdirSync(dirname(socket));
  await isThere(socket);
  expect((await asked(socket)).name).toBe("csi.example.org");
  rmSync(dirname(socket), { recursive: true });
  mkdirSync(dirname(socket));
  await isThere(socket);
  expect((await asked(socket)).name).toBe("csi.example.org");
});
