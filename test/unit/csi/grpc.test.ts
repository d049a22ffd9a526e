/** The gRPC server: its socket, its answers, its errors, and what a handler learns of its caller. */
import { afterEach, describe, expect, test } from "bun:test";
import { lstatSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { Controller, Identity } from "../../../src/csi/generated/csi_pb.js";
import { serveGrpc } from "../../../src/csi/grpc/server.ts";
import { type Call, type Handlers, serviceOf } from "../../../src/csi/grpc/service.ts";
import { identityService } from "../../../src/csi/identity-service.ts";
import { TrilithError } from "../../../src/errors.ts";
import type { Log } from "../../../src/ops/log.ts";
import { csiClient, statusCodeOf } from "../../support/csi-client.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const silent: Log = () => {};
const newFolder = tempFolders();
const stops: (() => unknown)[] = [];

afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

const socketPath = () => join(newFolder(), "csi.sock");

async function served(path: string, handlers: Partial<Handlers<typeof Controller>>) {
  const identity = identityService({
    driverName: "csi.example.org",
    client: null,
    roles: { controller: true },
  });
  const services = [serviceOf(Identity, identity, silent), serviceOf(Controller, handlers, silent)];
  const server = await serveGrpc({ path, what: "CSI", services, log: silent });
  stops.push(() => server.stop());
  const controller = csiClient(Controller, path);
  stops.push(() => controller.close());
  return { server, controller };
}

describe("the socket", () => {
  test("is for its owner alone, and gone when the server has stopped", async () => {
    const path = socketPath();
    const { server } = await served(path, {});
    expect(statSync(path).isSocket()).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await server.stop();
    expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });

  test("of a process that was killed is replaced; one that is answered at is left alone", async () => {
    const path = socketPath();
    const other = createServer().listen(path);
    await new Promise((resolve) => other.once("listening", resolve));
    const refused = serveGrpc({ path, what: "CSI", services: [], log: silent });
    expect(await refused.catch((error: unknown) => error)).toMatchObject({ code: "InUse" });
    expect(lstatSync(path).isSocket()).toBe(true);
    await new Promise((resolve) => other.close(resolve));
    // What a killed process leaves: a socket that nobody listens at.
    const made = Bun.spawnSync([
      process.execPath,
      "-e",
      `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`,
    ]);
    expect(made.signalCode).toBe("SIGKILL");
    expect(lstatSync(path).isSocket()).toBe(true);
    const { controller } = await served(path, { listVolumes: async () => ({}) });
    expect((await controller.listVolumes({})).entries).toEqual([]);
  });

  test("does not take the place of a file", async () => {
    const path = socketPath();
    writeFileSync(path, "kept");
    const refused = serveGrpc({ path, what: "CSI", services: [], log: silent });
    expect(await refused.catch((error: unknown) => error)).toMatchObject({ code: "InUse" });
    rmSync(path);
  });

  test("with too long a path is refused in words", async () => {
    const path = join(newFolder(), "x".repeat(100), "csi.sock");
    const refused = serveGrpc({ path, what: "CSI", services: [], log: silent });
    expect(await refused.catch((error: unknown) => error)).toMatchObject({
      code: "InvalidArgument",
    });
  });
});

describe("calls", () => {
  test("are answered with what the handler says", async () => {
    const path = socketPath();
    await served(path, {});
    const identity = csiClient(Identity, path);
    stops.push(() => identity.close());
    expect((await identity.getPluginInfo({})).name).toBe("csi.example.org");
    expect((await identity.probe({})).ready).toBe(true);
    const { capabilities } = await identity.getPluginCapabilities({});
    expect(capabilities.map(({ type }) => type.case)).toEqual([
      "service",
      "service",
      "volumeExpansion",
      "volumeExpansion",
    ]);
  });

  test("without a handler are UNIMPLEMENTED", async () => {
    const { controller } = await served(socketPath(), {});
    const error = await controller.createVolume({}).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: status.UNIMPLEMENTED,
      details: "CreateVolume is not offered by this driver",
    });
  });

  test("that fail end with the error's status, and say in one line what to do", async () => {
    const { controller } = await served(socketPath(), {
      deleteVolume: () => {
        throw new TrilithError("InUse", "volume 1\nis in use", "détach it");
      },
      listVolumes: () => Promise.reject(new Error("a defect")),
    });
    const error = await controller.deleteVolume({}).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: status.FAILED_PRECONDITION,
      details: "volume 1 is in use (détach it)",
    });
    const defect = await controller.listVolumes({}).catch((reason: unknown) => reason);
    expect(defect).toMatchObject({ code: status.INTERNAL, details: "internal error: a defect" });
  });

  for (const how of ["deadline", "cancel"] as const) {
    test(`tell the handler when the caller has gone by ${how}`, async () => {
      const seen = Promise.withResolvers<Call>();
      const { controller } = await served(socketPath(), {
        listVolumes: (_request, call) => {
          seen.resolve(call);
          return new Promise((_resolve, reject) => {
            call.signal.addEventListener("abort", () => reject(call.signal.reason));
          });
        },
      });
      const ending = new AbortController();
      const answer = controller.listVolumes(
        {},
        how === "deadline" ? { deadlineMs: 200 } : { signal: ending.signal },
      );
      const code = statusCodeOf(answer);
      const call = await seen.promise;
      ending.abort();
      const expected = { deadline: status.DEADLINE_EXCEEDED, cancel: status.CANCELLED };
      expect(await code).toBe(expected[how]);
      if (!call.signal.aborted) {
        await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      }
      expect(call.signal.reason).toMatchObject({ code: "Aborted" });
    });
  }

  test("that are answered leave their signal alone", async () => {
    const signals: AbortSignal[] = [];
    const { controller, server } = await served(socketPath(), {
      listVolumes: async (_request, { signal }) => {
        signals.push(signal);
        return {};
      },
    });
    await Promise.all(Array.from({ length: 20 }, () => controller.listVolumes({})));
    await server.stop();
    expect(signals.map(({ aborted }) => aborted)).toEqual(Array(20).fill(false));
  });
});
