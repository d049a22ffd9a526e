/**
 * Random requests to every route of a real engine's RPC: sound ones, ones with a field of another kind or
 * missing, and bodies that are nothing. Each is answered with what it asked for or with a typed error; the
 * engine lives on, and a replica that no request names keeps its bytes. `TRILITH_SEED` replays a run,
 * `TRILITH_FUZZ_ROUNDS` makes it longer.
 */
import { afterEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import * as v from "valibot";
import { engineContract } from "../../src/engine/rpc/contract.ts";
import { ErrorBodySchema } from "../../src/engine/rpc/fields.ts";
import type { Route } from "../../src/engine/rpc/route.ts";
import { facesOf } from "../../src/errors.ts";
import { EngineProcess, endEngines } from "../support/engine-process.ts";
import { type Random, withSeed } from "../support/random.ts";

const ROUNDS = Number(process.env.TRILITH_FUZZ_ROUNDS ?? 1200);
const TEST_MS = 600_000;
const MIB = 1 << 20;
/** Requests that have to be answered by then: a route that waits for ever is a defect. */
const ANSWER_MS = 60_000;

afterEach(endEngines);

/** Values that a field may be given, by its name; most of them name things that exist now and then. */
class Values {
  readonly #random: Random;
  readonly #uuids: readonly string[];
  readonly #disks: readonly string[];

  constructor(random: Random, uuids: readonly string[], disks: readonly string[]) {
    this.#random = random;
    this.#uuids = uuids;
    this.#disks = disks;
  }

  #nonsense(): unknown {
    return this.#random.pick<unknown>([
      null,
      true,
      -1,
      0.5,
      2 ** 53,
      1e308,
      "",
      "x".repeat(5000),
      "\u0000",
      "../../etc/passwd",
      "ünïcödé 🚀",
      [],
      [[[[]]]],
      {},
      { uuid: { uuid: null } },
    ]);
  }

  #uri(): string {
    const random = this.#random;
    const uuid = random.pick(this.#uuids);
    return random.pick([
      `malloc:///m${random.below(3)}?size_mb=${random.between(0, 16)}`,
      `malloc:///m0?size_mb=8&blk_size=${random.pick([512, 4096, 513])}`,
      `null:///n${random.below(3)}?size_mb=8`,
      `null:///n0?wrong=1`,
      random.pick(this.#disks),
      `uring://${random.pick(this.#disks)}`,
      `aio://${random.pick(this.#disks)}?blk_size=4096`,
      "/nowhere/at/all",
      "nvmf+tcp://127.0.0.1:1/nqn.2019-05.io.openebs:none",
      `bdev:///${uuid}?uuid=${uuid}`,
      "ftp://example.org/",
      "malloc:///",
      "%",
    ]);
  }

  /** A value that could be meant. */
  #meant(name: string): unknown {
    const random = this.#random;
    const pick = <T>(...from: T[]) => random.pick(from);
    switch (name) {
      case "name":
      case "poolName":
      case "exportName":
        return pick("pool", "other", "m0", "m1", "n0", "safe-no", random.pick(this.#uuids));
      case "id":
      case "entityId":
      case "txnId":
        return pick("one", "two");
      case "uri":
      case "childUri":
      case "disk":
        return this.#uri();
      case "disks":
        return pick([this.#uri()], [random.pick(this.#disks)], [], [this.#uri(), this.#uri()]);
      case "children":
        return [{ uri: this.#uri() }, { uri: this.#uri(), healthy: random.chance(0.5) }];
      case "sizeBytes":
        return pick(8 * MIB, 16 * MIB, 4096, 1, 2 ** 50, 0);
      case "clusterSizeBytes":
        return pick(MIB, 64 << 10, 4 * MIB, 12345, 2 ** 40);
      case "segmentBytes":
      case "bytesPerSecLimit":
        return pick(64 << 10, MIB, 3, 0);
      case "protocol":
        return pick("nvmf", "nbd", "iscsi");
      case "share":
        return pick("none", "nvmf");
      case "method":
        return pick("none", "write-zeroes", "checksum");
      case "anaState":
        return pick("optimized", "inaccessible", "non-optimized", "lost");
      case "allowedHosts":
        return pick([], ["nqn.2019-05.io.openebs:host"], ["no nqn"]);
      case "controllerIds":
        return pick({ min: 1, max: 2 }, { min: 9, max: 3 }, { min: 0, max: 70000 });
      case "epoch":
        return random.between(0, 5);
      case "thin":
      case "force":
      case "readOnly":
      case "healthy":
        return random.chance(0.5);
      case "waitMs":
        return pick(0, 5, 70_000);
      case "target":
        return pick<unknown>(
          { kind: "pool", name: "other" },
          { kind: "bdev", name: "m0" },
          { kind: "nothing" },
        );
      case "action":
        return pick<unknown>(
          { kind: "error" },
          { kind: "delay", delayMs: 1 },
          { kind: "stall" },
          { kind: "torn-write" },
        );
      default:
        return name.toLowerCase().includes("uuid") ? random.pick(this.#uuids) : random.below(10);
    }
  }

  of(name: string): unknown {
    return this.#random.chance(0.12) ? this.#nonsense() : this.#meant(name);
  }
}

interface Made {
  readonly method: string;
  readonly path: string;
  readonly body: string | undefined;
}

function fieldsOf(part: { readonly entries: object } | undefined): string[] {
  return part === undefined ? [] : Object.keys(part.entries);
}

function requestTo(route: Route, values: Values, random: Random): Made {
  const path = route.path.replace(/:(\w+)/g, (_all, name: string) =>
    encodeURIComponent(String(values.of(name)).slice(0, 2000)),
  );
  const query = new URLSearchParams();
  for (const name of fieldsOf(route.query)) {
    if (random.chance(0.5)) query.set(name, String(values.of(name)).slice(0, 500));
  }
  const search = query.size === 0 ? "" : `?${query}`;
  const body: Record<string, unknown> = {};
  for (const name of fieldsOf(route.body)) if (random.chance(0.8)) body[name] = values.of(name);
  if (random.chance(0.05)) body.surplus = values.of("surplus");
  let text: string | undefined = JSON.stringify(body);
  const isBodiless = route.body === undefined && (route.method === "GET" || random.chance(0.95));
  if (isBodiless) text = undefined;
  else if (random.chance(0.05)) {
    text = random.pick([
      "",
      "{",
      "[]",
      "null",
      '"text"',
      `{"a":${"[".repeat(500)}`,
      "\u0000\u0001",
    ]);
  }
  return { method: route.method, path: path + search, body: text };
}

/** Sends it; what is wrong with the answer, or null. */
async function problemWith(
  engine: EngineProcess,
  route: Route,
  made: Made,
): Promise<string | null> {
  const response = await fetch(engine.rpcUrl + made.path, {
    method: made.method,
    signal: AbortSignal.timeout(ANSWER_MS),
    ...(made.body === undefined
      ? {}
      : { body: made.body, headers: { "content-type": "application/json" } }),
  });
  const text = await response.text();
  if (response.ok) {
    if (route.result === undefined) return text === "" ? null : `an answer with a body: ${text}`;
    const parsed = v.safeParse(route.result, JSON.parse(text));
    return parsed.success ? null : `an answer of another shape: ${text}`;
  }
  const error = v.safeParse(ErrorBodySchema, JSON.parse(text));
  if (!error.success) return `an error of another shape: ${text}`;
  const { kind, message } = error.output;
  if (kind === "Internal") return `a defect: ${message}`;
  return facesOf(kind).http === response.status ? null : `${kind} with status ${response.status}`;
}

test(
  "every answer is what was asked for or a typed error, and nothing else is touched",
  () =>
    withSeed(import.meta.path, async (random) => {
      const engine = await new EngineProcess().start();
      const safe = randomUUID();
      await engine.rpc.createPool({ name: "safe", disks: [engine.disk("safe.img", 64 * MIB)] });
      await engine.rpc.createReplica({ uuid: safe, poolName: "safe", sizeBytes: 16 * MIB });
      const { checksum } = await engine.rpc.wipeReplica({ uuid: safe, method: "checksum" });
      const { pid } = await engine.rpc.getInfo();

      const uuids = Array.from({ length: 4 }, () => randomUUID());
      const disks = [engine.disk("a.img", 128 * MIB), engine.disk("b.img", 96 * MIB)];
      const values = new Values(random, uuids, disks);
      const routes = Object.entries<Route>(engineContract);
      for (let round = 0; round < ROUNDS; round++) {
        // Everything is asked in turn, so that short runs reach every route.
        const [name, route] = routes[round % routes.length]!;
        const made = requestTo(route, values, random);
        const problem = await problemWith(engine, route, made);
        if (problem !== null) throw new Error(`${name} ${JSON.stringify(made)}: ${problem}`);
      }
      expect((await engine.rpc.getInfo()).pid).toBe(pid);
      const again = await engine.rpc.wipeReplica({ uuid: safe, method: "checksum" });
      expect(again.checksum).toBe(checksum);
      expect(await engine.stop()).toBe(0);
    }),
  TEST_MS,
);
