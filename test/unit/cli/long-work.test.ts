import { describe, expect, test } from "bun:test";
import { onlyOn } from "../../../src/cli/shutdown.ts";
import type { Volume } from "../../../src/client/types.ts";
import type { Answers } from "../../support/api-stand-in.ts";
import {
  againstApi,
  node,
  nodes,
  pools,
  REPLICAS,
  runningRebuild,
  status,
  VOLUME,
  volume,
  volumes,
} from "./fixtures.ts";

const run = againstApi();

const draining = node("node-1", {
  cordondrainstate: { drainingstate: { cordonlabels: [], drainlabels: ["upgrade"] } },
});
const drained = node("node-1", {
  cordondrainstate: { drainedstate: { cordonlabels: [], drainlabels: ["upgrade"] } },
});
const free = node("node-1");

/** Answers one after another; the last one stays. */
function inTurn<T>(...bodies: T[]): () => { body: T } {
  let next = 0;
  return () => ({ body: bodies[Math.min(next++, bodies.length - 1)]! });
}

/** What is left on the node. */
const progress = (...remaining: object[]) => ({
  body: { node: "node-1", phase: "draining", remaining },
});

/** A clock that only pauses move. */
function steppedClock() {
  let nowMs = Date.parse("2026-11-21T10:00:00Z");
  const pauses: number[] = [];
  return {
    pauses,
    now: () => nowMs,
    sleep: async (ms: number) => {
      pauses.push(ms);
      nowMs += ms;
    },
  };
}

/** A terminal that keeps what is written. */
function terminal() {
  const written: string[] = [];
  return { written, columns: 80, rows: 24, write: (text: string) => written.push(text) };
}

describe("drain", () => {
  const line = "drain node node-1 upgrade";
  const idle = { "GET /nodes/node-1/drain": progress() };

  test("waits until the node is drained, looking every two seconds", async () => {
    const clock = steppedClock();
    const ran = await run(
      line,
      {
        "PUT /nodes/node-1/drain/upgrade": { body: draining },
        ...idle,
        "GET /nodes/node-1": inTurn(draining, draining, drained),
      },
      clock,
    );
    expect([ran.status, ran.out, ran.err]).toEqual([0, "Node node-1 successfully drained", ""]);
    expect(clock.pauses).toEqual([2000, 2000, 2000]);
  });

  test("is done at once where there is nothing to move", async () => {
    const ran = await run(`${line} --evacuate`, {
      "PUT /nodes/node-1/drain/upgrade": { body: drained },
    });
    expect(ran.out).toBe("Node node-1 successfully drained");
    expect(ran.api.asked[0]!.search).toBe("?evacuate=true");
  });

  test("notices that somebody has cancelled it", async () => {
    const ran = await run(line, {
      "PUT /nodes/node-1/drain/upgrade": { body: draining },
      ...idle,
      "GET /nodes/node-1": { body: free },
    });
    expect([ran.status, ran.out]).toEqual([0, "Node node-1 drain has been cancelled"]);
  });

  test("stops waiting after its time, and says that it goes on", async () => {
    const clock = steppedClock();
    const ran = await run(
      `${line} --drain-timeout 5s`,
      { "PUT /nodes/node-1/drain/upgrade": { body: draining }, ...idle, "*": { body: draining } },
      clock,
    );
    expect(ran.status).toBe(10);
    expect(ran.out).toBe("Node node-1 drain command timed out");
    expect(ran.err).toContain("The drain goes on");
    expect(clock.pauses).toEqual([2000, 2000, 1000]);
  });

  test("stops waiting at Ctrl-C, leaves the drain going, and says how to stop it", async () => {
    let interrupt: () => void = () => {};
    let released = false;
    const ran = await run(
      line,
      { "PUT /nodes/node-1/drain/upgrade": { body: draining }, ...idle, "*": { body: draining } },
      {
        onInterrupt: (act) => {
          interrupt = act;
          return () => {
            released = true;
          };
        },
        // The pause never ends: only the interrupt does.
        sleep: () => {
          queueMicrotask(() => interrupt());
          return new Promise(() => {});
        },
      },
    );
    expect(ran.status).toBe(130);
    expect(ran.err).toContain("the drain of node node-1 goes on");
    expect(ran.err).toContain("trilith uncordon node node-1 upgrade");
    expect(released).toBe(true);
    // Nothing was sent to stop it.
    expect(ran.api.asked.map(({ method }) => method)).toEqual(["PUT", "GET"]);
  });

  test("stops waiting at Ctrl-C also before the cluster has answered", async () => {
    let interrupt: () => void = () => {};
    let answer: () => void = () => {};
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const ran = await run(
      line,
      {
        "PUT /nodes/node-1/drain/upgrade": async () => {
          interrupt();
          await answered;
          return { body: draining };
        },
      },
      {
        onInterrupt: (act) => {
          interrupt = act;
          return () => {};
        },
      },
    );
    answer();
    expect(ran.status).toBe(130);
    expect(ran.err).toContain("the drain of node node-1 goes on");
  });

  test("shows on a terminal what is left, and wipes it away at the end", async () => {
    const screen = terminal();
    const ran = await run(
      `${line} --evacuate`,
      {
        "PUT /nodes/node-1/drain/upgrade": { body: draining },
        ...idle,
        "GET /nodes/node-1": { body: drained },
        "GET /status": { body: status },
      },
      { terminal: screen },
    );
    expect(ran.out).toBe("Node node-1 successfully drained");
    const shown = screen.written.join("");
    expect(shown).toContain("draining node-1: 1 volume target and 2 replicas left");
    expect(shown).toEndWith("\r\u001b[K");
  });

  test("says what cannot leave and why, once, and what is left when it stops waiting", async () => {
    const waitsFor = "no node can serve it; node node-2 is cordoned (upgrade)";
    const stuck = { kind: "target", uuid: VOLUME, volume: VOLUME, waitsFor, isStuck: true };
    const copied = { kind: "replica", uuid: REPLICAS[0], volume: VOLUME, isStuck: false };
    const ran = await run(
      `${line} --drain-timeout 5s`,
      {
        "PUT /nodes/node-1/drain/upgrade": { body: draining },
        "GET /nodes/node-1/drain": progress(stuck, { ...copied, waitsFor: "its copy in p (7 %)" }),
        "GET /nodes/node-1": { body: draining },
      },
      steppedClock(),
    );
    expect(ran.status).toBe(10);
    const lines = ran.err.split("\n");
    expect(lines.filter((one) => one.includes("cannot leave"))).toEqual([
      `volume ${VOLUME} cannot leave: ${waitsFor}`,
    ]);
    expect(lines).toContain(`volume ${VOLUME} waits for ${waitsFor}`);
    expect(lines).toContain(
      `replica ${REPLICAS[0]} of volume ${VOLUME} waits for its copy in p (7 %)`,
    );
  });

  test("prints the node at its end with -o json", async () => {
    const ran = await run(`${line} -o json`, {
      "PUT /nodes/node-1/drain/upgrade": { body: draining },
      ...idle,
      "GET /nodes/node-1": { body: drained },
    });
    expect(JSON.parse(ran.out)).toEqual(drained);
  });
});

