/** Joining and leaving, over real sockets, raft and store: what is to work, and what is to be refused. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import type { StoreView } from "../../../../src/control/cluster-state.ts";
import type { DataDir } from "../../../../src/control/membership/data-dir.ts";
import { openDataDir } from "../../../../src/control/membership/data-dir.ts";
import { initCluster } from "../../../../src/control/membership/init.ts";
import { joinCluster } from "../../../../src/control/membership/join-client.ts";
import {
  createToken,
  removeMember,
  transferLeadership,
} from "../../../../src/control/membership/operations.ts";
import { recoverCluster } from "../../../../src/control/membership/recover.ts";
import { freePort, until } from "../../../support/membership.ts";
import {
  type MembershipNode,
  type MembershipNodeOptions,
  startMembershipNode,
} from "../../../support/membership-node.ts";
import { tempFolders } from "../../../support/temp-folder.ts";

const folder = tempFolders();
const running = new Set<MembershipNode>();
afterEach(async () => {
  for (const node of [...running].reverse()) await node.stop();
  running.clear();
});

async function start(dataDir: DataDir, options?: MembershipNodeOptions): Promise<MembershipNode> {
  const node = await startMembershipNode(dataDir, options);
  running.add(node);
  return node;
}

async function stop(node: MembershipNode): Promise<void> {
  running.delete(node);
  await node.stop();
}

async function newNode(base: string, nodeId: string) {
  return {
    dataDir: join(base, nodeId),
    nodeId,
    peerEndpoint: `127.0.0.1:${await freePort()}`,
    engineEndpoint: "127.0.0.1:10124",
    nowMs: Date.now(),
  };
}

/** A cluster of one node that leads. */
async function firstNode(base: string, options?: MembershipNodeOptions, nodeId = "n1") {
  const node = await start(await initCluster(await newNode(base, nodeId)), options);
  await until("it leads and is written down", () => node.store.view().nodes.has(nodeId));
  return node;
}

async function tokenOf(node: MembershipNode, validMs = 60_000): Promise<string> {
  const made = await createToken({ ...node, now: Date.now }, "join", validMs, "");
  return made.token;
}

async function joining(
  base: string,
  nodeId: string,
  contact: MembershipNode,
  token: string,
): Promise<DataDir> {
  return joinCluster({
    ...(await newNode(base, nodeId)),
    contact: contact.dataDir.identity.peerEndpoint,
    token,
    hostNqn: "nqn.test",
    version: "1",
    timeoutMs: 5_000,
  });
}

async function joined(base: string, nodeId: string, contact: MembershipNode, leader = contact) {
  const node = await start(await joining(base, nodeId, contact, await tokenOf(leader)));
  await until(`${nodeId} has a vote and the state`, () => {
    const { voters } = node.raft.status();
    return voters.includes(node.dataDir.identity.raftId) && node.store.view().nodes.has(nodeId);
  });
  return node;
}

/** Tables of nodes, tokens and settings: what a refused join must not change. */
function contents(view: StoreView): string {
  return JSON.stringify([[...view.nodes], [...view.tokens], [...view.settings]]);
}

/** Runs a join that is to be refused; checks that nothing has changed anywhere. */
async function refused(leader: MembershipNode, dataDir: string, act: () => Promise<unknown>) {
  const before = contents(leader.store.view());
  const error = await act().then(
    () => new Error("it was let in"),
    (failure: unknown) => failure as Error & { code?: string },
  );
  expect(contents(leader.store.view())).toBe(before);
  expect(existsSync(join(dataDir, "cluster/identity.json"))).toBe(false);
  return error as Error & { code?: string };
}

