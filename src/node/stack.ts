/** What was started, in order: it is stopped the other way round. */
import type { Log } from "../ops/log.ts";

/** Things to stop, the last one first. */
export class Stack {
  readonly #stops: (() => unknown)[] = [];

  add<T>(thing: T, stop: (thing: T) => unknown): T {
    this.#stops.push(() => stop(thing));
    return thing;
  }

  async stop(log: Log): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) {
      try {
        await stop();
      } catch (error) {
        log("warn", "a part of the node did not stop in order", { error });
      }
    }
  }
}
