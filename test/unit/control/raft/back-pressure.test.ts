/** A leader that cannot commit takes only so much into its log; the rest waits, and is refused in the end. */
import { expect, test } from "bun:test";
import { TrilithError } from "../../../../src/errors.ts";
import { SimCluster } from "../../../support/raft/sim-cluster.ts";

const LIMITS = { uncommittedLengthMax: 5_000, proposalsPerBatch: 2, proposalsQueuedMax: 60 };
const COMMAND = JSON.stringify({ op: "set", key: "a", value: "x".repeat(1_000) });

function outcomes(cluster: SimCluster, count: number): Map<string, number> {
  const counts = new Map<string, number>();
  const add = (what: string) => counts.set(what, (counts.get(what) ?? 0) + 1);
  for (let at = 0; at < count; at++) {
    cluster
      .member("n1")
      .node!.propose(COMMAND, 800)
      .then(
        () => add("done"),
        (error: unknown) => add(error instanceof TrilithError ? error.code : String(error)),
      );
  }
  return counts;
}

test("what is not committed is bounded, what waits is refused, and nothing of it is lost track of", () => {
  const cluster = new SimCluster({ seed: 1, limits: LIMITS });
  try {
    cluster.form(["n1", "n2", "n3"]);
    const rows = () => {
      const count = "SELECT count(*) AS count FROM raft_log";
      return cluster.member("n1").db.query<{ count: number }, []>(count).get()!.count;
    };
    const before = rows();
    for (const other of ["n2", "n3"]) cluster.network.cut("n1", other);
    const stuck = outcomes(cluster, 100);
    cluster.run(500);
    // As many as reach the limit, and a batch more.
    expect(rows() - before).toBe(6);
    expect(Object.fromEntries(stuck)).toEqual({ Unavailable: 40 });
    cluster.run(500);
    expect(Object.fromEntries(stuck)).toEqual({ Unavailable: 94, Timeout: 6 });

    // Whoever leads then, it goes on; those of unknown outcome may have been applied meanwhile.
    cluster.network.heal();
    cluster.run(10_000, () => cluster.isConverged(["n1", "n2", "n3"]));
    const transfer = () => cluster.leader()?.node?.transferLeadership("n1");
    if (cluster.leader()?.raftId !== "n1") cluster.await(transfer()!);
    cluster.run(5_000, () => cluster.leader()?.raftId === "n1");
    const free = outcomes(cluster, 60);
    cluster.run(5_000, () => free.get("done") === 60);
    expect(Object.fromEntries(free)).toEqual({ done: 60 });
  } finally {
    cluster.close();
  }
});
