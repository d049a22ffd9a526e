/** Metrics of the process that answers the scrape, under the names that Prometheus' clients use. */
import { readdirSync } from "node:fs";
import { buildInfo } from "../../version.ts";
import type { LoopStalls } from "../event-loop.ts";
import { counter, gauge } from "./definition.ts";
import type { Exposition } from "./exposition.ts";

export const processMetrics = {
  build: gauge("trilith_build_info", "1; which build this is", "version", "commit", "bun"),
  cpu: counter("process_cpu_seconds_total", "Processor time of the control process"),
  resident: gauge("process_resident_memory_bytes", "Resident memory of the control process"),
  heap: gauge("trilith_control_heap_bytes", "Garbage-collected memory in use"),
  startTime: gauge("process_start_time_seconds", "When it was started, in seconds since 1970"),
  openFiles: gauge("process_open_fds", "Its open file descriptors"),
  stalls: counter(
    "trilith_control_loop_stalls_total",
    "Turns of the control process's event loop that took longer than 50 ms",
  ),
  stallSum: counter(
    "trilith_control_loop_stall_seconds_total",
    "Time that turns of the event loop beyond 50 ms took",
  ),
  stallMax: gauge(
    "trilith_control_loop_stall_seconds_max",
    "Longest turn of the control process's event loop since its start",
  ),
} as const;

export function collectProcess(out: Exposition, nowMs: number, loop: LoopStalls | null): void {
  const m = processMetrics;
  const memory = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  out.add(m.build, [buildInfo.version, buildInfo.commit, buildInfo.bun], 1);
  out.add(m.cpu, [], (user + system) / 1e6);
  out.add(m.resident, [], memory.rss);
  out.add(m.heap, [], memory.heapUsed);
  out.add(m.startTime, [], nowMs / 1000 - process.uptime());
  out.add(m.openFiles, [], readdirSync("/proc/self/fd").length);
  if (loop === null) return;
  out.add(m.stalls, [], loop.stalls);
  out.add(m.stallSum, [], loop.stallMsSum / 1000);
  out.add(m.stallMax, [], loop.stallMsMax / 1000);
}
