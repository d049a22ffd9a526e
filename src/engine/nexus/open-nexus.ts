/**
 * Opening a nexus: which children may serve, which are behind, and what has to be made equal after
 * the last nexus died without closing.
 *
 * A child is in sync when the record calls it healthy and its generation is the highest found. After
 * an unclean stop in-sync children may differ in the dirty regions, where writes that were never
 * acknowledged may have reached some of them: one of them serves, the others are resynced from it
 * (they hold every acknowledged write, so each can take over should that one fail).
 */
import { TrilithError } from "../../errors.ts";
import { type Bdev, bdevBytes } from "../bdev/bdev.ts";
import { Child, type ChildDevice } from "./child.ts";
import type { NexusContext, NexusIdentity } from "./core.ts";
import { CHILDREN_MAX } from "./limits.ts";
import { Nexus } from "./nexus.ts";
import { bitsOf, type SyncState } from "./replica-link.ts";

/** What a nexus is made of. */
export interface NexusOptions extends NexusIdentity {
  /** Size of the device; undefined: that of the smallest child. */
  readonly sizeBytes: number | undefined;
  readonly children: readonly {
    readonly uri: string;
    /** What the durable record says. */
    readonly healthy: boolean;
  }[];
}

interface Opened {
  readonly child: Child;
  readonly state: SyncState | undefined;
}

function checkOptions(options: NexusOptions): void {
  const { name, children } = options;
  const uris = new Set(children.map((child) => child.uri));
  if (uris.size !== children.length) {
    throw new TrilithError("InvalidArgument", `nexus ${name}: a child is named twice`);
  }
  if (children.length === 0 || children.length > CHILDREN_MAX) {
    throw new TrilithError(
      "InvalidArgument",
      `nexus ${name}: ${children.length} children, not 1 to ${CHILDREN_MAX}`,
    );
  }
  if (!children.some((child) => child.healthy)) {
    throw new TrilithError(
      "FailedPrecondition",
      `nexus ${name}: none of its children is healthy`,
      "name a child that holds the latest data as healthy",
    );
  }
  if (!(options.epoch >= 1 && options.epoch <= 2 ** 36)) {
    throw new TrilithError("InvalidArgument", `nexus ${name}: epoch ${options.epoch} is not valid`);
  }
}

/** Opens the healthy children's devices; those that cannot be opened are undefined. */
async function openDevices(
  context: NexusContext,
  options: NexusOptions,
): Promise<Map<string, ChildDevice | TrilithError>> {
  const devices = new Map<string, ChildDevice | TrilithError>();
  const open = async (uri: string): Promise<void> => {
    try {
      devices.set(uri, await context.openChild(uri));
    } catch (error) {
      if (!(error instanceof TrilithError) || error.code === "Internal") throw error;
      devices.set(uri, error);
    }
  };
  await Promise.all(options.children.filter((c) => c.healthy).map((c) => open(c.uri)));
  return devices;
}

function smallest(bdevs: readonly Bdev[]): Bdev {
  return bdevs.reduce((a, b) => (bdevBytes(b) < bdevBytes(a) ? b : a));
}

/**
 * Opens a nexus. Errors: InvalidArgument (children do not fit), FailedPrecondition (no healthy
 * child, a child has newer data), Superseded (a newer epoch holds a replica or is recorded),
 * Unavailable (no healthy child or recorder can be reached).
 */
export async function openNexus(context: NexusContext, options: NexusOptions): Promise<Nexus> {
  checkOptions(options);
  const devices = await openDevices(context, options);
  const opened = [...devices.values()].filter((d): d is ChildDevice => !(d instanceof Error));
  if (opened.length === 0) {
    const reasons = [...devices].map(([uri, error]) => `${uri}: ${(error as Error).message}`);
    throw new TrilithError(
      "Unavailable",
      `nexus ${options.name}: no healthy child can be opened (${reasons.join("; ")})`,
    );
  }
  const first = smallest(opened.map((device) => device.bdev));
  const sizeBytes = options.sizeBytes ?? bdevBytes(first);
  const { name, uuid, volumeUuid, epoch } = options;
  const identity = { name, uuid, volumeUuid, epoch };
  const nexus = new Nexus(context, identity, { blockSize: first.blockSize, sizeBytes });
  try {
    if (sizeBytes <= 0 || sizeBytes % first.blockSize !== 0) {
      throw new TrilithError(
        "InvalidArgument",
        `nexus ${name}: a size of ${sizeBytes} bytes is not whole blocks of ${first.blockSize}`,
      );
    }
    const claimed = await attachAll(nexus, options, devices);
    await start(nexus, claimed);
    return nexus;
  } catch (error) {
    nexus.core.ended ??= "closing";
    await nexus.intent.stop();
    for (const child of nexus.core.present()) await nexus.membership.detach(child);
    for (const device of devices.values()) {
      if (!(device instanceof Error)) await device.close(); // Never attached to a child.
    }
    throw error;
  }
}

