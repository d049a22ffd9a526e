/** Replicas of pools against the suite of block devices: thin, thick, and clones of snapshots. */
import { randomUUID } from "node:crypto";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bdev } from "../../src/engine/bdev/bdev.ts";
import { openBdev } from "../../src/engine/bdev/open.ts";
import { createPool, importPool, type Pool, type Replica } from "../../src/engine/pool/index.ts";
import type { Reactor } from "../../src/engine/reactor/reactor.ts";
import { probeBdev } from "../support/reactor.ts";
import { type BdevUnderTest, bdevConformance } from "./bdev-suite.ts";

const MIB = 1 << 20;
/** Not a whole number of clusters, so that the last one is partial. */
const REPLICA_BYTES = 9 * MIB + 3 * 4096;
const DISK_BYTES = 48 * MIB;

type Kind = "thin" | "thick" | "clone";

/** A replica on a fresh pool. */
async function replicaOf(pool: Pool, kind: Kind): Promise<Replica> {
  const replica = await pool.createReplica({
    uuid: randomUUID(),
    name: "replica",
    sizeBytes: REPLICA_BYTES,
    thin: kind !== "thick",
  });
  if (kind !== "clone") return replica;
  const probe = probeBdev(replica);
  for (let at = 0; at + MIB <= REPLICA_BYTES; at += 2 * MIB) {
    await probe.write(at, new Uint8Array(MIB).fill(0x77));
  }
  const snapshot = await pool.createSnapshot(replica.uuid, { uuid: randomUUID(), name: "snap" });
  return pool.createClone(snapshot.uuid, { uuid: randomUUID(), name: "clone" });
}

/** The pool's own work goes on when a replica is closed; the suite counts what is in use then. */
function quietWhenClosed(pool: Pool, replica: Replica): Replica {
  const close = replica.close.bind(replica);
  Object.defineProperty(replica, "close", {
    configurable: true,
    value: async () => {
      await close();
      await pool.core.cleaner.stop();
      await pool.core.checkpointer.idle();
    },
  });
  return replica;
}

async function onPool(
  open: () => Promise<Bdev>,
  dispose: () => void,
  kind: Kind,
  clusterBytes: number,
): Promise<BdevUnderTest> {
  let pool = await createPool(await open(), { name: "pool", clusterBytes });
  const replica = await replicaOf(pool, kind);
  await pool.core.cleaner.idle();
  return {
    bdev: quietWhenClosed(pool, replica),
    reopen: async () => {
      await pool.export();
      pool = await importPool(await open());
      return pool.get(replica.uuid);
    },
    dispose: async () => {
      await pool.export();
      dispose();
    },
  };
}

async function onFile(
  reactor: Reactor,
  kind: Kind,
  clusterBytes: number,
  blockSize: number,
): Promise<BdevUnderTest> {
  const folder = mkdtempSync(join(tmpdir(), "trilith-replica-"));
  const path = join(folder, "disk");
  const fd = openSync(path, "w");
  ftruncateSync(fd, DISK_BYTES);
  closeSync(fd);
  const uri = `uring://${path}?blk_size=${blockSize}`;
  const dispose = () => rmSync(folder, { recursive: true });
  return onPool(() => openBdev(reactor, uri), dispose, kind, clusterBytes);
}

for (const kind of ["thin", "thick", "clone"] as const) {
  bdevConformance(
    `${kind} replica on memory, clusters of 64 KiB`,
    (reactor) => {
      const uri = `malloc:///disk?num_blocks=${DISK_BYTES / 512}&blk_size=512`;
      return onPool(
        () => openBdev(reactor, uri),
        () => {},
        kind,
        64 << 10,
      );
    },
    { keepsData: false },
  );
  bdevConformance(
    `${kind} replica on a file, clusters of 1 MiB`,
    (reactor) => onFile(reactor, kind, MIB, 512),
    { keepsData: true },
  );
}
bdevConformance(
  "thin replica on a file with blocks of 4096, clusters of 64 KiB",
  (reactor) => onFile(reactor, "thin", 64 << 10, 4096),
  { keepsData: true },
);