describe("joining", () => {
  test("makes a learner, then a voter, with its own certificate and the authority's key", async () => {
    const base = folder();
    const first = await firstNode(base);
    const second = await joined(base, "n2", first);
    const { identity } = second.dataDir;
    expect(identity).toMatchObject({
      clusterId: first.dataDir.identity.clusterId,
      nodeId: "n2",
      raftId: "2",
      isFirst: false,
    });
    expect(second.dataDir.authority()).toEqual(first.dataDir.authority());
    for (const secret of ["ca.key", "node.pem", "identity.json"]) {
      expect(statSync(join(second.dataDir.path, "cluster", secret)).mode & 0o777).toBe(0o600);
    }
    expect(statSync(join(second.dataDir.path, "cluster")).mode & 0o777).toBe(0o700);
    // A third one through the follower: its join goes to the leader.
    const third = await joined(base, "n3", second, first);
    expect(third.raft.status().voters.toSorted()).toEqual(["1", "2", "3"]);
    expect(third.dataDir.members().map(({ nodeId }) => nodeId)).toEqual(["n1", "n2", "n3"]);
    // Secrets appear in no log.
    const key = first.dataDir.authority().keyPem.split("\n")[1]!;
    for (const node of [first, second, third]) {
      expect(node.lines.filter((line) => line.includes(key) || /tj1\./.test(line))).toEqual([]);
    }
  });

  test("goes on where it was interrupted, with the same token and key", async () => {
    const base = folder();
    let isBroken = true;
    const first = await firstNode(base, {
      intercept: () => (isBroken ? Response.json({}, { status: 500 }) : undefined),
    });
    const token = await tokenOf(first);
    const options = {
      ...(await newNode(base, "n2")),
      contact: first.dataDir.identity.peerEndpoint,
      token,
      hostNqn: "nqn.test",
      version: "1",
      timeoutMs: 300,
    };
    await expect(joinCluster(options)).rejects.toMatchObject({ code: "Unavailable" });
    expect(existsSync(join(options.dataDir, "cluster/identity.json"))).toBe(false);
    isBroken = false;
    // Not with another key: that would be somebody else.
    const thief = join(base, "thief");
    const error = await refused(first, thief, () => joinCluster({ ...options, dataDir: thief }));
    expect(error.code).toBe("Unauthenticated");
    const { identity } = await joinCluster(options);
    expect(identity.raftId).toBe("2");
    expect(readdirSync(join(options.dataDir, "cluster")).toSorted()).toEqual([
      "ca.crt",
      "ca.key",
      "identity.json",
      "members.json",
      "node.pem",
    ]);
  });
});