/** Makes the children, attaches and fences the devices that opened. */
async function attachAll(
  nexus: Nexus,
  options: NexusOptions,
  devices: Map<string, ChildDevice | TrilithError>,
): Promise<Opened[]> {
  const { core, membership } = nexus;
  const opened: Child[] = [];
  for (const [index, { uri, healthy }] of options.children.entries()) {
    const child = new Child(uri, index, healthy);
    core.children[index] = child;
    const device = devices.get(uri);
    if (device === undefined || device instanceof Error) {
      child.phase = "out";
      child.reason = device === undefined ? "out-of-sync" : "cannot-open";
      continue;
    }
    membership.attach(child, device);
    devices.delete(uri);
    nexus.checkShape(child);
    opened.push(child);
  }
  // At the same time, so that leases of a former nexus run out together.
  const claims = await Promise.allSettled(opened.map((child) => membership.claim(child, false)));
  const claimed: Opened[] = [];
  for (const [index, child] of opened.entries()) {
    const claim = claims[index]!;
    if (claim.status === "fulfilled") {
      // One that was lost again meanwhile is out already.
      if (child.phase === "opening") claimed.push({ child, state: claim.value });
      continue;
    }
    const error: unknown = claim.reason;
    const isLost = error instanceof TrilithError && error.code === "Unavailable";
    if (!isLost) throw error;
    child.phase = "out";
    child.reason = "cannot-open";
  }
  return claimed;
}

/** Decides who serves, records it, and lets requests in. */
async function start(nexus: Nexus, claimed: readonly Opened[]): Promise<void> {
  const { core, membership, intent } = nexus;
  const generations = claimed.map(({ state }) => state?.generation ?? 0);
  const highest = Math.max(...generations);
  if (highest === 0) assertBlank(nexus, claimed);
  const newest = claimed.filter(({ state }) => state === undefined || state.generation === highest);
  // What a child lacks after a power loss, others still have: it is behind. Where all of them may lack
  // something, nobody knows better than any of them.
  const whole = newest.filter(({ child }) => !child.mayLack);
  const current = whole.length > 0 ? whole : newest;
  if (current.length === 0) {
    throw new TrilithError("Unavailable", `nexus ${nexus.name}: no healthy child can be reached`);
  }
  // Whoever does not serve now is behind from now on, even a replica that was given the present
  // generation at the end of a rebuild which nobody lived to record.
  core.generation = highest + 1;
  core.baseGeneration = Math.max(...current.map(({ state }) => state?.baseGeneration ?? 0));
  if (highest === 0) core.baseGeneration = core.generation;
  for (const { child } of claimed) {
    if (current.some((c) => c.child === child)) {
      child.phase = "in-sync";
      child.reason = "none";
    } else {
      child.phase = "out";
      child.reason = "out-of-sync";
    }
  }
  const dirty = await dirtyRegions(nexus, current);
  const isUnclean = highest > 0 && current.some(({ state }) => state?.clean === false);
  membership.apply();
  // Children that the record calls healthy and that do not serve are lost; that is recorded now.
  const lost = core.present().filter((c) => c.recordedHealthy && c.phase === "out");
  if (!(await membership.record(lost))) {
    if (core.ended === "superseded") {
      throw new TrilithError("Superseded", `nexus ${nexus.name}: a newer epoch is recorded`);
    }
    throw new TrilithError("Unavailable", `nexus ${nexus.name}: the recorder cannot be reached`);
  }
  for (const child of lost) child.recordedHealthy = false;
  await intent.markOn(core.inSync(), dirty);
  core.regions.assume(dirty);
  const mustResync = isUnclean && dirty.length > 0;
  const source = sourceOf(nexus);
  // From now on what the source holds is what counts.
  for (const child of core.inSync()) if (!mustResync || child === source) child.mayLack = false;
  await membership.writeState(core.inSync(), { clean: false });
  if (core.io.syncMask === 0) {
    throw new TrilithError(
      "Unavailable",
      `nexus ${nexus.name}: every child was lost while opening`,
    );
  }
  if (mustResync) demoteAllBut(nexus, source);
  membership.apply();
  intent.start();
  for (const child of core.present()) {
    if (child.phase === "out") await membership.detach(child);
  }
  await membership.settled();
  core.openGate("opening");
  nexus.resyncConsistent();
}

/**
 * Generation 0 everywhere is a volume that has never been opened, or an old one of which only copies
 * that were never finished are left: then nothing may be served.
 */
function assertBlank(nexus: Nexus, claimed: readonly Opened[]): void {
  const missing = nexus.core.present().filter((c) => c.recordedHealthy && c.phase === "out");
  const unfinished = claimed.filter(({ state }) => state !== undefined && state.epoch > 0);
  const linked = claimed.filter(({ state }) => state !== undefined);
  if (linked.length === 0 || (missing.length === 0 && unfinished.length === 0)) return;
  const what =
    unfinished.length > 0
      ? `${unfinished[0]!.child.uri} was never rebuilt to the end`
      : `${missing[0]!.uri} cannot be reached and the others are blank`;
  throw new TrilithError(
    "FailedPrecondition",
    `nexus ${nexus.name}: no child is known to hold the volume's data (${what})`,
    "bring a node with an in-sync replica back",
  );
}

/** Union of the children's dirty regions. */
async function dirtyRegions(nexus: Nexus, current: readonly Opened[]): Promise<number[]> {
  const all = new Set<number>();
  for (const { child } of current) {
    const bitmap = await child.device?.link?.readDirty();
    if (bitmap === undefined) continue;
    for (const region of bitsOf(bitmap, nexus.core.regions.count)) all.add(region);
  }
  return [...all];
}

/** Who serves after a crash: preferably a local child. */
function sourceOf(nexus: Nexus): Child | undefined {
  const children = nexus.core.inSync();
  return children.find((child) => child.isLocal) ?? children[0];
}

/** After a crash one child serves; the others are resynced from it. Should it be lost by now, any does. */
function demoteAllBut(nexus: Nexus, wanted: Child | undefined): void {
  const children = nexus.core.inSync();
  const source = children.find((child) => child === wanted) ?? sourceOf(nexus);
  for (const child of children) {
    if (child === source) continue;
    child.phase = "rebuilding";
    child.reason = "out-of-sync";
    child.consistent = true;
  }
}
