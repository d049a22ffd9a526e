/** Makes objects of manifests in a real API server, and asks for them as `kubectl get` does. */
import type { KubeClient } from "../../src/kube/client/client.ts";
import { type KubeObject, pathOf, type Resource } from "../../src/kube/client/objects.ts";
import { waitUntil } from "./cluster.ts";
import { trilithCommand } from "./engine-process.ts";
import { projectRoot, runCommand } from "./executable.ts";

interface Discovered {
  readonly resources: readonly {
    readonly name: string;
    readonly kind: string;
    readonly namespaced: boolean;
  }[];
}

/** Where the API has objects of a kind. Throws while it has none. */
export async function resourceOf(client: KubeClient, object: KubeObject): Promise<Resource> {
  const [first, second] = object.apiVersion!.split("/");
  const [group, version] = second === undefined ? ["", first!] : [first!, second];
  const path = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const { resources } = await client.call<Discovered>({ method: "GET", path });
  const found = resources.find(({ kind, name }) => kind === object.kind && !name.includes("/"));
  if (found === undefined) throw new Error(`${object.apiVersion} has no ${object.kind}`);
  return { group, version, plural: found.name, namespaced: found.namespaced };
}

/** Applies one object; in the namespace `default` when it names none. */
export async function applyObject<T extends KubeObject>(
  client: KubeClient,
  object: KubeObject,
): Promise<T> {
  // A definition that was just made is served a moment later.
  const resource = await waitUntil(
    `the resource of ${object.apiVersion} ${object.kind}`,
    () => resourceOf(client, object),
    () => true,
  );
  const namespace = resource.namespaced ? (object.metadata.namespace ?? "default") : undefined;
  return await client.apply<T>(resource, { namespace, name: object.metadata.name }, object);
}

/** The objects of a text in YAML. */
export function objectsOf(text: string): KubeObject[] {
  const parsed = Bun.YAML.parse(text) as KubeObject | KubeObject[];
  return (Array.isArray(parsed) ? parsed : [parsed]).filter((one) => one !== null);
}

/** Applies all objects of a text in YAML, in its order. */
export async function applyYaml(client: KubeClient, text: string): Promise<KubeObject[]> {
  const applied: KubeObject[] = [];
  for (const object of objectsOf(text)) applied.push(await applyObject(client, object));
  return applied;
}

/** What `trilith kubernetes manifest` prints. */
export function manifestText(...options: readonly string[]): string {
  const command = [...trilithCommand(), "kubernetes", "manifest", ...options];
  const { status, stdout, stderr } = runCommand(command, { cwd: projectRoot });
  if (status !== 0) throw new Error(`trilith kubernetes manifest: ${stderr}`);
  return stdout;
}

/** A table as `kubectl get` shows it: headings, then a row of cells per object. */
export async function tableOf(client: KubeClient, resource: Resource): Promise<string[][]> {
  const table = await client.call<{
    readonly columnDefinitions: readonly { readonly name: string }[];
    readonly rows: readonly { readonly cells: readonly unknown[] }[];
  }>({
    method: "GET",
    path: pathOf(resource),
    accept: "application/json;as=Table;v=v1;g=meta.k8s.io",
  });
  return [
    table.columnDefinitions.map(({ name }) => name),
    ...table.rows.map(({ cells }) => cells.map((cell) => String(cell ?? ""))),
  ];
}

/** Messages of the events about an object, with their reasons: `Online: Pool online ...`. */
export async function eventsAbout(client: KubeClient, uid: string): Promise<string[]> {
  const { items } = await client.list<
    KubeObject & {
      readonly involvedObject: { readonly uid?: string };
      readonly reason: string;
      readonly message: string;
    }
  >({ group: "", version: "v1", plural: "events", namespaced: true });
  return items
    .filter(({ involvedObject }) => involvedObject.uid === uid)
    .map(({ reason, message }) => `${reason}: ${message}`);
}
