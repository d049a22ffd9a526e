/** What tests of pools share: memory devices, patterns, and a check of a pool's own invariants. */
import { expect } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Bdev } from "../../../../src/engine/bdev/bdev.ts";
import { openMemoryBdev } from "../../../../src/engine/bdev/memory.ts";
import { createPool, type Pool } from "../../../../src/engine/pool/index.ts";
import { CHECK_ERRORS_MAX } from "../../../../src/engine/pool/limits.ts";
import { ClusterUse } from "../../../../src/engine/pool/space.ts";
import { SHARED } from "../../../../src/engine/pool/state.ts";
import { verifyState } from "../../../../src/engine/pool/verify.ts";
import type { Reactor } from "../../../../src/engine/reactor/reactor.ts";
import { TrilithError } from "../../../../src/errors.ts";

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** A memory device. */
export function memory(reactor: Reactor, sizeMb: number, blockSize: 512 | 4096 = 512): Bdev {
  return openMemoryBdev(reactor, {
    driver: "malloc",
    name: `m${randomUUID()}`,
    blockSize,
    blockCount: (sizeMb * MIB) / blockSize,
    uuid: undefined,
  });
}

/** A pool of 64 KiB clusters on a memory device, for tests that want many clusters. */
export async function smallPool(
  reactor: Reactor,
  sizeMb = 16,
  clusterBytes = 64 * KIB,
): Promise<{ bdev: Bdev; pool: Pool }> {
  const bdev = memory(reactor, sizeMb);
  const pool = await createPool(bdev, { name: "p", clusterBytes, closeBdev: false });
  return { bdev, pool };
}

/** Bytes that differ by position and tag. */
export function pattern(length: number, tag: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (tag * 31 + i * 7 + (i >> 8)) & 0xff || 1;
  return bytes;
}

const zeroes = new Uint8Array(MIB);

/** True when all bytes are zero. */
export function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeroes.subarray(0, bytes.byteLength)) === 0;
}

/** The code of the error a promise ends with; fails the test when it succeeds. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TrilithError) return error.code;
    throw error;
  }
  throw new Error("expected an error");
}

/** The error a promise ends with. */
export async function errorOf(promise: Promise<unknown>): Promise<TrilithError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TrilithError) return error;
    throw error;
  }
  throw new Error("expected an error");
}

/** Waits until a condition holds; the reactor goes on meanwhile. */
export async function until(reactor: Reactor, condition: () => boolean): Promise<void> {
  while (!condition()) await reactor.sleep(0.01);
}

/** Checks that what the pool counts in memory follows from its maps. */
export async function expectSound(pool: Pool): Promise<void> {
  const { core } = pool;
  const { space, state } = core;
  await until(pool.reactor, () => space.reap(1 << 20));
  core.cleaner.kick();
  await until(pool.reactor, () => core.cleaner.isReclaimed);
  const verified = verifyState(state, core.superblock, CHECK_ERRORS_MAX);
  expect(verified.errors).toEqual([]);
  expect(space.references).toEqual(verified.references);
  expect(space.free).toBe(verified.free);
  expect(space.reserved).toBe(verified.reserved);
  expect(space.promised).toBe(0);
  expect(space.metadata).toBe(verified.metadata.length);
  const count = (use: number) => space.use.filter((u) => u === use).length;
  expect(space.zeroed).toBe(count(ClusterUse.ZEROED));
  expect(space.dirty).toBe(count(ClusterUse.DIRTY));
  for (const object of state.objects.values()) {
    let mapped = 0;
    let shared = 0;
    for (const entry of object.map) {
      if (entry < 0) continue;
      mapped++;
      const cluster = entry & ~SHARED;
      const isShared = space.references[cluster]! > 1;
      expect((entry & SHARED) !== 0).toBe(isShared);
      if (isShared) shared++;
    }
    expect([object.mapped, object.shared, object.promised]).toEqual([mapped, shared, 0]);
  }
}
