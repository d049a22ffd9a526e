import { describe, expect, test } from "bun:test";
import {
  CONNECTIONS_MAX,
  DESCRIPTION_BYTES_MAX,
  EXPORT_NAME_BYTES_MAX,
  HANDSHAKE_TIMEOUT_MS,
  OPTION_BYTES_MAX,
  OPTION_SKIP_BYTES_MAX,
} from "../../../../src/engine/nbd/limits.ts";
import { NbdInfo, NbdOption, NbdReply } from "../../../../src/engine/nbd/protocol.ts";
import { TrilithError } from "../../../../src/errors.ts";
import { fields, lengthAndText, type NbdClient } from "../../../support/nbd-client.ts";
import { MEMORY_BYTES, type NbdFixture, withNbd } from "../../../support/nbd-fixture.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const go = (name: string, ...wanted: number[]) =>
  fields(lengthAndText(name), [16, wanted.length], ...wanted.map((w) => fields([16, w])));

/** Every flag of a writable export, without and with structured replies. */
const FLAGS = 1 | 4 | 8 | 32 | 64 | 256 | 2048;
const FLAGS_STRUCTURED = FLAGS | 128;

async function expectTransmission(client: NbdClient): Promise<void> {
  expect(await client.readSimple(0, 512)).toEqual(new Uint8Array(512));
}

describe("the greeting", () => {
  test("offers the fixed newstyle without padding", () => {
    withNbd(async (nbd) => {
      const client = await nbd.connect();
      expect(await client.greet()).toEqual(fields("NBDMAGICIHAVEOPT", [16, 3]));
    });
  });

  test("answered with unknown flags ends the connection", () => {
    withNbd(async (nbd) => {
      const client = await nbd.connect();
      await client.greet(4);
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("answered in single bytes is understood", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.take(18);
      const bytes = fields([32, 3], "IHAVEOPT", [32, NbdOption.ABORT], [32, 0]);
      for (const byte of bytes) await client.send(Uint8Array.of(byte));
      expect((await client.optionReply()).type).toBe(NbdReply.ACK);
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });
});

describe("EXPORT_NAME", () => {
  test.each([
    [3, 10],
    [1, 134],
    [0, 134],
  ])("with client flags %d is answered with %d bytes", (flags, length) => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet(flags);
      await client.sendOption(NbdOption.EXPORT_NAME, fields("volume"));
      const answer = await client.take(length);
      expect(answer.subarray(0, 10)).toEqual(fields([64, MEMORY_BYTES], [16, FLAGS]));
      expect(answer.subarray(10)).toEqual(new Uint8Array(length - 10));
      await expectTransmission(client);
    });
  });

  test("of an export that does not exist ends the connection", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      await client.sendOption(NbdOption.EXPORT_NAME, fields("another"));
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("and a request sent together are both answered", () => {
    withNbd(async (nbd) => {
      nbd.memory("odd");
      const client = await nbd.connect();
      await client.take(18);
      // The name is three bytes long, so the request behind it is not aligned.
      const option = fields("IHAVEOPT", [32, NbdOption.EXPORT_NAME], [32, 3], "odd");
      const request = fields([32, 0x25609513], [32, 0], [64, 5], [64, 0], [32, 512]);
      await client.send(fields([32, 3], option, request));
      await client.take(10);
      expect(await client.answer()).toEqual({ kind: "simple", error: 0, cookie: 5n });
      expect(await client.take(512)).toEqual(new Uint8Array(512));
    });
  });
});

describe("INFO and GO", () => {
  test("tell size, flags and block sizes, and what else was wanted", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume", { blockSize: 4096, description: "for humans" });
      const client = await nbd.connect();
      await client.greet();
      const wanted = [NbdInfo.NAME, NbdInfo.DESCRIPTION, NbdInfo.BLOCK_SIZE, 1000];
      const replies = await client.option(NbdOption.INFO, go("volume", ...wanted));
      expect(replies.map(({ type }) => type)).toEqual([3, 3, 3, 3, NbdReply.ACK]);
      const infos = new Map(
        replies.slice(0, -1).map(({ data }) => [data[1]!, data.subarray(2)] as const),
      );
      expect(infos.get(NbdInfo.EXPORT)).toEqual(fields([64, MEMORY_BYTES], [16, FLAGS]));
      expect(infos.get(NbdInfo.BLOCK_SIZE)).toEqual(fields([32, 4096], [32, 4096], [32, 1 << 20]));
      expect(text(infos.get(NbdInfo.NAME)!)).toBe("volume");
      expect(text(infos.get(NbdInfo.DESCRIPTION)!)).toBe("for humans");
      // INFO commits to nothing: the handshake goes on.
      await client.option(NbdOption.STRUCTURED_REPLY);
      const again = await client.option(NbdOption.GO, go("volume"));
      expect(again.map(({ type }) => type)).toEqual([3, 3, NbdReply.ACK]);
      expect(again[0]!.data.subarray(10)).toEqual(fields([16, FLAGS_STRUCTURED]));
    });
  });

  test("name what does not exist, and the client may ask again", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      for (const option of [NbdOption.INFO, NbdOption.GO]) {
        const [reply] = await client.option(option, go("another"));
        expect(reply!.type).toBe(NbdReply.ERR_UNKNOWN);
        expect(text(reply!.data)).toContain('"another"');
      }
      expect((await client.option(NbdOption.GO, go("")))[0]!.type).toBe(NbdReply.ERR_UNKNOWN);
      await client.option(NbdOption.GO, go("volume"));
      await expectTransmission(client);
    });
  });

  test("that are malformed are refused, and the client may ask again", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      const [reply] = await client.option(NbdOption.GO, fields([32, 99], "volume"));
      expect(reply!.type).toBe(NbdReply.ERR_INVALID);
      await client.option(NbdOption.GO, go("volume"));
      await expectTransmission(client);
    });
  });

  test("show a read-only export as such", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume", { readOnly: true });
      const client = await nbd.connect();
      await client.greet();
      const [info] = await client.option(NbdOption.INFO, go("volume"));
      expect(info!.data.subarray(10)).toEqual(fields([16, 1 | 2 | 4 | 8 | 256]));
    });
  });

  test("show the size that a device has grown to", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.gated("volume");
      bdev.blockCount = 1000;
      const client = await nbd.connect();
      await client.greet();
      const before = await client.option(NbdOption.INFO, go("volume"));
      bdev.blockCount = 2000;
      const after = await client.option(NbdOption.INFO, go("volume"));
      const sizes = [before, after].map(([r]) => new DataView(r!.data.buffer).getBigUint64(2));
      expect(sizes).toEqual([512_000n, 1_024_000n]);
    });
  });
});

