/** Writes events, so that `kubectl describe` and `kubectl events` tell what happened to an object. */
import type { KubeClient } from "../client/client.ts";
import type { KubeObject } from "../client/objects.ts";
import { events } from "../names.ts";
import { MESSAGE_CHARS_MAX } from "./limits.ts";
import type { Told } from "./tell.ts";

/** Component that events come from, as Mayastor's operator calls itself. */
const COMPONENT = "dsp-operator";

/** Namespace of events about objects that have none. */
const NAMESPACE_OF_CLUSTER = "default";

/** The event about an object. `id` makes its name unique. */
export function eventOf(object: KubeObject, told: Told, now: string, id: string): object {
  const { name, uid, resourceVersion } = object.metadata;
  const namespace = object.metadata.namespace ?? NAMESPACE_OF_CLUSTER;
  return {
    apiVersion: "v1",
    kind: "Event",
    // Names have at most 253 characters.
    metadata: { name: `${name.slice(0, 200)}.${id}`, namespace },
    involvedObject: {
      apiVersion: object.apiVersion,
      kind: object.kind,
      name,
      namespace: object.metadata.namespace,
      uid,
      resourceVersion,
    },
    type: told.type,
    reason: told.reason,
    message: told.message.slice(0, MESSAGE_CHARS_MAX),
    source: { component: COMPONENT },
    reportingComponent: COMPONENT,
    firstTimestamp: now,
    lastTimestamp: now,
    count: 1,
  };
}

/** Writes an event about an object. */
export async function writeEvent(
  client: KubeClient,
  object: KubeObject,
  told: Told,
): Promise<void> {
  const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  const namespace = object.metadata.namespace ?? NAMESPACE_OF_CLUSTER;
  const id = crypto.randomUUID().replaceAll("-", "").slice(0, 16);
  await client.create(events, namespace, eventOf(object, told, now, id));
}
