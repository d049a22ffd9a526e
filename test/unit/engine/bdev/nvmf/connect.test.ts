/** Connecting to a controller: negotiation, Connect, enabling, identification, and their refusals. */
import { describe, expect, test } from "bun:test";
import { openBdev } from "../../../../../src/engine/bdev/open.ts";
import { parseBdevUri } from "../../../../../src/engine/bdev/uri.ts";
import { TrilithError } from "../../../../../src/errors.ts";
import { withReactor } from "../../../../support/reactor.ts";
import { FAKE_NQN, FAKE_UUID, type FakeTarget } from "./fake-target.ts";
import { HOST, type Setting, withFakeTarget } from "./setting.ts";

function codeOf(error: unknown): string {
  if (!(error instanceof TrilithError)) throw error;
  return error.code;
}

/** Opens and expects a refusal with this code, and every connection closed. */
async function refused(s: Setting, code: string, parameters = ""): Promise<TrilithError> {
  const error = await s.openError({}, parameters);
  expect(codeOf(error)).toBe(code);
  await s.until("connections are closed", () => s.target.open.length === 0);
  return error as TrilithError;
}

const connectOf = (target: FakeTarget, queueId: number) =>
  target.commands.find((c) => c.fabricsType === 1 && c.dwords[0]! >>> 16 === queueId)!;

describe("opening", () => {
  test("connects, identifies and shuts down", () => {
    withFakeTarget(async (s) => {
      const bdev = await s.open({ keepAliveMs: 15_000, queueDepth: 64 });
      expect(bdev.driver).toBe("nvmf");
      expect(bdev.blockSize).toBe(512);
      expect(bdev.blockCount).toBe(8192);
      expect(bdev.uuid).toBe(FAKE_UUID);
      expect(bdev.volatileCache).toBe(true);
      expect(bdev.discardZeroes).toBe(true);
      expect(bdev.state).toBe("live");
      expect(bdev.hostNqn).toBe(HOST.nqn);
      const parsed = parseBdevUri(bdev.uri);
      expect(parsed).toMatchObject({ driver: "nvmf", nqn: FAKE_NQN, uuid: FAKE_UUID });

      const admin = connectOf(s.target, 0);
      expect(admin.dwords[2]).toBe(15_000);
      expect(admin.data.byteLength).toBe(1024);
      const text = (from: number) =>
        Buffer.from(admin.data.subarray(from, from + 256))
          .toString()
          .replace(/\0+$/, "");
      expect(Buffer.from(admin.data.subarray(0, 16)).toString("hex")).toBe(
        HOST.id.replaceAll("-", ""),
      );
      expect(admin.data[16]! | (admin.data[17]! << 8)).toBe(0xffff);
      expect(text(256)).toBe(FAKE_NQN);
      expect(text(512)).toBe(HOST.nqn);
      const io = connectOf(s.target, 1);
      expect(io.data[16]! | (io.data[17]! << 8)).toBe(7); // the controller id just given
      expect(io.dwords[1]! & 0xffff).toBe(64); // SQSIZE is 0-based: 64 commands fit 65 entries
      expect(io.dwords[2]).toBe(0);

      await bdev.close();
      const sets = s.target.commands.filter((c) => c.fabricsType === 0 && c.dwords[1] === 0x14);
      expect(sets.map((c) => c.dwords[2]! & 0xc001)).toEqual([1, 0x4001]);
      await s.until("connections are closed", () => s.target.open.length === 0);
    });
  });

  test("opens as many I/O queues as are wanted and granted", () => {
    withFakeTarget(async (s) => {
      s.target.facts.queuesGranted = 3;
      const bdev = await s.open({}, "?queues=5");
      expect(s.target.open.map((c) => c.queueId)).toEqual([0, 1, 2, 3]);
      await bdev.close();
      const two = await s.open({ queues: 2 });
      expect(s.target.open.map((c) => c.queueId)).toEqual([0, 1, 2]);
      await two.close();
    });
  });

  test("keeps the queue within what the controller allows", () => {
    withFakeTarget(async (s) => {
      s.target.facts.mqes = 15;
      const bdev = await s.open({ queueDepth: 128 });
      expect(connectOf(s.target, 1).dwords[1]! & 0xffff).toBe(15);
      await bdev.close();
    });
  });

  test("takes the first active namespace when there is no number 1", () => {
    withFakeTarget(async (s) => {
      s.target.facts.nsids = [4, 9];
      const bdev = await s.open();
      expect(bdev.name.endsWith("n4")).toBe(true);
      await bdev.close();
    });
  });

  test("waits until the controller is ready", () => {
    withFakeTarget(async (s) => {
      s.target.facts.csts = 0;
      let looks = 0;
      s.target.onCommand = (c) => {
        if (c.fabricsType === 4 && c.dwords[1] === 0x1c && ++looks === 3) s.target.facts.csts = 1;
        return false;
      };
      const bdev = await s.open();
      expect(looks).toBe(3);
      await bdev.close();
    });
  });
});

