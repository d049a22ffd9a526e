/** Names of ANA states as the Linux kernel prints them, and their numbers (Base 2.0, 8.1). */
export const AnaStates = {
  optimized: 1,
  "non-optimized": 2,
  inaccessible: 3,
  "persistent-loss": 4,
  change: 15,
} as const;
export type AnaState = keyof typeof AnaStates;
