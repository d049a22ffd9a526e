/**
 * What the parts of the control process count as they work. They call these functions; each scrape
 * reads what has come together. None of them throws or waits.
 */
import type { NewEvent } from "../../control/model.ts";
import type { Plan } from "../../control/planner/plan.ts";
import { counter, gauge, histogram } from "./definition.ts";
import type { Exposition } from "./exposition.ts";
import { CounterInstrument, HistogramInstrument } from "./instruments.ts";

export const controlMetrics = {
  proposal: histogram(
    "trilith_raft_proposal_seconds",
    "Time from the proposal of a command until it was applied here",
  ),
  proposalFailures: counter(
    "trilith_raft_proposal_failures_total",
    "Proposals without a known outcome, or without a leader",
  ),
  leaderChanges: counter(
    "trilith_raft_leader_changes_total",
    "Times that this node became leader or stopped being it",
  ),
  pass: histogram("trilith_planner_pass_seconds", "Time that the planner took for one pass"),
  works: gauge("trilith_planner_works", "Subjects with work to do in the planner's last pass"),
  steps: gauge("trilith_planner_steps", "Steps to be taken in the planner's last pass"),
  step: histogram(
    "trilith_executor_step_seconds",
    "Time that a step took, by what it calls (`store`, or a method of the engine)",
    "call",
  ),
  stepFailures: counter(
    "trilith_executor_step_failures_total",
    "Steps that failed, by what they call and the error's code",
    "call",
    "code",
  ),
  request: histogram(
    "trilith_api_request_seconds",
    "Time until a request of the API was answered",
    "method",
    "route",
    "code",
  ),
  volumeEvents: counter("volume", "Volumes created and deleted in the cluster", "action"),
  poolEvents: counter("pool", "Pools created and deleted in the cluster", "action"),
  nexusEvents: counter(
    "nexus",
    "Nexuses created and deleted, rebuilds begun and ended in the cluster",
    "action",
  ),
} as const;

/** Mayastor's names of what is counted (mayastor.md 6, source B), by category and action of events. */
const countedEvents: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  Volume: { Create: "created", Delete: "deleted" },
  Pool: { Create: "created", Delete: "deleted" },
  Nexus: {
    Create: "created",
    Delete: "deleted",
    RebuildBegin: "rebuild_started",
    RebuildEnd: "rebuild_ended",
  },
};

export interface ControlInstruments {
  /** A proposal ended after `ms`; `applied`: its outcome is known. */
  proposed(ms: number, applied: boolean): void;
  leadershipChanged(): void;
  /** The planner has made a plan in `ms`. */
  planned(ms: number, plan: Plan): void;
  /** A step ended. `call`: `store` or the engine's method; `code`: the error's, null when it went well. */
  stepped(call: string, ms: number, code: string | null): void;
  /** A request was answered. `route`: its pattern (`/v0/volumes/:volume_id`), never its path. */
  requested(method: string, route: string, status: number, ms: number): void;
  /** An event of the store was applied. */
  happened(event: NewEvent): void;
  collect(out: Exposition): void;
}

/** Instruments at zero. */
export function controlInstruments(): ControlInstruments {
  const m = controlMetrics;
  const histograms = {
    proposal: new HistogramInstrument(m.proposal),
    pass: new HistogramInstrument(m.pass),
    step: new HistogramInstrument(m.step),
    request: new HistogramInstrument(m.request),
  };
  const counters = {
    proposalFailures: new CounterInstrument(m.proposalFailures),
    leaderChanges: new CounterInstrument(m.leaderChanges),
    stepFailures: new CounterInstrument(m.stepFailures),
    Volume: new CounterInstrument(m.volumeEvents),
    Pool: new CounterInstrument(m.poolEvents),
    Nexus: new CounterInstrument(m.nexusEvents),
  };
  const eventCounters: Readonly<Record<string, CounterInstrument>> = {
    Volume: counters.Volume,
    Pool: counters.Pool,
    Nexus: counters.Nexus,
  };
  for (const [category, actions] of Object.entries(countedEvents)) {
    for (const action of Object.values(actions)) eventCounters[category]?.add([action], 0);
  }
  let last = { works: 0, steps: 0 };
  return {
    proposed(ms, applied) {
      if (applied) histograms.proposal.observe(ms / 1000);
      else counters.proposalFailures.add();
    },
    leadershipChanged: () => counters.leaderChanges.add(),
    planned(ms, { works }) {
      histograms.pass.observe(ms / 1000);
      last = {
        works: works.length,
        steps: works.reduce((sum, work) => sum + work.steps.length, 0),
      };
    },
    stepped(call, ms, code) {
      histograms.step.observe(ms / 1000, [call]);
      if (code !== null) counters.stepFailures.add([call, code]);
    },
    requested: (method, route, status, ms) =>
      histograms.request.observe(ms / 1000, [method, route, String(status)]),
    happened({ category, action }) {
      const name = countedEvents[category]?.[action];
      if (name !== undefined) eventCounters[category]?.add([name]);
    },
    collect(out) {
      for (const instrument of Object.values(histograms)) instrument.collect(out);
      for (const instrument of Object.values(counters)) instrument.collect(out);
      out.add(m.works, [], last.works);
      out.add(m.steps, [], last.steps);
    },
  };
}
