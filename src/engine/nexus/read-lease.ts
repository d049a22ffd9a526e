/**
 * The read lease: what keeps a nexus that has been superseded from answering reads with old data.
 *
 * A superseded nexus can acknowledge no write (DESIGN 6.5), but it could answer reads from the replica on
 * its own node for as long as it has not heard of its successor: cut off from all nodes but its host, or
 * stopped and resumed. So a read is answered only while the nexus holds a lease from every child that the
 * record calls healthy and that is on another node. Such a child grants it with the claim and renews it by
 * one command (refused like a write once another nexus has the reservation); the nexus counts `READ_LEASE_MS` from *before* it
 * sent it, the child's engine `READ_LEASE_HELD_MS`, which is longer by more than clocks drift, from when it
 * carried it out.
 *
 * Why that suffices. Let O be the old nexus, N the new one, H the replicas recorded as healthy when N's
 * epoch was committed. N opens with at least one r of H, and O can have nothing recorded any more, so r is
 * a child that O believes recorded as healthy:
 *
 * 1. r is on another node than O. N's claim takes r's reservation first: O renews no more there. Then r's
 *    engine answers the claim only when every lease that it granted to others has run out, so N lets its
 *    first write in when O's lease is over by O's own clock.
 * 2. r is on O's node. The claim tells O at once, on its own reactor, before it is answered.
 *
 * A read is judged when its data is there, by the time of that turn of the reactor: the lease was then
 * valid after the host had sent it, so no write that was acknowledged before it was sent can be missing
 * (later ones are concurrent to it). A process that was stopped takes the time anew when it goes on, before
 * it looks at anything that came meanwhile. The clock is the kernel's monotonic one that goes on during a
 * suspend; a virtual machine that is frozen together with its clocks is beyond this.
 *
 * What ends a lease early. A nexus that gives up a connection to a child voids that child's lease before the
 * socket is shut down. So when the *holder's* side ends a connection (FIN or RST: it closed it, or its
 * process has died), the child's engine need not wait for what was granted over it: a killed node delays nobody.
 * That an association ended by the child's own engine, or by silence, proves nothing; then time has to pass. An engine that
 * has restarted does not know what it granted: it waits as long since its start, unless the reservation on
 * the disk was held by a nexus of its own, which died with it.
 *
 * What it costs. One compare per request. Leases are renewed when requests come and half of the time is over,
 * so idle volumes do nothing; the first read after a silence waits for one exchange. Nexuses whose healthy
 * children are all on their own node need no lease. None of this asks the control plane: a volume whose children
 * answer is read while the leader or its majority is away. When a child does not answer, reads wait as
 * writes do until its loss is recorded: that is how a child is noticed whose node has stopped, or whose
 * link is down, while its connection stands.
 */
import { TrilithError } from "../../errors.ts";
import type { Child } from "./child.ts";
import type { NexusCore } from "./core.ts";
import { CHILD_SILENT_PERIOD_MS, CHILD_SILENT_PERIODS, READ_LEASE_MS } from "./limits.ts";

const LEASE_NS = READ_LEASE_MS * 1e6;
/** Renewals begin when this much of a lease is left. */
const RENEW_LEFT_NS = LEASE_NS / 2;

/** What the lease asks of the membership. */
export interface ReadLeaseUser {
  /** A child did not renew; `error` says why. */
  linkFailed(child: Child, error: unknown): void;
}

export class ReadLease {
  readonly #core: NexusCore;
  readonly #user: ReadLeaseUser;
  #renewals = 0;
  #isLooking = false;

  constructor(core: NexusCore, user: ReadLeaseUser) {
    this.#core = core;
    this.#user = user;
  }

  /** Derives from the children until when reads may be answered; to be called when they have changed. */
  apply(): void {
    let sinceNs = Number.POSITIVE_INFINITY;
    for (const child of this.#core.present()) {
      if (isGrantor(child) && child.leaseSinceNs < sinceNs) sinceNs = child.leaseSinceNs;
    }
    const { io } = this.#core;
    io.readUntilNs = sinceNs + LEASE_NS;
    io.renewAtNs = io.readUntilNs - RENEW_LEFT_NS;
  }

  /** The association with a child is being given up: its lease is void from now on. */
  lost(child: Child): void {
    child.leaseSinceNs = Number.NEGATIVE_INFINITY;
    child.leaseLosses++;
    this.apply();
  }

  /** Requests come and half of a lease is over: has it renewed wherever that is not under way. */
  renew(): void {
    for (const child of this.#core.present()) {
      const leftNs = child.leaseSinceNs + LEASE_NS - this.#core.reactor.now;
      if (!isGrantor(child) || child.renewal !== 0 || leftNs > RENEW_LEFT_NS) continue;
      child.renewal = ++this.#renewals;
      void this.#renew(child, child.renewal);
      void this.#watch(child, child.renewal);
    }
  }

  async #renew(child: Child, renewal: number): Promise<void> {
    const core = this.#core;
    const { device, leaseLosses } = child;
    const sentNs = core.reactor.now;
    try {
      await device?.link?.lease?.renew();
    } catch (error) {
      if (child.renewal !== renewal) return;
      child.renewal = 0;
      // Of a device that the child has no more, nothing is to be heard.
      if (child.device === device) this.#user.linkFailed(child, error);
      return;
    }
    if (child.renewal !== renewal) return;
    child.renewal = 0;
    if (child.device !== device || child.leaseLosses !== leaseLosses) {
      // Held reads may wait for this very child: they ask again.
      if (core.io.failingMask === 0) core.io.releaseHeld();
      return;
    }
    child.leaseSinceNs = sentNs;
    this.apply();
    this.lookAgain();
    const isReadable = core.io.failingMask === 0 && core.reactor.now < core.io.readUntilNs;
    if (isReadable && core.ended !== "superseded") core.io.releaseHeld();
  }

  /** A child that does not answer is lost: its connection may stand for long when its node has stopped. */
  async #watch(child: Child, renewal: number): Promise<void> {
    for (let period = 0; period < CHILD_SILENT_PERIODS; period++) {
      await this.#core.reactor.sleep(CHILD_SILENT_PERIOD_MS);
      if (child.renewal !== renewal) return;
    }
    child.renewal = 0;
    const what = `child ${child.uri} does not answer`;
    this.#user.linkFailed(child, new TrilithError("Timeout", what));
  }

  /** Requests that are under way when the lease is to be renewed may wait for a child that has stopped. */
  lookAgain(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const { reactor } = this.#core;
    reactor.after((LEASE_NS - RENEW_LEFT_NS) / 1e6, () => {
      this.#isLooking = false;
      if (this.#core.ended === null && this.#core.io.inFlight > 0) this.renew();
    });
  }
}

/** A child whose lease counts: recorded as healthy, and a replica of another node's engine. */
function isGrantor(child: Child): boolean {
  return child.recordedHealthy && child.device?.link?.lease !== undefined;
}
