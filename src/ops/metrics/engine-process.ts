/** Metrics of the engine process: its threads, memory, buffers and stalls. */
import { counter, gauge } from "./definition.ts";
import type { EngineReading } from "./engine-source.ts";
import type { Exposition } from "./exposition.ts";

const NODE = ["node"] as const;
const REACTOR = ["node", "reactor"] as const;

export const engineMetrics = {
  up: gauge("trilith_engine_up", "1 when this node's engine answered this scrape"),
  info: gauge(
    "trilith_engine_info",
    "1; what the engine is",
    ...NODE,
    "version",
    "commit",
    "bun",
    "instance_uuid",
  ),
  startTime: gauge(
    "trilith_engine_start_time_seconds",
    "When the engine was started, in seconds since 1970",
    ...NODE,
  ),
  cpu: counter("trilith_engine_cpu_seconds_total", "Processor time", ...NODE, "mode"),
  resident: gauge("trilith_engine_resident_memory_bytes", "Resident memory", ...NODE),
  mainHeap: gauge(
    "trilith_engine_main_heap_bytes",
    "Garbage-collected memory in use on the main thread",
    ...NODE,
  ),
  openFiles: gauge("trilith_engine_open_fds", "Open file descriptors", ...NODE),
  mainStalls: counter(
    "trilith_engine_main_stalls_total",
    "Turns of the main thread's event loop that took too long",
    ...NODE,
  ),
  mainStallMax: gauge(
    "trilith_engine_main_stall_seconds_max",
    "Longest turn of the main thread's event loop since the engine's start",
    ...NODE,
  ),
} as const;

export const reactorMetrics = {
  busy: counter("trilith_reactor_busy_seconds_total", "Time that was not slept", ...REACTOR),
  turns: counter("trilith_reactor_turns_total", "Turns of the loop", ...REACTOR),
  completions: counter("trilith_reactor_completions_total", "Completions reaped", ...REACTOR),
  sleeps: counter("trilith_reactor_sleeps_total", "Waits that blocked", ...REACTOR),
  spins: counter("trilith_reactor_spins_total", "Waits that polled", ...REACTOR),
  stalls: counter("trilith_reactor_stalls_total", "Turns that took too long", ...REACTOR),
  stallMax: gauge(
    "trilith_reactor_stall_seconds_max",
    "Longest turn since the engine's start",
    ...REACTOR,
  ),
  arena: gauge("trilith_reactor_arena_bytes", "Memory for buffers", ...REACTOR),
  arenaFree: gauge("trilith_reactor_arena_free_bytes", "Of it not in use", ...REACTOR),
  slots: gauge("trilith_reactor_slots", "Requests that can be under way at a time", ...REACTOR),
  slotsFree: gauge("trilith_reactor_slots_free", "Of them not in use", ...REACTOR),
  connections: gauge("trilith_reactor_connections", "Connections of hosts", ...REACTOR),
  heap: gauge("trilith_reactor_heap_bytes", "Garbage-collected memory in use", ...REACTOR),
} as const;

function collectReactors(out: Exposition, { info, usage }: EngineReading): void {
  const m = reactorMetrics;
  for (const reactor of usage.reactors) {
    const of = [info.nodeName, String(reactor.index)];
    out.add(m.busy, of, reactor.busyNs / 1e9);
    out.add(m.turns, of, reactor.turns);
    out.add(m.completions, of, reactor.completions);
    out.add(m.sleeps, of, reactor.sleeps);
    out.add(m.spins, of, reactor.spins);
    out.add(m.stalls, of, reactor.stalls);
    out.add(m.stallMax, of, reactor.stallNsMax / 1e9);
    out.add(m.arena, of, reactor.arenaBytes);
    out.add(m.arenaFree, of, reactor.arenaFreeBytes);
    out.add(m.slots, of, reactor.slots);
    out.add(m.slotsFree, of, reactor.slotsFree);
    out.add(m.connections, of, reactor.connections);
    out.add(m.heap, of, reactor.heapBytes);
  }
}

export function collectEngine(out: Exposition, reading: EngineReading): void {
  const m = engineMetrics;
  const { info, usage } = reading;
  const node = [info.nodeName];
  out.add(m.info, [...node, info.version, info.commit, info.bun, info.instanceUuid], 1);
  out.add(m.startTime, node, Date.parse(info.startedAt) / 1000);
  out.add(m.cpu, [...node, "user"], usage.userUs / 1e6);
  out.add(m.cpu, [...node, "system"], usage.systemUs / 1e6);
  out.add(m.resident, node, usage.rssBytes);
  out.add(m.mainHeap, node, usage.mainHeapBytes);
  out.add(m.openFiles, node, usage.openFiles);
  out.add(m.mainStalls, node, usage.mainStalls);
  out.add(m.mainStallMax, node, usage.mainStallMsMax / 1000);
  collectReactors(out, reading);
}
