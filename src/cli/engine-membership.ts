/**
 * An engine whose node becomes a member of a cluster while it runs: other nodes are served over mutual
 * TLS, with the node's own certificate, as soon as there is one, and with each new one.
 */
import { statSync } from "node:fs";
import { type DataDir, findDataDir, pathsIn } from "../control/membership/data-dir.ts";
import { parsePeerEndpoint } from "../control/membership/names.ts";
import type { Engine } from "../engine/engine.ts";
import { type EngineSettings, RPC_PORT_DEFAULT } from "../engine/settings.ts";
import type { Log } from "../ops/log.ts";

/** How often an engine looks whether its node is a member, or has another certificate. */
const LOOK_MS = 2_000;

export interface Membership {
  /** Resolves when the node has become a member under another name: the engine has to start anew. */
  readonly renamed: Promise<string>;
  stop(): void;
}

/** Looks after it from now on. */
export function followMembership(options: {
  readonly settings: EngineSettings;
  readonly engine: Engine;
  readonly log: Log;
}): Membership {
  const { settings, engine, log } = options;
  const { nodePem, caCert } = pathsIn(settings.dataDir);
  const renamed = Promise.withResolvers<string>();
  let servedMs: number | null = null;
  let isBusy = false;

  const serve = async (member: DataDir, changedMs: number): Promise<void> => {
    const { nodeId, engineEndpoint } = member.identity;
    if (nodeId !== settings.nodeName) {
      renamed.resolve(`the node is called ${nodeId} now`);
      return;
    }
    await engine.serveTls({
      listen: [parsePeerEndpoint(engineEndpoint, RPC_PORT_DEFAULT)],
      certFile: nodePem,
      keyFile: nodePem,
      caFile: caCert,
    });
    servedMs = changedMs;
    log("info", "engine serves the other nodes", { node: nodeId, rpc: engineEndpoint });
  };
  const look = async (): Promise<void> => {
    if (isBusy) return;
    isBusy = true;
    try {
      const changedMs = statSync(nodePem, { throwIfNoEntry: false })?.mtimeMs;
      if (changedMs === undefined || changedMs === servedMs) return;
      if (servedMs === null) {
        const member = findDataDir(settings.dataDir);
        if (member !== null) await serve(member, changedMs);
        return;
      }
      engine.reload();
      servedMs = changedMs;
      log("info", "certificates read again");
    } catch (error) {
      log("error", "other nodes cannot be served, or not with the new certificate", { error });
    } finally {
      isBusy = false;
    }
  };
  void look();
  const timer = setInterval(() => void look(), LOOK_MS);
  return { renamed: renamed.promise, stop: () => clearInterval(timer) };
}
