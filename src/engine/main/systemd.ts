/** Notifications to systemd (sd_notify(3)), when the process was started by it. */
import { sendUnixDatagram } from "../../../ffi/index.ts";

/**
 * Sends a state such as `READY=1`. Without systemd nothing happens, and a notification that cannot
 * be delivered is no reason to stop: systemd then acts on its absence.
 */
export function notifySystemd(state: string): void {
  const path = process.env.NOTIFY_SOCKET;
  if (path === undefined || path === "") return;
  sendUnixDatagram(path, state);
}

/** Time within which systemd wants a `WATCHDOG=1`; undefined when it does not. */
export function watchdogMs(): number | undefined {
  const us = Number(process.env.WATCHDOG_USEC ?? "");
  const pid = process.env.WATCHDOG_PID;
  if (!(us > 0) || (pid !== undefined && Number(pid) !== process.pid)) return undefined;
  return us / 1000;
}