describe("other options", () => {
  test("LIST names all exports, here and elsewhere", () => {
    withNbd(async (nbd) => {
      nbd.memory("one", { description: "the first" });
      nbd.memory("two");
      nbd.server.setRoutes(
        new Map([
          ["one", 0],
          ["two", 0],
          ["far", 3],
        ]),
      );
      const client = await nbd.connect();
      await client.greet();
      const replies = await client.option(NbdOption.LIST);
      const listed = replies.slice(0, -1).map(({ type, data }) => {
        expect(type).toBe(NbdReply.SERVER);
        const length = new DataView(data.buffer).getUint32(0);
        return [text(data.subarray(4, 4 + length)), text(data.subarray(4 + length))];
      });
      expect(listed).toEqual([
        ["one", "the first"],
        ["two", ""],
        ["far", ""],
      ]);
      expect((await client.option(NbdOption.LIST, fields([8, 0])))[0]!.type).toBe(
        NbdReply.ERR_INVALID,
      );
    });
  });

  test("LIST of very many exports arrives whole", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.memory("0");
      const names = Array.from({ length: 3000 }, (_, i) => `${i}`.padStart(200, "x"));
      for (const name of names) nbd.server.addExport({ name, bdev });
      const client = await nbd.connect();
      await client.greet();
      const replies = await client.option(NbdOption.LIST);
      const listed = replies.slice(0, -1).map(({ data }) => text(data.subarray(4)));
      expect(listed).toEqual(["0", ...names]);
    });
  });

  test("that nobody offers are refused politely", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      for (const option of [NbdOption.STARTTLS, NbdOption.EXTENDED_HEADERS, 4, 12, 0xffffffff]) {
        const [reply] = await client.option(option);
        expect(reply).toMatchObject({ option, type: NbdReply.ERR_UNSUP });
      }
      await client.option(NbdOption.GO, go("volume"));
      await expectTransmission(client);
    });
  });

  test("ABORT is acknowledged, data or not, and ends the connection", () => {
    withNbd(async (nbd) => {
      for (const data of [fields(), fields("good-bye")]) {
        const client = await nbd.connect();
        await client.greet();
        const [reply] = await client.option(NbdOption.ABORT, data);
        expect(reply!.type).toBe(NbdReply.ACK);
        expect(await client.rest()).toEqual(new Uint8Array(0));
      }
    });
  });

  test("STRUCTURED_REPLY takes no data", () => {
    withNbd(async (nbd) => {
      const client = await nbd.connect();
      await client.greet();
      const option = NbdOption.STRUCTURED_REPLY;
      expect((await client.option(option, fields([8, 1])))[0]!.type).toBe(NbdReply.ERR_INVALID);
      expect((await client.option(option))[0]!.type).toBe(NbdReply.ACK);
    });
  });

  test("from a client that does not know the fixed newstyle end the connection", () => {
    withNbd(async (nbd) => {
      const client = await nbd.connect();
      await client.greet(0);
      await client.sendOption(NbdOption.LIST);
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });
});

