/**
 * What the parts of one nexus share: its identity, its children, its I/O path, the gate that keeps
 * host requests waiting, and the queue in which changes of membership run one after the other.
 */
import { assert } from "../../assert.ts";
import type { BdevListeners } from "../bdev/bdev.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { Child, OpenChild } from "./child.ts";
import type { RebuildMemory } from "./child-io.ts";
import type { IoPath, NexusRequests } from "./io-path.ts";
import { CHILDREN_MAX } from "./limits.ts";
import type { RebuildRecord } from "./rebuild.ts";
import type { FaultRecorder } from "./recorder.ts";
import type { Regions } from "./regions.ts";
import type { ScrubFinding, ScrubRecord } from "./scrub-record.ts";
import type { ChildReason, ChildState } from "./states.ts";

/** Something an operator or the control plane should hear of. */
export type NexusEvent =
  | {
      readonly kind: "child-state";
      readonly uri: string;
      readonly state: ChildState;
      readonly reason: ChildReason;
    }
  | { readonly kind: "rebuild-started"; readonly rebuild: RebuildRecord }
  | { readonly kind: "rebuild-ended"; readonly rebuild: RebuildRecord }
  | { readonly kind: "scrub-started" | "scrub-ended"; readonly scrub: ScrubRecord }
  /** Children differed, or one could not be read. */
  | { readonly kind: "scrub-mismatch"; readonly finding: ScrubFinding }
  /** No in-sync child is left: host requests wait. */
  | { readonly kind: "io-held"; readonly reason: string }
  | { readonly kind: "io-resumed" }
  /** The loss of a child cannot be recorded: the volume may have moved, and hosts had better look elsewhere. */
  | { readonly kind: "unsettled"; readonly reason: string }
  /** A newer epoch is active: this nexus has stopped for good. */
  | { readonly kind: "superseded"; readonly reason: string };

/** What surrounds the nexuses of one reactor. */
export interface NexusContext {
  readonly reactor: Reactor;
  readonly requests: NexusRequests;
  readonly rebuildMemory: RebuildMemory;
  readonly openChild: OpenChild;
  readonly recorder: FaultRecorder;
  readonly onEvent: (nexusUuid: string, event: NexusEvent) => void;
  /** Milliseconds since 1970. */
  readonly clockMs: () => number;
}

export interface NexusIdentity {
  /** Name of the device: the volume's UUID, or any name for a nexus without a volume. */
  readonly name: string;
  /** UUID of this incarnation. */
  readonly uuid: string;
  readonly volumeUuid: string;
  readonly epoch: number;
}

/** Why host requests are kept waiting. */
export type GateReason = "opening" | "paused" | "quiesced" | "held" | "closing";

export class NexusCore {
  readonly context: NexusContext;
  readonly identity: NexusIdentity;
  readonly blockSize: number;
  readonly regions: Regions;
  readonly listeners: BdevListeners;
  readonly children: (Child | null)[] = new Array<Child | null>(CHILDREN_MAX).fill(null);
  io!: IoPath;
  sizeBytes: number;
  generation = 0;
  baseGeneration = 0;
  /** Children that the volume is to have: as long as some are missing the log is kept for them. */
  wantedChildren = 0;
  /** Set once: by an orderly close or by a newer epoch. Nothing begins after that. */
  ended: "closing" | "superseded" | null = null;

  /** How often the gate is closed for each reason. */
  readonly #gate = new Map<GateReason, number>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(
    context: NexusContext,
    identity: NexusIdentity,
    shape: { blockSize: number; sizeBytes: number },
    regions: Regions,
    listeners: BdevListeners,
  ) {
    this.context = context;
    this.identity = identity;
    this.blockSize = shape.blockSize;
    this.sizeBytes = shape.sizeBytes;
    this.regions = regions;
    this.listeners = listeners;
    this.#gate.set("opening", 1);
  }

  get reactor(): Reactor {
    return this.context.reactor;
  }

  present(): Child[] {
    return this.children.filter((child): child is Child => child !== null);
  }

  inSync(): Child[] {
    return this.present().filter((child) => child.phase === "in-sync");
  }

  /** Every configured child is in sync: nothing needs the write-intent log but a crash. */
  get isFull(): boolean {
    return this.present().every((child) => child.phase === "in-sync");
  }

  /** A replica that the volume has lost may come back: what it has missed stays marked. */
  get isAwaiting(): boolean {
    return this.inSync().length < this.wantedChildren;
  }

  find(uri: string): Child | undefined {
    return this.present().find((child) => child.uri === uri);
  }

  emit(event: NexusEvent): void {
    this.context.onEvent(this.identity.uuid, event);
  }

  emitChild(child: Child): void {
    this.emit({ kind: "child-state", uri: child.uri, state: child.state, reason: child.reason });
  }

  // ------------------------------------------------------------------------------------ the gate

  closeGate(reason: GateReason): void {
    this.#gate.set(reason, (this.#gate.get(reason) ?? 0) + 1);
    this.io.closeGate();
  }

  /** Takes one closing back; requests flow again when it was the last. */
  openGate(reason: GateReason): void {
    const count = this.#gate.get(reason) ?? 0;
    assert(count > 0, `the gate was closed for being ${reason}`);
    if (count > 1) this.#gate.set(reason, count - 1);
    else this.#gate.delete(reason);
    if (this.#gate.size > 0 || this.ended !== null) return;
    if (this.io.syncMask !== 0 && this.io.failingMask === 0) this.io.openGate();
    else this.#gate.set("held", 1); // A child was lost meanwhile; settling that opens the gate.
  }

  gateHas(reason: GateReason): boolean {
    return this.#gate.has(reason);
  }

  /** Runs `change` with no host request under way. */
  async quiesced<T>(change: () => Promise<T>): Promise<T> {
    this.closeGate("quiesced");
    try {
      await this.io.idle();
      return await change();
    } finally {
      this.openGate("quiesced");
    }
  }

  /** Runs changes of membership one after the other. */
  serialize<T>(change: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(change);
    this.#tail = run.then(
      () => undefined,
      () => undefined,
    );
    return run;
  }
}
