/** Bounds of the collector of volumes. */

/** How long a volume has to be without anybody's claim before it goes (mayastor.md 3.3). */
export const UNCLAIMED_MS = 60_000;
/** How often volumes without a claim are looked for, where that is asked for (mayastor.md 3.3). */
export const SWEEP_MS = 600_000;
/** How often it is looked whether a volume whose PersistentVolume was deleted is still there. */
export const LOOK_MS = 15_000;