describe("a join is refused, and changes nothing,", () => {
  test("with a token that was used", async () => {
    const base = folder();
    const first = await firstNode(base);
    const token = await tokenOf(first);
    await joining(base, "n2", first, token);
    const error = await refused(first, join(base, "n3"), () => joining(base, "n3", first, token));
    expect([error.code, error.message]).toEqual([
      "Unauthenticated",
      "the token was used already, by node n2",
    ]);
  });

  test("with a token that has expired", async () => {
    const base = folder();
    let nowMs = Date.now();
    const first = await firstNode(base, { now: () => nowMs });
    const token = await tokenOf(first, 1_000);
    nowMs += 2_000;
    const error = await refused(first, join(base, "n2"), () => joining(base, "n2", first, token));
    expect(error.code).toBe("Unauthenticated");
    expect(error.message).toContain("the token expired at");
  });

  test("with a wrong secret, a text that is no token, a token of the API", async () => {
    const base = folder();
    const first = await firstNode(base);
    const token = await tokenOf(first);
    const last = token.at(-2) === "A" ? "B" : "A";
    const wrong = token.slice(0, -2) + last + token.at(-1);
    const act = (text: string) => () => joining(base, "n2", first, text);
    const dir = join(base, "n2");
    const error = await refused(first, dir, act(wrong));
    expect([error.code, error.message.includes(wrong)]).toEqual(["Unauthenticated", false]);
    expect((await refused(first, dir, act("hello"))).code).toBe("InvalidArgument");
    const api = await createToken({ ...first, now: Date.now }, "api", 60_000, "");
    expect((await refused(first, dir, act(api.token))).code).toBe("InvalidArgument");
    // The right one is as good as before.
    await joining(base, "n2", first, token);
  });

  test("with a token of another cluster: the secret is not even shown", async () => {
    const base = folder();
    const first = await firstNode(base);
    const otherBase = folder();
    const other = await firstNode(otherBase, {}, "x1");
    const token = await tokenOf(other);
    const error = await refused(first, join(base, "n2"), () => joining(base, "n2", first, token));
    expect(error.code).toBe("PermissionDenied");
    expect(error.message).toContain("is not a node of the cluster that made the token");
  });

  test("with a name or an address that is taken, or a name that cannot be one", async () => {
    const base = folder();
    const first = await firstNode(base);
    const token = await tokenOf(first);
    const taken = await refused(first, join(base, "b/n1"), () =>
      joining(join(base, "b"), "n1", first, token),
    );
    expect([taken.code, taken.message]).toEqual([
      "AlreadyExists",
      "the cluster has a node n1 already",
    ]);
    const contact = first.dataDir.identity.peerEndpoint;
    const there = { contact, token, hostNqn: "q", version: "1" };
    const node = await newNode(base, "n2");
    const sameAddress = await refused(first, node.dataDir, () =>
      joinCluster({ ...node, ...there, peerEndpoint: contact }),
    );
    expect(sameAddress.code).toBe("AlreadyExists");
    const badName = await refused(first, node.dataDir, () =>
      joinCluster({ ...node, ...there, nodeId: "../n2" }),
    );
    expect(badName.code).toBe("InvalidArgument");
  });

  test("into a data directory that belongs to a node", async () => {
    const base = folder();
    const first = await firstNode(base);
    const second = await joined(base, "n2", first);
    const token = await tokenOf(first);
    await stop(second);
    await expect(joining(base, "n2", first, token)).rejects.toMatchObject({
      code: "AlreadyExists",
    });
    expect(second.dataDir.identity.raftId).toBe("2");
  });

  test("when nobody is there, or something else", async () => {
    const base = folder();
    const first = await firstNode(base);
    const node = await newNode(base, "n2");
    const there = { token: await tokenOf(first), hostNqn: "q", version: "1", timeoutMs: 2_000 };
    const nobody = `127.0.0.1:${await freePort()}`;
    const away = joinCluster({ ...node, ...there, contact: nobody });
    await expect(away).rejects.toMatchObject({ code: "Unavailable" });
  });

  test("with malformed requests: the cluster answers what is wrong", async () => {
    const base = folder();
    const first = await firstNode(base);
    const token = await tokenOf(first);
    const before = contents(first.store.view());
    const good = {
      token,
      nodeId: "n2",
      csrPem: "no request",
      peerEndpoint: "127.0.0.1:1",
      engineEndpoint: "127.0.0.1:2",
      hostNqn: "q",
      version: "1",
    };
    const bodies: [string, string][] = [
      ["", "not JSON"],
      ["[]", "token"],
      [JSON.stringify({ ...good, token: undefined }), "token"],
      [JSON.stringify({ ...good, more: 1 }), "more"],
      [JSON.stringify(good), "certificate request"],
      [JSON.stringify({ ...good, peerEndpoint: "nowhere at all" }), "nowhere at all"],
      [JSON.stringify({ ...good, version: "x".repeat(70_000) }), "too large"],
    ];
    for (const [body, what] of bodies) {
      const answer = await rawPost(first.dataDir.identity.peerEndpoint, "/join", body);
      expect(answer).toContain("HTTP/1.1 400");
      expect(answer).toContain(what);
    }
    expect(contents(first.store.view())).toBe(before);
  });
});

