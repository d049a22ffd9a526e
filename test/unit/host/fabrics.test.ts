/** What is told to the kernel so that it connects, and what its answers mean. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { TrilithError } from "../../../src/errors.ts";
import {
  connectBlocking,
  type FabricsConnection,
  fabricsError,
  fabricsOptions,
  parseFabricsAnswer,
} from "../../../src/host/fabrics.ts";
import { defaultHostNqn, hostIdFor, readHostFacts } from "../../../src/host/identity.ts";
import { HOST_ID, HOST_NQN, NQN, threePaths } from "../../support/host-kernel.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const newFolder = tempFolders();

const connection: FabricsConnection = {
  address: "10.0.0.1",
  port: 8420,
  nqn: NQN,
  hostNqn: HOST_NQN,
  hostId: HOST_ID,
  options: {},
};

describe("a connection", () => {
  const basic = `transport=tcp,traddr=10.0.0.1,trsvcid=8420,nqn=${NQN},hostnqn=${HOST_NQN},hostid=${HOST_ID}`;

  test("is told as the kernel takes it; what is left out is the kernel's own", () => {
    expect(fabricsOptions(connection)).toBe(basic);
    const options = {
      ctrlLossTmoSeconds: -1,
      reconnectDelaySeconds: 2,
      keepAliveTmoSeconds: 5,
      fastIoFailTmoSeconds: 0,
      ioQueues: 2,
      queueDepth: 64,
      headerDigest: true,
      dataDigest: true,
    };
    expect(fabricsOptions({ ...connection, options })).toBe(
      `${basic},nr_io_queues=2,queue_size=64,ctrl_loss_tmo=-1,reconnect_delay=2,keep_alive_tmo=5,` +
        "fast_io_fail_tmo=0,hdr_digest,data_digest",
    );
    const off = { headerDigest: false, dataDigest: false };
    expect(fabricsOptions({ ...connection, options: off })).toBe(basic);
  });

  test("says nothing that the kernel would take for another option", () => {
    const wrong: Partial<FabricsConnection>[] = [
      { address: "node-1" },
      { address: "10.0.0.1,hostnqn=x" },
      { port: 0 },
      { nqn: `${NQN},ctrl_loss_tmo=0` },
      { nqn: "" },
      { hostNqn: "nqn.a b" },
      { hostId: "a,b" },
      { options: { ctrlLossTmoSeconds: -2 } },
      { options: { ioQueues: 1.5 } },
      { options: { reconnectDelaySeconds: 0 } },
      { options: { queueDepth: Number.NaN } },
    ];
    for (const part of wrong) {
      expect(() => fabricsOptions({ ...connection, ...part })).toThrow(TrilithError);
    }
  });

  test("is answered with the controller's number", () => {
    expect(parseFabricsAnswer("instance=3,cntlid=65\n")).toBe("nvme3");
    expect(parseFabricsAnswer("cntlid=65,instance=12")).toBe("nvme12");
    expect(() => parseFabricsAnswer("no instance=3")).toThrow(TrilithError);
    expect(() => parseFabricsAnswer("")).toThrow(TrilithError);
  });

  test("is made over one descriptor, and says by name why it was not", () => {
    const file = join(newFolder(), "device");
    expect(connectBlocking(basic, file)).toMatchObject({ error: "ENOENT" });
    // A file gives nothing to read behind what was written.
    writeFileSync(file, "");
    expect(connectBlocking(basic, file)).toMatchObject({ error: "Internal" });
    expect(connectBlocking(basic, "/dev/full")).toMatchObject({ error: "ENOSPC" });
  });

  test("that fails says what to do", () => {
    const of = (code: string) => fabricsError(connection, code, "it failed");
    const codes = ["ECONNREFUSED", "ETIMEDOUT", "EALREADY", "EACCES", "ENOENT", "EINVAL", "EIO"];
    expect(codes.map((code) => of(code).code)).toEqual([
      "Unavailable",
      "Unavailable",
      "AlreadyExists",
      "PermissionDenied",
      "FailedPrecondition",
      "FailedPrecondition",
      "Unavailable",
    ]);
    expect(of("ECONNREFUSED").message).toContain("10.0.0.1:8420");
    expect(of("ENOENT").remedy).toContain("modprobe nvme-tcp");
    expect(of("EIO").message).toContain("it failed");
  });
});

describe("who a host is", () => {
  const nobody = { nqn: null, id: null, machineId: null };
  const none = { controllers: [], disks: [] };
  const OTHER = "b37bbfe5-3d9c-4d7d-9a21-3b1b0b1d5f6a";

  test("stands in /etc/nvme, else in the machine's id", () => {
    expect(defaultHostNqn({ ...nobody, nqn: "nqn.a", id: OTHER })).toBe("nqn.a");
    expect(defaultHostNqn({ ...nobody, id: OTHER })).toBe(
      `nqn.2014-08.org.nvmexpress:uuid:${OTHER}`,
    );
    const derived = defaultHostNqn({ ...nobody, machineId: "abc" });
    expect(derived).toMatch(
      /^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
    );
    expect(defaultHostNqn({ ...nobody, machineId: "abc" })).toBe(derived);
    expect(defaultHostNqn({ ...nobody, machineId: "abd" })).not.toBe(derived);
    expect(() => defaultHostNqn(nobody)).toThrow(TrilithError);
    // The id that goes with it is the one in it.
    const facts = { ...nobody, machineId: "abc" };
    expect(derived).toEndWith(hostIdFor(derived, facts, none));
  });

  test("has one id for each NQN, and that of connections which are there", () => {
    const facts = { nqn: "nqn.a", id: OTHER, machineId: "m" };
    expect(hostIdFor("nqn.a", facts, none)).toBe(OTHER);
    const other = hostIdFor("nqn.b", facts, none);
    expect(other).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect([OTHER, hostIdFor("nqn.c", facts, none)]).not.toContain(other);
    expect(hostIdFor("nqn.b", facts, none)).toBe(other);
    expect(hostIdFor("nqn.b", { ...facts, nqn: null }, none)).toBe(OTHER);
    expect(hostIdFor(HOST_NQN, facts, none)).toBe(HOST_ID);
    expect(hostIdFor(HOST_NQN, { ...facts, nqn: HOST_NQN }, threePaths())).toBe(HOST_ID);
    expect(hostIdFor("nqn.b", { ...facts, nqn: "nqn.b", id: "no uuid" }, none)).toBe(other);
  });

  test("is read from files, of which any may be missing", () => {
    const root = newFolder();
    expect(readHostFacts(root)).toEqual(nobody);
    expect(readHostFacts(join(root, "none"))).toEqual(nobody);
  });
});
