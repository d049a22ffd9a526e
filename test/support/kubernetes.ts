/**
 * A real API server of Kubernetes for tests, with etcd from Debian below it, each on a loopback address
 * of its own. The programs of Kubernetes are built by `images/setup.mjs --test` where Go is present.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { kubernetesPrograms } from "../../images/kubernetes-programs.mjs";
import { type KubeClient, kubeClient } from "../../src/kube/client/client.ts";
import { parseKubeconfig } from "../../src/kube/client/kubeconfig.ts";
import { waitUntil } from "./cluster.ts";
import { takeAddress } from "./engine-process.ts";

const ETCD = "/usr/bin/etcd";
const STOP_MS = 10_000;

/** Folder of the programs; null when they are not here (no Go, or no network when it was set up). */
export const programsFolder: string | null = existsSync(ETCD) ? kubernetesPrograms() : null;

/** A program of a test, with what it wrote. */
export class Program {
  readonly name: string;
  readonly #log: string;
  readonly #command: readonly string[];
  #process: Subprocess | null = null;

  constructor(folder: string, name: string, command: readonly string[]) {
    this.name = name;
    this.#log = join(folder, `${name}.log`);
    this.#command = command;
  }

  start(): void {
    const log = openSync(this.#log, "a");
    this.#process = Bun.spawn([...this.#command], { stdin: "ignore", stdout: log, stderr: log });
    closeSync(log);
  }

  get isRunning(): boolean {
    return this.#process !== null && this.#process.exitCode === null;
  }

  /** The last of what it has written. */
  log(lines = 30): string {
    try {
      return readFileSync(this.#log, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
    } catch {
      return "";
    }
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#process;
    if (child === null) return;
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await child.exited;
    clearTimeout(timer);
    this.#process = null;
  }

  endNow(): void {
    this.#process?.kill("SIGKILL");
  }
}

const servers = new Set<KubeServer>();
process.on("exit", () => {
  for (const server of servers) server.endNow();
});

export class KubeServer {
  readonly folder = mkdtempSync(join(tmpdir(), "trilith-kube-"));
  readonly address = takeAddress();
  readonly url = `https://${this.address}:6443`;
  readonly kubeconfig = join(this.folder, "kubeconfig");
  readonly #programs: Program[] = [];
  readonly #etcd: Program;
  readonly #api: Program;
  #client: KubeClient | null = null;

  private constructor() {
    const etcdUrl = `http://${this.address}:2379`;
    const peerUrl = `http://${this.address}:2380`;
    const keys = join(this.folder, "service-accounts.key");
    const tokens = join(this.folder, "tokens.csv");
    this.#etcd = this.#add("etcd", ETCD, [
      `--data-dir=${join(this.folder, "etcd")}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
      "--unsafe-no-fsync",
    ]);
    this.#api = this.#add("kube-apiserver", join(programsFolder!, "kube-apiserver"), [
      `--etcd-servers=${etcdUrl}`,
      `--bind-address=${this.address}`,
      `--advertise-address=${this.address}`,
      "--endpoint-reconciler-type=none",
      "--secure-port=6443",
      `--cert-dir=${join(this.folder, "certificates")}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${keys}`,
      `--service-account-signing-key-file=${keys}`,
      "--service-cluster-ip-range=10.96.0.0/24",
      "--authorization-mode=RBAC",
      "--allow-privileged=true",
      // There is no kubelet and no controller of accounts here.
      "--disable-admission-plugins=ServiceAccount",
      `--token-auth-file=${tokens}`,
      // So that an old watch is told to list anew while a test waits.
      "--etcd-compaction-interval=0",
    ]);
    const made = Bun.spawnSync(["openssl", "genrsa", "-out", keys, "2048"]);
    if (made.exitCode !== 0) throw new Error(`openssl: ${made.stderr.toString()}`);
    const token = randomBytes(16).toString("hex");
    writeFileSync(tokens, `${token},admin,admin,system:masters\n`, { mode: 0o600 });
    this.#writeKubeconfig(this.kubeconfig, token);
    servers.add(this);
  }

  #add(name: string, program: string, args: readonly string[]): Program {
    const made = new Program(this.folder, name, [program, ...args]);
    this.#programs.push(made);
    return made;
  }

  #writeKubeconfig(path: string, token: string): void {
    const config = {
      apiVersion: "v1",
      kind: "Config",
      "current-context": "test",
      contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
      clusters: [
        {
          name: "test",
          cluster: {
            server: this.url,
            // Made by the server for itself: it is its own authority.
            "certificate-authority": join(this.folder, "certificates/apiserver.crt"),
          },
        },
      ],
      users: [{ name: "test", user: { token } }],
    };
    writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
  }

  /** A kubeconfig that acts as a service account, with the rights that were granted to it and no others. */
  async kubeconfigOf(namespace: string, account: string): Promise<string> {
    const { status } = await this.client.call<{ readonly status: { readonly token: string } }>({
      method: "POST",
      path: `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`,
      body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {} },
    });
    const path = join(this.folder, `${account}.kubeconfig`);
    this.#writeKubeconfig(path, status.token);
    return path;
  }

  /** Starts etcd and the API server, and waits until it is ready. */
  static async start(): Promise<KubeServer> {
    const server = new KubeServer();
    server.#etcd.start();
    await server.startApi();
    return server;
  }

  get client(): KubeClient {
    this.#client ??= kubeClient({
      access: parseKubeconfig(readFileSync(this.kubeconfig, "utf8"), this.kubeconfig),
    });
    return this.#client;
  }

  /** Starts the API server alone, and waits until it is ready. */
  async startApi(): Promise<void> {
    this.#api.start();
    const isReady = async (): Promise<boolean> => {
      if (!this.#api.isRunning || !this.#etcd.isRunning) throw new Error("it has ended");
      if (!existsSync(join(this.folder, "certificates/apiserver.crt"))) return false;
      return (await this.client.call<string>({ method: "GET", path: "/readyz" })) === "ok";
    };
    try {
      await waitUntil("the API server being ready", isReady, (is) => is);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.logs()}`);
    }
  }

  /** The API server fails. etcd goes on. */
  async killApi(): Promise<void> {
    await this.#api.stop("SIGKILL");
  }

  /** Starts another of Kubernetes' programs, with access to the API server; `label` names its log. */
  run(
    name: string,
    args: readonly string[],
    { kubeconfig = this.kubeconfig, label = name } = {},
  ): Program {
    const program = this.#add(label, join(programsFolder!, name), [
      `--kubeconfig=${kubeconfig}`,
      ...args,
    ]);
    program.start();
    return program;
  }

  /** Ends a program with the others. */
  keep(program: Program): void {
    this.#programs.push(program);
  }

  logs(lines = 20): string {
    return this.#programs.map((one) => `--- ${one.name}\n${one.log(lines)}`).join("\n");
  }

  async stop(): Promise<void> {
    for (const program of [...this.#programs].reverse()) await program.stop("SIGKILL");
    this.endNow();
  }

  endNow(): void {
    servers.delete(this);
    for (const program of this.#programs) program.endNow();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Ends every server that is still there. For `afterAll`. */
export async function endKubeServers(): Promise<void> {
  for (const server of [...servers]) await server.stop();
}
