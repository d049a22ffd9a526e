/** The thread that puts a verifying load on the demonstration's volume, through NVMe/TCP. */
import { randomUUID } from "node:crypto";
import { workerData } from "node:worker_threads";
import { openBdev } from "../engine/bdev/open.ts";
import { type Load, startLoad } from "../engine/bench/load.ts";
import { Doorbell } from "../engine/reactor/doorbell.ts";
import { ARENA_BYTES_DEFAULT } from "../engine/reactor/limits.ts";
import { type Envelope, Mailbox } from "../engine/reactor/mailbox.ts";
import { Reactor } from "../engine/reactor/reactor.ts";
import type { ThreadInput } from "../engine/reactor/thread.ts";
import { TrilithError } from "../errors.ts";
import { nodeHostNqn } from "../names.ts";
import type { LoadMethods, LoadRequest, LoadUser } from "./messages.ts";

const input = workerData as ThreadInput;
const reactor = new Reactor({ index: 0, arenaBytes: ARENA_BYTES_DEFAULT });
let load: Load | null = null;
let close: () => Promise<void> = () => Promise.resolve();

async function start(request: LoadRequest): Promise<void> {
  const { uri, size, ...options } = request;
  const host = { nqn: nodeHostNqn("demo-host"), id: randomUUID() };
  // As a Linux host does: requests in flight wait for the reconnect and are sent again.
  const bdev = await openBdev(reactor, uri, {
    host,
    nvmf: { onLoss: "retry", reconnectDelayMaxMs: 500 },
  });
  close = () => bdev.close();
  load = startLoad({ bdev, pattern: "randrw", jobs: 1, verify: true, size, ...options });
}

function present(): Load {
  if (load === null) throw new TrilithError("FailedPrecondition", "no load runs");
  return load;
}

const local: LoadMethods = {
  start,
  stats: async () => present().stats(),
  finish: async () => {
    const running = present();
    running.stop();
    const result = await running.done;
    await close();
    return result;
  },
};
const mailbox: Mailbox<LoadMethods, LoadUser> = new Mailbox({
  post: (envelope) => input.port.postMessage(envelope),
  local,
  onFatal: (error) => reactor.fail(error),
});
new Doorbell(reactor, input, (envelope: Envelope) => mailbox.receive(envelope));
mailbox.tell("ready", {});
reactor.run();
