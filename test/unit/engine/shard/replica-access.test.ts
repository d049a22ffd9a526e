import { expect, test } from "bun:test";
import { ReplicaAccess } from "../../../../src/engine/shard/replica-access.ts";
import type { ShardContext } from "../../../../src/engine/shard/shard.ts";
import { withReactor } from "../../../support/reactor.ts";
import { MIB, smallPool } from "../pool/fixture.ts";

const UUID = "11111111-2222-4333-8444-555555555555";
const FIRST_BOOT = "00000000-0000-4000-8000-00000000b001";
const SECOND_BOOT = "00000000-0000-4000-8000-00000000b002";

test("a replica may lack writes when its machine was started anew while a nexus was using it", () => {
  withReactor(async (reactor) => {
    const { pool } = await smallPool(reactor);
    const replica = await pool.createReplica({ uuid: UUID, name: "r", sizeBytes: MIB, thin: true });
    const under = (bootId: string) => {
      const host = { nqn: "nqn.2014-08.org.example:host", id: UUID };
      const options = { bootId, host } as ShardContext["options"];
      const context = { reactor, options, log: () => {} } as unknown as ShardContext;
      return new ReplicaAccess(context, pool, replica);
    };
    const claim = { epoch: 1, nexusUuid: UUID, isServing: true, onFenced: () => {} };
    const state = { epoch: 1, generation: 1, baseGeneration: 1, clean: false, mayLack: false };
    expect(under(FIRST_BOOT).readState().mayLack).toBe(false);
    const { link } = under(FIRST_BOOT).open();
    await link.acquire(claim);
    await link.writeState(state);
    // An engine that was killed and started again has lost nothing.
    expect(under(FIRST_BOOT).readState().mayLack).toBe(false);
    expect(under(SECOND_BOOT).readState().mayLack).toBe(true);
    // It stays so until a nexus says that it has everything again.
    const again = under(SECOND_BOOT);
    const next = again.open();
    await next.link.acquire({ ...claim, epoch: 2 });
    await next.link.writeState({ ...state, epoch: 2, generation: 2, mayLack: true });
    expect(under(SECOND_BOOT).readState().mayLack).toBe(true);
    await next.link.writeState({ ...state, epoch: 2, generation: 3 });
    expect(under(SECOND_BOOT).readState().mayLack).toBe(false);
    // After an orderly end nothing is missing, whatever happens to the machine.
    await next.link.writeState({ ...state, epoch: 2, generation: 3, clean: true });
    expect(under(FIRST_BOOT).readState().mayLack).toBe(false);
    await pool.export();
  });
});
