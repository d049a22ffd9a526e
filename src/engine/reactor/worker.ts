/**
 * Entry point of a reactor's thread. It makes the reactor and what lives on it, says so, and runs
 * the loop, which never returns to the thread's event loop: messages are taken from the port when
 * the eventfd that goes with it is readable.
 */
import { workerData } from "node:worker_threads";
import { setAffinity } from "../../../ffi/index.ts";
import type { MainMethods, ShardMethods } from "../shard/methods.ts";
import { Shard } from "../shard/shard.ts";
import { Doorbell } from "./doorbell.ts";
import { type Envelope, Mailbox } from "./mailbox.ts";
import { Reactor } from "./reactor.ts";
import type { WorkerInput } from "./worker-input.ts";

const input = workerData as WorkerInput;
const { port, shard: options } = input;
if (options.core !== null) setAffinity([options.core]);

const post = (envelope: Envelope): void => port.postMessage(envelope);
const tell = <K extends keyof MainMethods>(method: K, what: Parameters<MainMethods[K]>[0]): void =>
  post({ kind: "tell", method, input: what });

const reactor = new Reactor({
  index: options.index,
  arenaBytes: options.arenaBytes,
  spinNs: options.spinNs,
  onStall: ({ durationNs, completions, activity }) => {
    const fields = { durationMs: durationNs / 1e6, completions, activity };
    tell("event", { kind: "reactor-stalled", subject: `${options.index}`, message: "", fields });
  },
});
const shard: Shard = new Shard(reactor, options, {
  call: (method, what) => mailbox.call(method, what as never) as never,
  tell,
  clockMs: () => Date.now(),
  stop: () => {
    reactor.background(doorbell.close().then(() => reactor.stop()));
  },
});
const mailbox: Mailbox<ShardMethods, MainMethods> = new Mailbox({
  post,
  local: shard.methods,
  onFatal: (error) => reactor.fail(error),
});
const doorbell = new Doorbell(reactor, input, (envelope) => mailbox.receive(envelope));
tell("ready", {});
reactor.run();
reactor.close();
port.close();