describe("node shutdown", () => {
  const labelled = (drainlabels: string[]) =>
    node("node-1", { cordondrainstate: { drainedstate: { cordonlabels: [], drainlabels } } });
  const [first, second] = REPLICAS;
  const copies = (secondState: string): object => ({
    ...volume,
    state: {
      ...volume.state,
      replica_topology: {
        [first]: { node: "node-1", pool: "pool-1", state: "Online", healthy: true },
        [second]: { node: "node-2", pool: "pool-2", state: secondState, healthy: true },
      },
    },
  });
  const answers = (secondState: string): Answers => ({
    "GET /volumes": { body: { entries: [copies(secondState)] } },
    "PUT /nodes/node-1/drain/shutdown": { body: labelled(["shutdown"]) },
  });

  test("drains the node, and says that it can be switched off", async () => {
    const ran = await run("node shutdown node-1 --safe", answers("Online"));
    expect([ran.status, ran.out]).toEqual([0, "Node node-1 successfully drained"]);
    expect(ran.err).toContain("Node node-1 can be switched off");
    expect(ran.err).toContain("trilith uncordon node node-1 shutdown");
  });

  test("is refused for the only good copy, unless the risk is accepted by name", async () => {
    const refused = await run("node shutdown node-1 --safe", answers("Unknown"));
    expect(refused.status).not.toBe(0);
    expect(refused.err).toContain(`the only good copy of volume ${VOLUME}`);
    expect(refused.err).toContain("--accept-risk=node-1");
    expect(refused.api.asked.map(({ method }) => method)).toEqual(["GET"]);
    const wrong = await run("node shutdown node-1 --safe --accept-risk=node-2", answers("Unknown"));
    expect(wrong.status).toBe(2);
    const accepted = await run(
      "node shutdown node-1 --safe --accept-risk=node-1",
      answers("Unknown"),
    );
    expect(accepted.status).toBe(0);
    // Another node may go: the copy on it is not the last one.
    expect(onlyOn([copies("Unknown") as Volume], "node-2")).toEqual([]);
  });

  test("says nothing of the kind when somebody has cancelled the drain", async () => {
    const ran = await run("node shutdown node-1 --safe", {
      ...answers("Online"),
      "PUT /nodes/node-1/drain/shutdown": { body: free },
    });
    expect(ran.out).toBe("Node node-1 drain has been cancelled");
    expect(ran.err).not.toContain("switched off");
  });

  test("has to be asked for by its name", async () => {
    expect((await run("node shutdown node-1", answers("Online"))).status).toBe(2);
  });
});

