/** What crosses between the demonstration and the thread that puts load on its volume. */
import type { LoadResult, LoadStats } from "../engine/bench/load.ts";

export interface LoadRequest {
  /** The volume: an `nvmf+tcp://` URI. */
  readonly uri: string;
  readonly requestBytes: number;
  readonly queueDepth: number;
  readonly readPercent: number;
  /** Bytes from the start of the volume that are written and verified. */
  readonly size: number;
  readonly seed: number;
}

/** What the load's thread does. */
export interface LoadMethods {
  /** Connects and begins; resolves when requests flow. */
  start(request: LoadRequest): Promise<void>;
  stats(input: Record<string, never>): Promise<LoadStats>;
  /** Ends the load, reads everything back, and resolves with the outcome. */
  finish(input: Record<string, never>): Promise<LoadResult>;
}

/** What it tells the main thread. */
export interface LoadUser {
  ready(input: Record<string, never>): Promise<void>;
}
