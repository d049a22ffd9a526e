/** Ctrl-C for work that goes on in the cluster without us: waiting ends, the work does not. */
import type { CliContext } from "./context.ts";

/** Exit status of what SIGINT ended, as shells report it. */
export const INTERRUPTED_STATUS = 130;

export interface Interruption {
  /** The user has interrupted. */
  readonly now: boolean;
  /** Resolves with null when the user interrupts. */
  readonly happens: Promise<null>;
  /** Hands Ctrl-C back: the next one ends the process. */
  readonly release: () => void;
}

/** Takes Ctrl-C over until it is released. */
export function interruption(context: CliContext): Interruption {
  let interrupted = false;
  let tell: (value: null) => void = () => {};
  const happens = new Promise<null>((resolve) => {
    tell = resolve;
  });
  const release =
    context.onInterrupt?.(() => {
      interrupted = true;
      tell(null);
      // Whoever presses it again means the process itself.
      release();
    }) ?? (() => {});
  return {
    get now() {
      return interrupted;
    },
    happens,
    release,
  };
}