describe("metadata contexts", () => {
  const query = (name: string, ...queries: string[]) =>
    fields(lengthAndText(name), [32, queries.length], ...queries.map(lengthAndText));

  test("need structured replies and an export", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      const set = NbdOption.SET_META_CONTEXT;
      const data = query("volume", "base:allocation");
      expect((await client.option(set, data))[0]!.type).toBe(NbdReply.ERR_INVALID);
      await client.option(NbdOption.STRUCTURED_REPLY);
      expect((await client.option(set, query("another")))[0]!.type).toBe(NbdReply.ERR_UNKNOWN);
      expect((await client.option(set, fields([32, 1])))[0]!.type).toBe(NbdReply.ERR_INVALID);
    });
  });

  test("are listed and set", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      await client.option(NbdOption.STRUCTURED_REPLY);
      const { LIST_META_CONTEXT: list, SET_META_CONTEXT: set } = NbdOption;
      const cases: [number, string[], string[]][] = [
        [list, [], ["base:allocation"]],
        [list, ["base:"], ["base:allocation"]],
        [list, ["x-other:"], []],
        [set, ["base:allocation"], ["base:allocation"]],
        [set, ["base:", "x-other:y"], []],
        [set, [], []],
      ];
      for (const [option, queries, found] of cases) {
        const replies = await client.option(option, query("volume", ...queries));
        expect(replies.at(-1)!.type).toBe(NbdReply.ACK);
        const names = replies.slice(0, -1).map(({ data }) => text(data.subarray(4)));
        expect([option, queries, names]).toEqual([option, queries, found]);
      }
    });
  });
});

