/** Nexuses by themselves: former targets that are to be closed, and those made by hand. */
import type { EngineNexus } from "../../cluster-state.ts";
import type { NexusRecord } from "../../model.ts";
import { deviceBytes } from "../capacity.ts";
import type { Work } from "../plan.ts";
import type { Planning } from "./planning.ts";
import { isDefinite } from "./planning.ts";
import { whyNoRebuild } from "./rebuild-queue.ts";
import { recordedChildren, recordKey } from "./records.ts";
import { stayStep } from "./standby.ts";
import { engine, event, givingUp, put, remove, store, work } from "./steps.ts";
import { sameHosts, servedTo } from "./uris.ts";

export function planNexus(p: Planning, record: NexusRecord): Work | null {
  if (record.phase === "Shutdown" || record.status === "Deleting") return closing(p, record);
  // The open nexus of a volume is planned with the volume.
  if (record.volumeUuid !== null)
    return p.stored.volumes.has(record.volumeUuid) ? null : closing(p, record);
  return byHand(p, record);
}

/** Closes it in order when its node answers, and forgets it. */
function closing(p: Planning, record: NexusRecord): Work | null {
  const { uuid, nodeId } = record;
  const subject = `nexus/${uuid}`;
  const note = p.stored.settings.get(recordKey(uuid));
  const forget = store(
    "the nexus is gone",
    [
      remove("nexuses", uuid, record),
      ...(note === undefined ? [] : [remove("settings", note.key, note)]),
    ],
    [event("Nexus", "Delete", uuid, nodeId)],
  );
  if (!p.stored.nodes.has(nodeId)) return work(subject, forget);
  if (p.online(nodeId) === undefined) return null;
  const call = { method: "destroyNexus", input: { uuid } } as const;
  const reason = record.phase === "Shutdown" ? "it is a former target" : "it is to be deleted";
  const stay = stayStep(p, record);
  const destroy = engine(nodeId, call, reason, ["NotFound"]);
  return work(subject, ...(stay === null ? [] : [stay]), destroy, forget);
}

function byHand(p: Planning, record: NexusRecord): Work | null {
  const { uuid, nodeId } = record;
  const subject = `nexus/${uuid}`;
  if (p.online(nodeId) === undefined) return null;
  const nexus = p.nexus(record);
  if (nexus !== undefined) {
    const isOver = nexus.state === "shutdown" || nexus.state === "shutting-down";
    if (isOver || nexus.epoch !== record.epoch) {
      const call = { method: "destroyNexus", input: { uuid } } as const;
      return work(subject, engine(nodeId, call, "it has ended", ["NotFound"]));
    }
    if (record.status === "Creating") return work(subject, made(record));
    return kept(p, record, nexus);
  }
  if (record.status === "Created") {
    const changes = [
      put("nexuses", { ...record, epoch: record.epoch + 1, status: "Creating" } as const),
    ];
    return work(
      subject,
      store("its engine has restarted: it is opened again in a new epoch", changes),
    );
  }
  const failure = p.failures.get(subject);
  if (record.epoch === 1 && failure !== undefined && isDefinite(failure)) {
    const changes = [put("nexuses", { ...record, status: "Deleting" } as const)];
    return givingUp(subject, failure, store(`creating failed: ${failure.message}`, changes));
  }
  const children = recordedChildren(p, record);
  const { epoch, sizeBytes, name } = record;
  const input = {
    uuid,
    epoch,
    ...(name === "" ? {} : { name }),
    sizeBytes: deviceBytes(sizeBytes),
    children,
  };
  return work(
    subject,
    engine(nodeId, { method: "createNexus", input }, "it is to be created"),
    made(record),
  );
}

function made(record: NexusRecord) {
  return store(
    "the nexus is open",
    [put("nexuses", { ...record, status: "Created" })],
    [event("Nexus", "Create", record.uuid, record.nodeId)],
  );
}

function kept(p: Planning, record: NexusRecord, nexus: EngineNexus): Work | null {
  const { uuid, nodeId, allowedHosts } = record;
  const subject = `nexus/${uuid}`;
  const served = servedTo(nexus);
  const wanted = record.share === "nvmf" ? allowedHosts : null;
  if (!sameHosts(served, wanted)) {
    if (wanted === null) {
      const call = { method: "unshareNexus", input: { uuid, protocol: "nvmf" } } as const;
      return work(subject, engine(nodeId, call, "no host is to reach it", ["NotFound"]));
    }
    const hosts = wanted.length === 0 ? {} : { allowedHosts: [...wanted] };
    const input = { uuid, ...hosts, controllerIds: { ...record.controllerIds } };
    return work(
      subject,
      engine(nodeId, { method: "shareNexusNvmf", input }, "hosts are to reach it"),
    );
  }
  for (const { uri } of record.children) {
    if (nexus.children.some((child) => child.uri === uri)) continue;
    if (whyNoRebuild(p.state, nodeId) !== null) return null;
    const call = { method: "addNexusChild", input: { uuid, childUri: uri } } as const;
    return work(subject, engine(nodeId, call, "the child is to take part", ["AlreadyExists"]));
  }
  for (const { uri } of nexus.children) {
    if (record.children.some((child) => child.uri === uri)) continue;
    const call = { method: "removeNexusChild", input: { uuid, childUri: uri } } as const;
    return work(subject, engine(nodeId, call, "the child is to go", ["NotFound"]));
  }
  return null;
}
