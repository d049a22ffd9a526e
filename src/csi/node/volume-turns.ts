/** One call at a time per volume: CSI asks for `ABORTED` when another one is under way. */
import { TrilithError } from "../../errors.ts";

export interface VolumeTurns {
  /** Runs `action` unless another one runs for this volume. `Aborted` names the other. */
  take<T>(volumeUuid: string, what: string, action: () => Promise<T>): Promise<T>;
}

export function volumeTurns(): VolumeTurns {
  const running = new Map<string, string>();
  return {
    async take(volumeUuid, what, action) {
      const other = running.get(volumeUuid);
      if (other !== undefined) {
        throw new TrilithError(
          "Aborted",
          `${other} of volume ${volumeUuid} is still under way on this node`,
          "it is tried again by itself; if this goes on, look whether the volume's target answers",
        );
      }
      running.set(volumeUuid, what);
      try {
        return await action();
      } finally {
        running.delete(volumeUuid);
      }
    },
  };
}
