import { describe, expect, test } from "bun:test";
import { AssertionError } from "../../../../src/assert.ts";
import {
  IoFlag,
  IoOp,
  type IoOwner,
  IoTable,
  ioOpNames,
} from "../../../../src/engine/reactor/io-table.ts";
import { IO_DEPTH, IO_SLOTS } from "../../../../src/engine/reactor/limits.ts";
import { IoStatus } from "../../../../src/errors.ts";

const take = (io: IoTable) => io.take(IoOp.READ, 0, 512, 0, 0, 0);

describe("request table", () => {
  test("a slot carries the request's fields", () => {
    const io = new IoTable();
    const slot = io.take(IoOp.WRITE, 2 ** 40, 1 << 20, 8192, IoFlag.FUA, 123);
    expect(io.op[slot]).toBe(IoOp.WRITE);
    expect(io.offset[slot]).toBe(2 ** 40);
    expect(io.length[slot]).toBe(1 << 20);
    expect(io.buffer[slot]).toBe(8192);
    expect(io.flags[slot]).toBe(IoFlag.FUA);
    expect(io.startedNs[slot]).toBe(123);
    expect(io.status[slot]).toBe(IoStatus.OK);
    expect(io.inUse(slot)).toBe(true);
    io.give(slot);
    expect(io.inUse(slot)).toBe(false);
  });

  test("every operation has a name", () => {
    for (const [name, op] of Object.entries(IoOp)) {
      expect(ioOpNames[op]).toBe(
        name.toLowerCase().replace("_", "-") as (typeof ioOpNames)[number],
      );
    }
  });

  test("all slots can be in use at once, each once", () => {
    const io = new IoTable();
    const slots = Array.from({ length: IO_SLOTS }, () => take(io));
    expect(new Set(slots).size).toBe(IO_SLOTS);
    expect(io.free).toBe(0);
    expect(() => take(io)).toThrow(AssertionError);
    for (const slot of slots) io.give(slot);
    expect(io.free).toBe(IO_SLOTS);
  });

  test("promises are bounded by the slots, and say when they are released", () => {
    const io = new IoTable();
    expect(io.promise(IO_SLOTS - 1)).toBe(true);
    expect(io.promise(2)).toBe(false);
    expect(io.promise(1)).toBe(true);
    expect(io.promise(1)).toBe(false);
    expect(io.freed).toBe(false);
    io.release(2);
    expect(io.freed).toBe(true);
    expect(io.promise(2)).toBe(true);
    io.release(IO_SLOTS);
    expect(() => io.release(1)).toThrow(AssertionError);
  });

  test("a completion climbs through the owners, last one first", () => {
    const io = new IoTable();
    const slot = take(io);
    const seen: string[] = [];
    const layer = (name: string, next: (slot: number) => void): IoOwner => ({
      ioDone(done) {
        expect(done).toBe(slot);
        seen.push(`${name} ${io.status[done]}`);
        next(done);
      },
    });
    const up = (done: number) => io.complete(done, io.status[done]!);
    io.push(
      slot,
      layer("host", (done) => io.give(done)),
    );
    io.push(
      slot,
      layer("nexus", (done) => io.complete(done, IoStatus.TIMEOUT)),
    );
    io.push(slot, layer("replica", up));
    io.complete(slot, IoStatus.DEVICE_IO);
    const [failed, timedOut] = [IoStatus.DEVICE_IO, IoStatus.TIMEOUT];
    expect(seen).toEqual([`replica ${failed}`, `nexus ${failed}`, `host ${timedOut}`]);
    expect(io.inUse(slot)).toBe(false);
  });

  test("an owner may pass the request down again", () => {
    const io = new IoTable();
    const slot = take(io);
    let tries = 0;
    const retry: IoOwner = {
      ioDone(done) {
        tries++;
        if (tries === 3) return io.give(done);
        io.push(done, retry);
        io.complete(done, IoStatus.DEVICE_IO);
      },
    };
    io.push(slot, retry);
    io.complete(slot, IoStatus.DEVICE_IO);
    expect(tries).toBe(3);
    expect(io.free).toBe(IO_SLOTS);
  });

  test("a defect of the caller is an assertion", () => {
    const io = new IoTable();
    const owner: IoOwner = { ioDone() {} };
    const slot = take(io);
    expect(() => io.complete(slot, IoStatus.OK)).toThrow(AssertionError);
    for (let depth = 0; depth < IO_DEPTH; depth++) io.push(slot, owner);
    expect(() => io.push(slot, owner)).toThrow(AssertionError);
    expect(() => io.give(slot)).toThrow(AssertionError);
    for (let depth = 0; depth < IO_DEPTH; depth++) io.complete(slot, IoStatus.OK);
    io.give(slot);
    expect(() => io.give(slot)).toThrow(AssertionError);
    expect(() => io.push(slot, owner)).toThrow(AssertionError);
    expect(() => io.complete(slot, IoStatus.OK)).toThrow(AssertionError);
    expect(io.inUse(-1)).toBe(false);
    expect(io.inUse(IO_SLOTS)).toBe(false);
  });

  test("a promise withdrawn is free again and wakes nobody", () => {
    const io = new IoTable();
    expect(io.promise(IO_SLOTS)).toBe(true);
    io.withdraw(1);
    expect([io.freed, io.promise(2), io.promise(1)]).toEqual([false, false, true]);
    io.release(1);
    expect(io.freed).toBe(true);
    expect(() => io.withdraw(IO_SLOTS)).toThrow(AssertionError);
  });
});
