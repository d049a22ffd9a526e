/** The agent that asks a cluster where its volumes are, and tells it which paths are lost. */
import { hostname } from "node:os";
import type { Log } from "../ops/log.ts";
import { Agent } from "./agent.ts";
import { type ClusterClients, clusterPaths } from "./cluster-paths.ts";
import { type HostKernel, linuxKernel } from "./kernel.ts";
import { PathReporter } from "./reporter.ts";

export interface ClusterAgentOptions {
  readonly clients: ClusterClients;
  readonly stateFile: string;
  readonly log: Log;
  /** Default: that of this machine. */
  readonly kernel?: HostKernel;
}

/** Makes it; `keep` has it keep the connections, `close` ends it. */
export function clusterAgent({ clients, stateFile, log, kernel }: ClusterAgentOptions): Agent {
  const reporter = new PathReporter({
    hostName: hostname(),
    send: (report) => clients.call((client) => client.reportPaths(report)),
    failed: (error) => log("warn", "lost paths cannot be told to the cluster", { error }),
  });
  const agent: Agent = new Agent({
    kernel: kernel ?? linuxKernel,
    stateFile,
    source: clusterPaths(clients),
    log,
    // Who only connects, or looks, has not seen enough to tell.
    onPass: (volumes, view) => {
      if (agent.isKeeper) reporter.observe(volumes, view);
    },
  });
  return agent;
}
