/** What the machine tells about processes, memory and ports. */
import { readFileSync } from "node:fs";

/** Clock ticks of `/proc` in a second (USER_HZ), the same on every Linux that we run on. */
const TICKS_PER_SEC = 100;

/** CPU time of a process in ns, in steps of 10 ms; threads that have ended count too. */
export function cpuTimeNs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The second field is a name that may hold anything; user and system time are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) / TICKS_PER_SEC) * 1e9;
}

function kibOf(text: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(text);
  return match === null ? 0 : Number(match[1]);
}

/** Memory of a process that is present, in bytes: ordinary pages and huge ones. */
export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return (kibOf(status, "VmRSS") + kibOf(status, "HugetlbPages")) * 1024;
}

/**
 * Memory of a process that is present in mappings meant for huge pages, in bytes: the arenas of an
 * engine without memory devices.
 */
export function hugeMappedBytes(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps`, "utf8");
  let kib = 0;
  for (const mapping of text.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const flags = /^VmFlags: (.*)$/m.exec(mapping)?.[1]?.split(" ") ?? [];
    if (!flags.includes("hg") && !flags.includes("ht")) continue;
    kib += kibOf(mapping, "Rss") + kibOf(mapping, "Private_Hugetlb");
  }
  return kib * 1024;
}

/** Memory that could be taken, in MiB. */
export function availableMib(): number {
  return kibOf(readFileSync("/proc/meminfo", "utf8"), "MemAvailable") / 1024;
}

/** Huge pages that nobody uses, in MiB. */
export function freeHugeMib(): number {
  const text = readFileSync("/proc/meminfo", "utf8");
  const pages = Number(/^HugePages_Free:\s+(\d+)/m.exec(text)?.[1] ?? 0);
  return (pages * kibOf(text, "Hugepagesize")) / 1024;
}

/** Processes that wanted to run in the last minute, on average. */
export function loadAverage(): number {
  return Number(readFileSync("/proc/loadavg", "utf8").split(" ")[0]);
}

/** Model of the CPU. */
export function cpuModel(): string {
  return /^model name\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "unknown";
}

/** Ports of 127.0.0.1 that nobody listens on now. */
export function freePorts(count: number): number[] {
  const listeners = Array.from({ length: count }, () =>
    Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }),
  );
  const ports = listeners.map(({ port }) => port);
  for (const listener of listeners) listener.stop(true);
  return ports;
}
