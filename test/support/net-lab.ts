/**
 * A network of this machine's own for tests that break it: hosts in network namespaces on one bridge, whose
 * links can be taken down and whose packets can be lost in one direction. This process takes part in it.
 *
 * Addresses are of 127/8, as everywhere in the tests, because a node serves some things without TLS there
 * alone; they travel over the links like any other. Namespaces belong to processes that the kernel ends with
 * this one, and devices go with their namespaces, so that nothing is left whatever happens.
 */
import { spawnSync } from "node:child_process";
import { readlinkSync } from "node:fs";
import type { Subprocess } from "bun";

const PATIENCE_MS = 10_000;
/** A neighbour that nobody is: what is sent there is lost, and nobody hears of it. */
const NOBODY = "02:00:00:00:00:fe";
const SELF = 254;

/** True when this process may make network namespaces. */
export const canMakeNetworks =
  process.getuid?.() === 0 && spawnSync("unshare", ["-n", "true"]).status === 0;

function run(command: readonly string[]): void {
  const [file, ...args] = command;
  const { status, stderr } = spawnSync(file!, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
}

/** A process that does nothing but keep a new network namespace. */
function holder(): Subprocess {
  const mine = readlinkSync("/proc/self/ns/net");
  const command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "-n", "sleep", "infinity"];
  const child = Bun.spawn(command, { stdio: ["ignore", "ignore", "ignore"] });
  const untilMs = performance.now() + PATIENCE_MS;
  while (readlinkSync(`/proc/${child.pid}/ns/net`) === mine) {
    if (child.exitCode !== null || performance.now() > untilMs) {
      child.kill("SIGKILL");
      throw new Error("a network namespace cannot be made");
    }
    Bun.sleepSync(1);
  }
  return child;
}

export class NetHost {
  readonly address: string;
  /** Put before a command, it runs there. */
  readonly within: readonly string[];
  readonly #device: string;
  /** Hosts to which packets from here are lost. */
  readonly #lost = new Set<string>();

  constructor(address: string, within: readonly string[], device: string) {
    this.address = address;
    this.within = within;
    this.#device = device;
  }

  #ip(...args: readonly string[]): void {
    run([...this.within, "ip", ...args]);
  }

  /** Takes the link down: nothing goes in or out, and nobody is told. */
  linkDown(): void {
    this.#ip("link", "set", this.#device, "down");
  }

  linkUp(subnet: string): void {
    this.#ip("link", "set", this.#device, "up");
    // Routes went with the link.
    const route = ["table", "local", subnet, "dev", this.#device, "src", this.address];
    this.#ip("route", "replace", ...route, "scope", "link");
  }

  /** Loses every packet from here to `other`, and none that comes from there. */
  loseTo(other: NetHost): void {
    const where = [other.address, "lladdr", NOBODY, "dev", this.#device, "nud", "permanent"];
    this.#ip("neigh", "replace", ...where);
    this.#lost.add(other.address);
  }

  /** Packets from here arrive again. */
  loseNothing(): void {
    for (const address of this.#lost) this.#ip("neigh", "del", address, "dev", this.#device);
    this.#lost.clear();
  }
}

const labs = new Set<NetLab>();
process.on("exit", () => {
  for (const lab of labs) lab.end();
});
let labsMade = 0;

export class NetLab {
  readonly hosts: readonly NetHost[];
  readonly #subnet: string;
  readonly #holders: Subprocess[] = [];
  readonly #own: string;

  /** A network of `count` hosts and this process. */
  constructor(count: number) {
    labs.add(this);
    labsMade++;
    const { pid } = process;
    const prefix = `127.${224 + ((pid >> 8) & 15)}.${pid & 255}`;
    if (labsMade > 1) throw new Error("one test process has one network");
    this.#subnet = `${prefix}.0/24`;
    this.#own = `tl${pid}`;
    const bridge = this.#holder();
    run([...bridge, "ip", "link", "add", "br0", "type", "bridge"]);
    run([...bridge, "ip", "link", "set", "br0", "up"]);
    this.hosts = Array.from({ length: count }, (_, index) => {
      const host = new NetHost(`${prefix}.${index + 1}`, this.#holder(), `tl${index + 1}`);
      this.#plug(bridge, host, `tl${index + 1}`);
      return host;
    });
    this.#plug(bridge, new NetHost(`${prefix}.${SELF}`, [], this.#own), this.#own);
  }

  #holder(): readonly string[] {
    const child = holder();
    this.#holders.push(child);
    return ["nsenter", `--net=/proc/${child.pid}/ns/net`, "--"];
  }

  /** Puts a device into the host's namespace whose other end is on the bridge. */
  #plug(bridge: readonly string[], host: NetHost, device: string): void {
    const other = `p${device}`;
    const { within } = host;
    const [bridgeFile] = bridge[1]!.split("=").slice(1);
    const ends = ["link", "add", other, "netns", bridgeFile!, "type", "veth"];
    const place = within.length === 0 ? "/proc/self/ns/net" : within[1]!.split("=")[1]!;
    run(["ip", ...ends, "peer", "name", device, "netns", place]);
    run([...bridge, "ip", "link", "set", other, "master", "br0", "up"]);
    if (within.length > 0) run([...within, "ip", "link", "set", "lo", "up"]);
    for (const name of [device, ...(within.length > 0 ? ["all"] : [])]) {
      const base = `/proc/sys/net/ipv4/conf/${name}`;
      run([...within, "sh", "-c", `echo 1 >${base}/route_localnet; echo 0 >${base}/rp_filter`]);
    }
    run([...within, "ip", "addr", "add", `${host.address}/32`, "dev", device]);
    host.linkUp(this.#subnet);
  }

  linkUp(host: NetHost): void {
    host.linkUp(this.#subnet);
  }

  /** Everything goes through again. */
  heal(): void {
    for (const host of this.hosts) {
      host.loseNothing();
      host.linkUp(this.#subnet);
    }
  }

  end(): void {
    labs.delete(this);
    for (const child of this.#holders.splice(0)) child.kill("SIGKILL");
    spawnSync("ip", ["link", "del", this.#own]);
  }
}
