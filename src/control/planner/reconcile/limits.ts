/** Bounds of what reconciliation waits for and keeps. */

/** A resource that could not be created for so long is given up, and what was made of it removed. */
export const CREATE_PATIENCE_MS = 30_000;
/** A call while a volume is paused, which its hosts feel, is not waited for longer. */
export const PAUSED_CALL_MS = 5_000;
/** Children that a nexus can have. */
export const CHILDREN_MAX = 8;