describe("bad input", () => {
  test("that is no option ends the connection", () => {
    withNbd(async (nbd) => {
      const client = await nbd.connect();
      await client.greet();
      await client.send(fields("GET / HTTP/1.1\r\n\r\n"));
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("too long an option is skipped, much too long a one ends the connection", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      const client = await nbd.connect();
      await client.greet();
      for (const length of [OPTION_BYTES_MAX + 1, OPTION_SKIP_BYTES_MAX]) {
        const [reply] = await client.option(NbdOption.INFO, new Uint8Array(length));
        expect(reply!.type).toBe(NbdReply.ERR_TOO_BIG);
      }
      await client.option(NbdOption.INFO, go("volume"));
      await client.send(fields("IHAVEOPT", [32, NbdOption.INFO], [32, OPTION_SKIP_BYTES_MAX + 1]));
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("too long a name of an export ends the connection", () => {
    withNbd(async (nbd) => {
      const client = await nbd.connect();
      await client.greet();
      await client.send(
        fields("IHAVEOPT", [32, NbdOption.EXPORT_NAME], [32, OPTION_BYTES_MAX + 1]),
      );
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("silence ends the connection, options keep it", () => {
    withNbd(async (nbd) => {
      const { reactor } = nbd;
      const passMs = (ms: number) => {
        reactor.now += ms * 1e6;
        reactor.timers.runDue(reactor.now);
      };
      const client = await nbd.connect();
      await client.greet();
      await client.option(NbdOption.LIST);
      passMs(HANDSHAKE_TIMEOUT_MS - 5_000);
      await client.option(NbdOption.LIST);
      expect(nbd.server.connections.size).toBe(1);
      passMs(HANDSHAKE_TIMEOUT_MS + 1);
      expect(await client.rest()).toEqual(new Uint8Array(0));
    });
  });

  test("a flood of connections is bounded", () => {
    withNbd(async (nbd) => {
      nbd.memory("volume");
      // Descriptors that are no sockets would do as well; pairs show that the last one is refused.
      const clients: NbdClient[] = [];
      for (let i = 0; i < CONNECTIONS_MAX; i++) clients.push(await nbd.connect());
      const late = await nbd.connect();
      expect(await late.rest()).toEqual(new Uint8Array(0));
      expect(nbd.server.connections.size).toBe(CONNECTIONS_MAX);
      await clients[0]!.enter("volume");
      await expectTransmission(clients[0]!);
    });
  });
});

describe("exports", () => {
  const errorOf = (run: () => unknown) => {
    try {
      run();
      return "none";
    } catch (error) {
      return error instanceof TrilithError ? error.code : String(error);
    }
  };

  test("are refused with a bad name, a bad description or twice", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.memory("volume");
      const add = (name: string, description = "") =>
        errorOf(() => nbd.server.addExport({ name, bdev, description }));
      expect(add("")).toBe("InvalidArgument");
      expect(add("a\0b")).toBe("InvalidArgument");
      expect(add("é".repeat(EXPORT_NAME_BYTES_MAX / 2 + 1))).toBe("InvalidArgument");
      expect(add("x", "y".repeat(DESCRIPTION_BYTES_MAX + 1))).toBe("InvalidArgument");
      expect(add("volume")).toBe("AlreadyExists");
      expect(add("x".repeat(EXPORT_NAME_BYTES_MAX))).toBe("none");
    });
  });

  test("come and go at run time", () => {
    withNbd(async (nbd) => {
      const bdev = nbd.memory("volume");
      await nbd.server.removeExport("volume");
      await expect(nbd.server.removeExport("volume")).rejects.toMatchObject({ code: "NotFound" });
      const client = await nbd.connect();
      await client.greet();
      expect((await client.option(NbdOption.GO, go("volume")))[0]!.type).toBe(NbdReply.ERR_UNKNOWN);
      nbd.server.addExport({ name: "volume", bdev });
      await client.option(NbdOption.GO, go("volume"));
      await expectTransmission(client);
    });
  });
});

describe("an export on another reactor", () => {
  /** A second server has the export; connections arrive at the first one. */
  async function withTwo(nbd: NbdFixture, body: (client: NbdClient) => Promise<void>) {
    const far = nbd.anotherServer();
    const bdev = nbd.memory("volume");
    await nbd.server.removeExport("volume");
    far.addExport({ name: "volume", bdev });
    nbd.server.setRoutes(new Map([["volume", 5]]));
    let moves = 0;
    nbd.handOver = (moved) => {
      expect(moved.reactorIndex).toBe(5);
      moves++;
      far.takeOver(moved);
    };
    await body(await nbd.connect());
    expect([moves, nbd.server.connections.size]).toEqual([1, 0]);
  }

  test("is reached with GO, and what was agreed on goes along", () => {
    withNbd((nbd) =>
      withTwo(nbd, async (client) => {
        await client.enter("volume", { structured: true, context: true });
        await client.request({ type: 7, offset: 0, length: 4096 });
        const answer = await client.answer();
        expect(answer).toMatchObject({ kind: "chunk", type: 5, flags: 1 });
      }),
    );
  });

  test("is reached with EXPORT_NAME while the greeting is still being sent", () => {
    withNbd((nbd) =>
      withTwo(nbd, async (client) => {
        const name = fields("IHAVEOPT", [32, NbdOption.EXPORT_NAME], [32, 6], "volume");
        await client.send(fields([32, 3], name));
        expect((await client.take(28)).subarray(18)).toEqual(
          fields([64, MEMORY_BYTES], [16, FLAGS]),
        );
        await expectTransmission(client);
      }),
    );
  });

  test("is reached with several options sent at once", () => {
    withNbd((nbd) =>
      withTwo(nbd, async (client) => {
        await client.greet();
        const info = go("volume");
        const head = (option: number, length: number) =>
          fields("IHAVEOPT", [32, option], [32, length]);
        await client.send(
          fields(
            head(NbdOption.LIST, 0),
            head(NbdOption.STRUCTURED_REPLY, 0),
            head(NbdOption.INFO, info.byteLength),
            info,
            head(NbdOption.GO, info.byteLength),
            info,
          ),
        );
        const types: number[] = [];
        while (types.filter((type) => type === NbdReply.ACK).length < 4) {
          types.push((await client.optionReply()).type);
        }
        expect(types).toEqual([2, 1, 1, 3, 3, 1, 3, 3, 1]);
        await client.request({ type: 0, length: 512 });
        expect(await client.answer()).toMatchObject({ kind: "chunk", type: 1 });
      }),
    );
  });

  test("that is not there after all is unknown, and the connection does not go in circles", () => {
    withNbd(async (nbd) => {
      const far = nbd.anotherServer();
      nbd.server.setRoutes(new Map([["volume", 5]]));
      far.setRoutes(new Map([["volume", 6]]));
      let moves = 0;
      nbd.handOver = (moved) => {
        moves++;
        (moved.reactorIndex === 5 ? far : nbd.server).takeOver(moved);
      };
      const client = await nbd.connect();
      await client.greet();
      expect((await client.option(NbdOption.GO, go("volume")))[0]!.type).toBe(NbdReply.ERR_UNKNOWN);
      expect(moves).toBe(1);
    });
  });
});