/** What a stranger without any client library gets. */
function rawPost(endpoint: string, path: string, body: string): Promise<string> {
  const [host, port] = endpoint.split(":");
  return new Promise((resolve, reject) => {
    const socket = connect({ host: host!, port: Number(port), rejectUnauthorized: false });
    let text = "";
    socket.on("secureConnect", () =>
      socket.write(
        `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      ),
    );
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(text));
  });
}

describe("leaving", () => {
  test("a removed node is out of raft, out of the store, and refused", async () => {
    const base = folder();
    const first = await firstNode(base);
    const second = await joined(base, "n2", first);
    const third = await joined(base, "n3", first);
    await removeMember({ ...first, now: Date.now }, "n3");
    expect(first.raft.status().voters.toSorted()).toEqual(["1", "2"]);
    expect([...first.store.view().nodes.keys()]).toEqual(["n1", "n2"]);
    await until("the removed node was told", () => third.removals.length > 0);
    // Its certificate opens nothing any more, on either node.
    await until("n2 knows", () => !second.store.view().nodes.has("n3"));
    for (const node of [first, second]) {
      const answer = await third.transport.forward(
        node.dataDir.identity.raftId,
        new Request("https://x/membership/authority-key"),
      );
      expect(answer.status).toBe(401);
    }
    // The name is free again, the raft id is not.
    await stop(third);
    const again = await joined(join(base, "again"), "n3", first);
    expect(again.dataDir.identity.raftId).toBe("4");
  });

  test("a leader that removes itself hands over first; the next one finishes", async () => {
    const base = folder();
    const first = await firstNode(base);
    const second = await joined(base, "n2", first);
    await removeMember({ ...first, now: Date.now }, "n1");
    await until("n2 is alone", () => {
      const { voters, role } = second.raft.status();
      return role === "leader" && voters.length === 1 && !second.store.view().nodes.has("n1");
    });
  });

  test("the last node stays; so does one whose removal would cost the majority", async () => {
    const base = folder();
    const first = await firstNode(base);
    await expect(removeMember({ ...first, now: Date.now }, "n1")).rejects.toMatchObject({
      code: "FailedPrecondition",
    });
    await expect(removeMember({ ...first, now: Date.now }, "n9")).rejects.toMatchObject({
      code: "NotFound",
    });
    expect([...first.store.view().settings.keys()]).toEqual(["membership.nextRaftId"]);
  });

  test("what a leader began and did not finish, is finished", async () => {
    const base = folder();
    const dataDir = await initCluster(await newNode(base, "n1"));
    let first = await start(dataDir);
    await until("it leads", () => first.store.view().nodes.has("n1"));
    await stop(first);
    // Nobody keeps: the join is in the store, and raft does not know of it.
    first = await start(dataDir, { keeps: false });
    await until("it leads again", () => first.store.isLeader());
    const joinedDir = await joining(base, "n2", first, await tokenOf(first));
    expect(first.raft.status().voters).toEqual(["1"]);
    await stop(first);
    first = await start(dataDir);
    const second = await start(joinedDir);
    await until("n2 has a vote", () => second.raft.status().voters.includes("2"));
    await transferLeadership(first, "n2");
    await until("n2 leads", () => second.store.isLeader());
  });
});

describe("recovery from a lost majority", () => {
  test("makes the survivor the only member; the lost come back only by joining", async () => {
    const base = folder();
    const first = await firstNode(base);
    const second = await joined(base, "n2", first);
    const third = await joined(base, "n3", first);
    const options = { dataDir: third.dataDir.path, nowMs: Date.now(), force: false };
    await expect(recoverCluster({ ...options, dryRun: false })).rejects.toMatchObject({
      code: "InUse",
    });
    await stop(third);
    await expect(recoverCluster({ ...options, dryRun: false })).rejects.toMatchObject({
      code: "FailedPrecondition",
    });
    const look = await recoverCluster({ ...options, dryRun: true });
    expect(look.others.map(({ nodeId, answers }) => [nodeId, answers])).toEqual([
      ["n1", true],
      ["n2", true],
    ]);
    await stop(second);
    await stop(first);
    const done = await recoverCluster({ ...options, dryRun: false });
    expect(done.raftId).toBe("1000000");
    const survivor = await start(openDataDir(third.dataDir.path));
    await until("it goes on alone", () => survivor.dataDir.recovered() === null);
    expect(survivor.raft.status()).toMatchObject({ role: "leader", voters: ["1000000"] });
    const { nodes } = survivor.store.view();
    expect([...nodes.values()].map(({ id, raftId }) => [id, raftId])).toEqual([
      ["n1", "1"],
      ["n2", "2"],
      ["n3", "1000000"],
    ]);
    // A lost member that is started again is refused.
    const ghost = await start(openDataDir(first.dataDir.path));
    const answer = await ghost.transport
      .forward("3", new Request("https://x/membership/ping"))
      .then(
        (response) => response.status,
        (error: { code?: string }) => error.code,
      );
    expect(answer).toBe("PermissionDenied");
    await stop(ghost);
    // It comes back under its name with an empty directory.
    const back = await joined(join(base, "back"), "n1", survivor);
    expect(back.dataDir.identity.raftId).toBe("1000001");
    expect(survivor.raft.status().voters.toSorted()).toEqual(["1000000", "1000001"]);
  }, 30_000);
});
