/** The parts of a member that decide and carry out: observer, executor, and the service over them. */

import { Executor } from "../control/executor/executor.ts";
import type { DataDir } from "../control/membership/data-dir.ts";
import { type EngineLink, openEngine } from "../control/membership/engine-link.ts";
import { createToken, removeMember, transferLeadership } from "../control/membership/operations.ts";
import type { NodeRecord } from "../control/model.ts";
import { Observer } from "../control/observer/observer.ts";
import { PathReports } from "../control/path-reports.ts";
import type { Warning } from "../control/planner/plan.ts";
import { makeSettingsReader } from "../control/service/settings.ts";
import { createService, type Service } from "../control/service.ts";
import type { EngineClient } from "../engine/rpc/client.ts";
import type { Log } from "../ops/log.ts";
import type { ControlInstruments } from "../ops/metrics/index.ts";
import type { Core } from "./core.ts";
import { MemberWatch } from "./member-watch.ts";
import type { Stack } from "./stack.ts";

/** Clients of the engines of other nodes, over mutual TLS; one each. */
export class EngineLinks {
  readonly #dataDir: DataDir;
  readonly #links = new Map<string, EngineLink>();

  constructor(dataDir: DataDir) {
    this.#dataDir = dataDir;
  }

  /** A client of the node's engine, in the place of a former one. */
  open({ id, engineEndpoint }: NodeRecord): EngineClient {
    this.#links.get(id)?.close();
    const link = openEngine({
      endpoint: engineEndpoint,
      clusterId: this.#dataDir.identity.clusterId,
      nodeId: id,
      credentials: () => this.#dataDir.credentials(),
    });
    this.#links.set(id, link);
    return link.client;
  }

  credentialsChanged(): void {
    for (const link of this.#links.values()) link.credentialsChanged();
  }

  close(): void {
    for (const link of this.#links.values()) link.close();
  }
}

export interface DecisionOptions {
  readonly dataDir: DataDir;
  readonly ownEngine: EngineClient;
  readonly instruments: ControlInstruments;
  readonly log: Log;
}

export interface Decisions {
  readonly service: Service;
  readonly executor: Executor;
  readonly links: EngineLinks;
  readonly members: MemberWatch;
  /** What an operator has to know by the last plan, members that do not answer first. */
  readonly warnings: () => readonly Warning[];
}

/** Makes them, and puts them on the stack. The executor does not run yet. */
export function openDecisions(options: DecisionOptions, core: Core, parts: Stack): Decisions {
  const { dataDir, instruments, log } = options;
  const { store, raft } = core;
  const { nodeId } = dataDir.identity;
  const now = Date.now;
  const settings = makeSettingsReader();
  const links = parts.add(new EngineLinks(dataDir), (open) => open.close());
  const observer = parts.add(
    new Observer({
      clientOf: (node) => (node.id === nodeId ? options.ownEngine : links.open(node)),
      nodeDeadlineMs: () => settings(store.view().settings).nodeDeadlineMs,
      log,
      nowMs: now,
    }),
    (open) => open.stop(),
  );
  const pathReports = new PathReports();
  const executor = parts.add(
    new Executor({
      store,
      observer,
      settings: (view) => settings(view.settings),
      hostPaths: (nowMs) => pathReports.current(nowMs),
      log,
      nowMs: now,
      instruments,
    }),
    (open) => open.stop(),
  );
  const members = new MemberWatch(dataDir, core, log);
  const withMembers = (warnings: readonly Warning[]): readonly Warning[] => [
    ...members.warnings(now()),
    ...warnings,
  ];
  const membership = { dataDir, store, raft, now };
  const service = parts.add(
    createService({
      store,
      observation: observer,
      execution: executor,
      pathReports,
      membership: {
        createToken: (kind, validMs, note) => createToken(membership, kind, validMs, note),
        transferLeadership: (toNode) => transferLeadership(membership, toNode),
        removeMember: (id) => removeMember(membership, id),
      },
      plan: (state) => {
        const made = executor.planNow(state);
        return { ...made, warnings: withMembers(made.warnings) };
      },
      log,
      now,
    }),
    (open) => open.close(),
  );
  parts.add(
    service.onEvent((event) => instruments.happened(event)),
    (unlisten) => unlisten(),
  );
  parts.add(
    store.onLeadership(() => instruments.leadershipChanged()),
    (unlisten) => unlisten(),
  );
  const warnings = () => withMembers(executor.lastWarnings);
  return { service, executor, links, members, warnings };
}
