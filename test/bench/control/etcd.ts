/** Debian's etcd as a peer: three members on this machine, their data on the disk that is measured. */
import { join } from "node:path";
import { freePorts } from "../machine.ts";
import { Service } from "../processes.ts";
import { CLUSTER_TIMEOUT_MS, MEMBERS } from "./limits.ts";

/** Six processes share the machine: the scheduler places them. */
const anywhere = { core: null, realtime: false } as const;
const base64 = (text: string): string => Buffer.from(text).toString("base64");

export class EtcdCluster {
  readonly #services: Service[] = [];
  readonly #urls: string[] = [];
  #leader = "";

  /** Starts the members on their own folders in `folder`, and waits until they have a leader. */
  static async start(folder: string, logs: string): Promise<EtcdCluster> {
    const etcd = new EtcdCluster();
    const ports = freePorts(MEMBERS * 2);
    const names = Array.from({ length: MEMBERS }, (_, n) => `member-${n + 1}`);
    const peer = (n: number) => `http://127.0.0.1:${ports[MEMBERS + n]}`;
    const cluster = names.map((name, n) => `${name}=${peer(n)}`).join(",");
    for (const [n, name] of names.entries()) {
      const url = `http://127.0.0.1:${ports[n]}`;
      const options = {
        name,
        "data-dir": join(folder, `etcd-${name}`),
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peer(n),
        "initial-advertise-peer-urls": peer(n),
        "initial-cluster": cluster,
        "log-level": "error",
      };
      const flags = Object.entries(options).map(([flag, value]) => `--${flag}=${value}`);
      etcd.#services.push(new Service(`etcd-${n + 1}`, ["etcd", ...flags], anywhere, logs));
      etcd.#urls.push(url);
    }
    for (const service of etcd.#services) {
      await service.serves(() => etcd.#findsLeader(), CLUSTER_TIMEOUT_MS);
    }
    return etcd;
  }

  /** The member that leads is asked, as ours is: no request takes a detour. */
  async #findsLeader(): Promise<boolean> {
    for (const url of this.#urls) {
      const status = await post(`${url}/v3/maintenance/status`, {}).catch(() => null);
      const { leader, header } = (status ?? {}) as {
        leader?: string;
        header?: { member_id: string };
      };
      if (leader !== undefined && leader !== "0" && leader === header?.member_id) {
        this.#leader = url;
        return true;
      }
    }
    return false;
  }

  /** Puts one value; resolves when a majority has it on disk. */
  async put(key: string, value: string): Promise<void> {
    await post(`${this.#leader}/v3/kv/put`, { key: base64(key), value: base64(value) });
  }

  async stop(): Promise<void> {
    await Promise.all(this.#services.map((service) => service.stop()));
  }
}

async function post(url: string, body: object): Promise<unknown> {
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return response.json();
}
