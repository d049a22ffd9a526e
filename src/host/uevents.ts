/** Tells when the kernel's NVMe controllers and disks come, go or change. */
import { closeFd, ueventSocket } from "../../ffi/libc.ts";

/** Begins what the kernel says of a device of NVMe: controllers, subsystems, disks. */
const ABOUT_NVME = /(?:^|\0)(?:SUBSYSTEM=nvme|DEVNAME=nvme|DEVPATH=[^\0]*\/nvme)/;

/** True when one of the events in a piece of the stream is about NVMe. */
export function isAboutNvme(events: string): boolean {
  return ABOUT_NVME.test(events);
}

export interface UeventWatch {
  /** Resolves when nothing will be told any more: it was stopped, or the kernel dropped events. */
  readonly ended: Promise<void>;
  stop(): void;
}

/** Calls `changed` upon each event about NVMe. Throws a `NativeError` where there is no such socket. */
export function watchUevents(changed: () => void): UeventWatch {
  const fd = ueventSocket();
  const reader = Bun.file(fd).stream().getReader();
  const decoder = new TextDecoder();
  const read = async (): Promise<void> => {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        if (isAboutNvme(decoder.decode(value))) changed();
      }
    } catch {
      // ENOBUFS: more happened than the socket holds. Whoever listens looks at everything anew.
    } finally {
      closeFd(fd);
    }
  };
  return { ended: read(), stop: () => void reader.cancel() };
}