describe("wait", () => {
  const of = (state: string, more: object = {}) => ({
    ...volume,
    state: { ...volume.state, status: state, ...more },
  });
  const copies = Object.fromEntries(
    REPLICAS.map((id, index) => [
      id,
      { node: `node-${index + 1}`, pool: `pool-${index + 1}`, state: "Online" },
    ]),
  );
  const healthy = of("Online", { target: null, replica_topology: copies });
  const { target: _target, ...unpublishedState } = healthy.state;
  const online = { ...healthy, state: unpublishedState };

  test("ends when the condition holds", async () => {
    const ran = await run(`wait volume ${VOLUME} --for Online`, {
      [`GET /volumes/${VOLUME}`]: inTurn(of("Degraded"), of("Degraded"), online),
    });
    expect([ran.status, ran.out]).toEqual([0, `Volume ${VOLUME} is online`]);
    expect(ran.api.asked).toHaveLength(3);
  });

  test("takes the words of kubectl", async () => {
    const ran = await run(`wait volume ${VOLUME} --for condition=Degraded`, {
      [`GET /volumes/${VOLUME}`]: { body: volume },
    });
    expect(ran.out).toBe(`Volume ${VOLUME} is degraded`);
  });

  test("waits for what is not there yet, and for what is to go", async () => {
    const missing = {
      status: 404,
      body: { kind: "NotFound", message: "there is no pool", details: "" },
    };
    let asked = 0;
    const appears = await run("wait pool pool-1 --for online", {
      "GET /pools/pool-1": () => (++asked < 3 ? missing : { body: pools[0] }),
    });
    expect(appears.out).toBe("Pool pool-1 is online");
    asked = 0;
    const goes = await run("wait pool pool-1 --for deleted", {
      "GET /pools/pool-1": () => (++asked < 3 ? { body: pools[0] } : missing),
    });
    expect(goes.out).toBe("Pool pool-1 is deleted");
  });

  test("gives up after its time and says how it is", async () => {
    const ran = await run(
      "wait node node-3 --for online --wait-timeout 2s",
      { "GET /nodes/node-3": { body: nodes[2] } },
      steppedClock(),
    );
    expect(ran.status).toBe(10);
    expect(ran.err).toBe(
      "error: node node-3 is not online after 2s: Offline, Cordoned\n  see why: trilith status",
    );
  });

  const conditions: [line: string, body: unknown, holds: boolean][] = [
    [`volume ${VOLUME} --for published`, volume, true],
    [`volume ${VOLUME} --for unpublished`, volume, false],
    [`volume ${VOLUME} --for rebuilt`, volume, false],
    [`volume ${VOLUME} --for rebuilt`, online, true],
    [
      `volume ${VOLUME} --for rebuilt`,
      { ...online, spec: { ...online.spec, num_replicas: 4 } },
      false,
    ],
    ["node node-1 --for drained", drained, true],
    ["node node-1 --for drained", draining, false],
    ["node node-1 --for offline", draining, false],
    ["pool pool-1 --for empty", pools[0], false],
  ];
  for (const [line, body, holds] of conditions) {
    test(`${line} ${holds ? "holds" : "does not hold"}`, async () => {
      const ran = await run(`wait ${line} --wait-timeout 1s`, { "*": { body } }, steppedClock());
      expect(ran.status).toBe(holds ? 0 : 10);
    });
  }

  test("does not wait for what cannot be", async () => {
    const ran = await run("wait pool p --for happy", {});
    expect(ran.status).toBe(2);
    expect(ran.err).toContain("one of: online, degraded, faulted, empty, deleted");
  });
});

