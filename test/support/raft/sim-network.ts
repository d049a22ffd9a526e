/** A simulated network between members: loses, delays, doubles, reorders and cuts, one way or both. */
import type { Random } from "../random.ts";
import type { SimTime } from "./sim-time.ts";

export interface NetworkFaults {
  /** Probabilities per message. */
  loss: number;
  duplication: number;
  /** A message takes between these, or now and then ten times as long: so they overtake each other. */
  delayMinMs: number;
  delayMaxMs: number;
  /** Probability that a snapshot is lost or arrives damaged. */
  snapshotLoss: number;
}

export const quietNetwork: NetworkFaults = {
  loss: 0,
  duplication: 0,
  delayMinMs: 1,
  delayMaxMs: 5,
  snapshotLoss: 0,
};

export class SimNetwork {
  faults: NetworkFaults = { ...quietNetwork };
  readonly #time: SimTime;
  readonly #random: Random;
  /** Directed: "from>to". */
  readonly #cut = new Set<string>();
  sent = 0;
  lost = 0;

  constructor(time: SimTime, random: Random) {
    this.#time = time;
    this.#random = random;
  }

  cut(from: string, to: string): void {
    this.#cut.add(`${from}>${to}`);
  }

  heal(): void {
    this.#cut.clear();
  }

  isCut(from: string, to: string): boolean {
    return this.#cut.has(`${from}>${to}`);
  }

  delay(): number {
    const { delayMinMs, delayMaxMs } = this.faults;
    const delayMs = delayMinMs + this.#random.next() * (delayMaxMs - delayMinMs);
    return this.faults.loss > 0 && this.#random.chance(0.02) ? delayMs * 10 : delayMs;
  }

  /** Carries something: never, once, or twice; the cut is asked when it leaves and when it arrives. */
  carry(from: string, to: string, arrive: () => void): void {
    this.sent++;
    const copies = this.#random.chance(this.faults.duplication) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (this.isCut(from, to) || this.#random.chance(this.faults.loss)) {
        this.lost++;
        continue;
      }
      this.#time.after(this.delay(), () => {
        if (!this.isCut(from, to)) arrive();
      });
    }
  }
}