describe("refusals while opening", () => {
  test("a host name, no host NQN, an unknown open device", () => {
    withReactor(async (reactor) => {
      const named = "nvmf+tcp://storage-1:8420/nqn.x";
      const error = await openBdev(reactor, named, { host: HOST }).catch((e: unknown) => e);
      expect(codeOf(error)).toBe("InvalidArgument");
      expect((error as TrilithError).message).toContain('"storage-1"');
      const noHost = await openBdev(reactor, "nvmf://127.0.0.1/nqn.x").catch((e: unknown) => e);
      expect(codeOf(noHost)).toBe("InvalidArgument");
      const open = await openBdev(reactor, "bdev:///disk").catch((e: unknown) => e);
      expect(codeOf(open)).toBe("NotFound");
    });
  });

  test("nobody listens", () => {
    withFakeTarget(async (s) => {
      await s.target.stop();
      const error = await s.openError();
      expect(codeOf(error)).toBe("Unavailable");
      expect((error as TrilithError).message).toContain("nobody listens");
    });
  });

  test("no answer to the negotiation", () => {
    withFakeTarget(async (s) => {
      s.target.onIcRequest = () => true;
      expect(codeOf(await s.openError({ connectTimeoutMs: 20 }))).toBe("Timeout");
      await s.until("connections are closed", () => s.target.open.length === 0);
    });
  });

  test("the connection ends during the negotiation", () => {
    withFakeTarget(async (s) => {
      s.target.onIcRequest = (connection) => {
        connection.stream.close("test");
        return true;
      };
      await refused(s, "Unavailable");
    });
  });

  test("another PDU version, too small a MAXH2CDATA, digests that were not asked for", () => {
    withFakeTarget(async (s) => {
      const { facts } = s.target;
      facts.icVersion = 1;
      await refused(s, "Unavailable");
      facts.icVersion = 0;
      facts.icMaxH2c = 2048;
      await refused(s, "Unavailable");
      facts.icMaxH2c = 4096;
      facts.icAlign = 32;
      await refused(s, "Unavailable");
      facts.icAlign = 0;
      facts.icHeaderDigest = true;
      await refused(s, "Unavailable");
      const statuses = s.target.connections.map((c) => c.termStatus);
      expect(statuses).toEqual([6, 1, 1, 6]);
    });
  });

  test("digests that are wanted and not granted", () => {
    withFakeTarget(async (s) => {
      s.target.facts.icDataDigest = false;
      await refused(s, "Unavailable", "?ddgst=true");
    });
  });

  test("a response before the negotiation is a sequence error", () => {
    withFakeTarget(async (s) => {
      s.target.onIcRequest = (connection) => {
        connection.respond(0);
        return true;
      };
      await refused(s, "Unavailable");
      expect(s.target.connections[0]!.termStatus).toBe(2);
    });
  });

  const connectRefusals: readonly (readonly [string, number, number, string])[] = [
    ["an unknown subsystem", 0x4182, (1 << 16) | 256, "NotFound"],
    ["another wrong parameter", 0x4182, 44, "InvalidArgument"],
    ["a host that is not admitted", 0x4184, 0, "PermissionDenied"],
    ["a busy controller", 0x181, 0, "Unavailable"],
    ["authentication", 0x4191, 0, "PermissionDenied"],
    ["an internal error", 0x006, 0, "Unavailable"],
  ];
  for (const [what, status, dword0, code] of connectRefusals) {
    test(`Connect is answered with ${what}`, () => {
      withFakeTarget(async (s) => {
        s.target.onCommand = (c) => {
          if (c.fabricsType !== 1) return false;
          c.connection.respond(c.cid, status, dword0);
          return true;
        };
        await refused(s, code);
      });
    });
  }

  test("Connect succeeds but authentication is to follow", () => {
    withFakeTarget(async (s) => {
      s.target.onCommand = (c) => {
        if (c.fabricsType !== 1) return false;
        c.connection.respond(c.cid, 0, (1 << 16) | 7);
        return true;
      };
      await refused(s, "PermissionDenied");
    });
  });

  test("the second queue is refused: the first is closed too", () => {
    withFakeTarget(async (s) => {
      s.target.onCommand = (c) => {
        if (c.fabricsType !== 1 || c.dwords[0]! >>> 16 !== 2) return false;
        c.connection.respond(c.cid, 0x101);
        return true;
      };
      await refused(s, "Unavailable", "?queues=2");
      expect(s.target.connections.length).toBe(3);
    });
  });

  test("fatal controller status; never ready", () => {
    withFakeTarget(async (s) => {
      s.target.facts.csts = 2;
      await refused(s, "Unavailable");
      s.target.facts.csts = 0;
      const error = await refused(s, "Timeout");
      expect(error.message).toContain("not ready");
    });
  });

  test("no namespace, an inactive one, metadata, odd block sizes", () => {
    withFakeTarget(async (s) => {
      const { facts } = s.target;
      facts.nsids = [];
      await refused(s, "NotFound");
      facts.nsids = [1];
      facts.blockCount = 0;
      await refused(s, "NotFound");
      facts.blockCount = 100;
      facts.metadataBytes = 8;
      await refused(s, "Unimplemented");
      facts.metadataBytes = 0;
      facts.blockShift = 10;
      await refused(s, "Unimplemented");
    });
  });

  test("another UUID than the URI's", () => {
    withFakeTarget(async (s) => {
      const right = await s.open({}, `?uuid=${FAKE_UUID}`);
      await right.close();
      const error = await refused(s, "Conflict", `?uuid=${FAKE_UUID.replace("6", "7")}`);
      expect(error.message).toContain(FAKE_UUID);
    });
  });

  test("an admin command is never answered", () => {
    withFakeTarget(async (s) => {
      s.target.onCommand = (c) => c.opcode === 0x06;
      const error = await s.openError({ adminTimeoutMs: 20 });
      expect(codeOf(error)).toBe("Unavailable");
      expect((error as TrilithError).message).toContain("timed out");
      await s.until("connections are closed", () => s.target.open.length === 0);
    });
  });
});