describe("status", () => {
  const answers: Answers = { "GET /status": { body: status } };

  test("is one screen", async () => {
    const ran = await run("status", answers);
    expect(ran.status).toBe(0);
    expect(`\n${ran.out}\n`).toMatchSnapshot();
  });

  test("says what to do when there is no pool yet, and no leader", async () => {
    const { leader: _leader, ...leaderless } = status.cluster;
    const fresh = {
      ...status,
      cluster: leaderless,
      pools: [],
      warnings: [],
      volumes: { ...status.volumes, total: 0, byStatus: {}, attention: [] },
      rebuilds: { total: 0, running: [] },
    };
    const ran = await run("status", { "GET /status": { body: fresh } });
    expect(ran.out).toContain("no leader: nothing can be changed");
    expect(ran.out).toContain("trilith create pool <name> <disk> --node <node>");
    expect(ran.out).toContain("Rebuilds  none");
    expect(ran.out).toEndWith("No warnings");
  });

  test("prints the object, and an exit status for scripts", async () => {
    const ran = await run("status -o json --exit-code", answers);
    expect(JSON.parse(ran.out)).toEqual(status);
    expect(ran.status).toBe(6);
  });

  test("shows as many rows as a screen has, and counts the others", async () => {
    const many = {
      ...status,
      warnings: Array.from({ length: 25 }, (_, index) => ({
        ...status.warnings[0]!,
        subject: `pool/p${index}`,
      })),
    };
    const ran = await run("status", { "GET /status": { body: many } });
    expect(ran.out).toContain("pool/p19:");
    expect(ran.out).not.toContain("pool/p20:");
    expect(ran.out).toContain("… and 5 more: trilith status -o json");
  });

  test("is shown again and again with --watch until Ctrl-C, also while there is none", async () => {
    let interrupt: () => void = () => {};
    let shown = 0;
    const screen = terminal();
    const ran = await run(
      "status --watch --interval 3s",
      {
        "GET /status": inTurn<unknown>(status, status),
      },
      {
        terminal: screen,
        onInterrupt: (act) => {
          interrupt = act;
          return () => {};
        },
        sleep: async (ms) => {
          expect(ms).toBe(3000);
          if (++shown === 2) interrupt();
        },
      },
    );
    expect(ran.status).toBe(0);
    expect(screen.written.filter((text) => text.startsWith("\u001b[H\u001b[2J"))).toHaveLength(2);
  });

  test("has colours on a terminal, unless the user does not want them", async () => {
    const coloured = await run("status", answers, { terminal: terminal() });
    expect(coloured.out).toContain("\u001b[31mcritical\u001b[0m");
    expect(Bun.stripANSI(coloured.out)).toBe((await run("status", answers)).out);
    const plain = await run("status", answers, { terminal: terminal(), env: { NO_COLOR: "1" } });
    expect(plain.out).not.toContain("\u001b");
  });
});

describe("a move", () => {
  const gone = { ...volume, state: { ...volume.state, replica_topology: {} } };
  const move = `POST /volumes/${VOLUME}/replicas/${REPLICAS[0]}/move`;

  test("finds the volume by itself, and waits with its progress shown", async () => {
    const screen = terminal();
    const ran = await run(
      `move replica ${REPLICAS[0]} --wait`,
      {
        "GET /volumes": { body: volumes },
        [move]: { status: 202, body: volume },
        [`GET /volumes/${VOLUME}`]: inTurn(volume, gone),
        [`GET /volumes/${VOLUME}/rebuilds`]: {
          body: { volume: VOLUME, running: [runningRebuild], history: [] },
        },
      },
      { terminal: screen },
    );
    expect(ran.out).toBe(`Replica ${REPLICAS[0]} moved`);
    expect(screen.written.join("")).toContain("[##########----------] 50%");
  });

  test("of a replica that no volume has is refused", async () => {
    const ran = await run(`move replica ${VOLUME}`, { "GET /volumes": { body: volumes } });
    expect(ran.status).toBe(4);
  });

  test("goes on when the user does not wait", async () => {
    let interrupt: () => void = () => {};
    const ran = await run(
      `move replica ${REPLICAS[0]} --volume ${VOLUME} --wait`,
      { [move]: { status: 202, body: volume }, [`GET /volumes/${VOLUME}`]: { body: volume } },
      {
        onInterrupt: (act) => {
          interrupt = act;
          return () => {};
        },
        sleep: () => {
          interrupt();
          return new Promise(() => {});
        },
      },
    );
    expect(ran.status).toBe(130);
    expect(ran.err).toContain("goes on");
  });
});

describe("rebuilds of a volume", () => {
  const path = `GET /volumes/${VOLUME}/rebuilds`;
  test("are shown while they run", async () => {
    const ran = await run(`rebuild volume ${VOLUME}`, {
      [path]: { body: { volume: VOLUME, running: [runningRebuild], history: [] } },
    });
    expect(ran.out).toBe("[##########----------] 50%  5GiB of 10GiB  100MiB/s  52s left");
  });

  test("are not needed, or do not go on", async () => {
    const none = { body: { volume: VOLUME, running: [], history: [] } };
    const idle = await run(`rebuild volume ${VOLUME}`, {
      [path]: none,
      [`GET /volumes/${VOLUME}`]: { body: volume },
    });
    expect(idle.status).toBe(6);
    const well = { ...volume, state: { ...volume.state, status: "Online" } };
    const done = await run(`rebuild volume ${VOLUME}`, {
      [path]: none,
      [`GET /volumes/${VOLUME}`]: { body: well },
    });
    expect(done.out).toContain("nothing to rebuild");
  });
});
