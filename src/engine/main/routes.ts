/** Which reactor serves what to whom, as the main thread keeps it for all of them. */
import { TrilithError } from "../../errors.ts";
import type { Served, ServedRoutes } from "../shard/methods.ts";
import type { DiscoveryPort } from "../target/discovery.ts";

interface Route {
  readonly reactor: number;
  /** Undefined: all. */
  readonly hosts: readonly string[] | undefined;
}

export class Routes {
  readonly #nvmf = new Map<string, Route>();
  readonly #nbd = new Map<string, Route>();
  readonly #ports: readonly DiscoveryPort[];
  #generation = 1;

  /** `ports`: where hosts reach the subsystems. */
  constructor(ports: readonly DiscoveryPort[]) {
    this.#ports = ports;
  }

  /** What every reactor is to know. */
  get table(): ServedRoutes {
    const reactors = (names: Map<string, Route>) =>
      new Map([...names].map(([name, { reactor }]) => [name, reactor]));
    return {
      nvmf: reactors(this.#nvmf),
      nbd: reactors(this.#nbd),
      discovery: {
        generation: this.#generation,
        ports: this.#ports,
        subsystems: [...this.#nvmf].map(([nqn, { hosts }]) => ({ nqn, hosts })),
      },
    };
  }

  #of(served: Served): Map<string, Route> {
    return served.protocol === "nvmf" ? this.#nvmf : this.#nbd;
  }

  /** Adds a name, or changes its hosts. `AlreadyExists` when another reactor serves it. */
  set(served: Served, route: Route): void {
    const names = this.#of(served);
    const present = names.get(served.name);
    if (present !== undefined && present.reactor !== route.reactor) {
      const what = served.protocol === "nvmf" ? "subsystem" : "NBD export";
      throw new TrilithError(
        "AlreadyExists",
        `${what} ${served.name} is served already`,
        "choose another name, or end the other share first",
      );
    }
    names.set(served.name, route);
    this.#generation++;
  }

  remove(served: Served, reactor: number): void {
    const names = this.#of(served);
    if (names.get(served.name)?.reactor !== reactor) return;
    names.delete(served.name);
    this.#generation++;
  }
}
