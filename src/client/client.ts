/** The operations of the REST API, one function each, over `http.ts`. */
import { TrilithError } from "../errors.ts";
import { type HttpOptions, type Method, type Query, request } from "./http.ts";
import { APP_NODES_PER_PAGE, PAGES_MAX, SNAPSHOTS_PER_PAGE, VOLUMES_PER_PAGE } from "./limits.ts";
import type {
  AppNode,
  BlockDevice,
  Cluster,
  ClusterEvents,
  ClusterStatus,
  CreatePoolBody,
  CreateVolumeBody,
  DrainProgress,
  Labels,
  Node,
  Page,
  PathReportBody,
  Pool,
  PublishVolumeBody,
  PurgeBody,
  RebuildHistory,
  RemovalImpact,
  Settings,
  Volume,
  VolumePath,
  VolumeRebuilds,
  VolumeScrub,
  VolumeSnapshot,
  Warning,
} from "./types.ts";

/** A path with its variable parts encoded. */
export function path(strings: TemplateStringsArray, ...parts: (string | number)[]): string {
  return strings.reduce(
    (made, text, index) =>
      made + text + (index < parts.length ? encodeURIComponent(String(parts[index])) : ""),
    "",
  );
}

export type RestClient = ReturnType<typeof restClient>;

/** A client of the API at an endpoint. Functions reject with a `TrilithError`. */
export function restClient(options: HttpOptions) {
  /** Any request; the caller knows what comes back. */
  async function call<T>(
    method: Method,
    where: string,
    more: { readonly query?: Query; readonly body?: unknown } = {},
  ): Promise<T> {
    return (await request(options, { method, path: `/v0${where}`, ...more })) as T;
  }
  const get = <T>(where: string, query: Query = {}) => call<T>("GET", where, { query });

  /** All entries of a listing that comes in pages. */
  async function all<T>(where: string, query: Query, perPage: number): Promise<T[]> {
    const entries: T[] = [];
    let token: number | undefined;
    for (let pages = 0; pages < PAGES_MAX; pages++) {
      const page = await get<Page<T>>(where, {
        ...query,
        max_entries: perPage,
        starting_token: token,
      });
      entries.push(...page.entries);
      if (page.next_token === undefined || page.next_token === null) return entries;
      token = page.next_token;
    }
    throw new TrilithError("Internal", `the listing ${where} has no end`);
  }

  return {
    options,
    call,
    get,

    nodes: () => get<Node[]>("/nodes"),
    node: (id: string) => get<Node>(path`/nodes/${id}`),
    blockDevices: (node: string, everything: boolean) =>
      get<BlockDevice[]>(path`/nodes/${node}/block_devices`, { all: everything }),
    cordonNode: (id: string, label: string) =>
      call<Node>("PUT", path`/nodes/${id}/cordon/${label}`),
    uncordonNode: (id: string, label: string) =>
      call<Node>("DELETE", path`/nodes/${id}/cordon/${label}`),
    /** What is left on a drained node, and what it waits for. */
    drainProgress: (id: string) => get<DrainProgress>(path`/nodes/${id}/drain`),
    drainNode: (id: string, label: string, evacuate: boolean) =>
      call<Node>("PUT", path`/nodes/${id}/drain/${label}`, {
        query: evacuate ? { evacuate } : {},
      }),
    labelNode: (id: string, key: string, value: string, overwrite: boolean) =>
      call<Node>("PUT", path`/nodes/${id}/label/${key}=${value}`, { query: { overwrite } }),
    unlabelNode: (id: string, key: string) => call<Node>("DELETE", path`/nodes/${id}/label/${key}`),
    nodeRemovalImpact: (id: string) => get<RemovalImpact>(path`/nodes/${id}/removal-impact`),
    removeNode: (id: string, force: PurgeBody) =>
      call<void>("DELETE", path`/nodes/${id}`, force.purge ? { body: force } : {}),

    pools: (volume?: string) => get<Pool[]>("/pools", { volume_id: volume }),
    pool: (id: string) => get<Pool>(path`/pools/${id}`),
    nodePools: (node: string) => get<Pool[]>(path`/nodes/${node}/pools`),
    createPool: (node: string, id: string, body: CreatePoolBody) =>
      call<Pool>("PUT", path`/nodes/${node}/pools/${id}`, { body }),
    deletePool: (id: string, force: PurgeBody) =>
      call<unknown>("DELETE", path`/pools/${id}`, force.purge ? { body: force } : {}),
    poolRemovalImpact: (id: string) => get<RemovalImpact>(path`/pools/${id}/removal-impact`),
    labelPool: (id: string, key: string, value: string, overwrite: boolean) =>
      call<Pool>("PUT", path`/pools/${id}/label/${key}=${value}`, { query: { overwrite } }),
    unlabelPool: (id: string, key: string) => call<Pool>("DELETE", path`/pools/${id}/label/${key}`),
    cordonPool: (id: string, cordoned: boolean) =>
      call<Pool>(cordoned ? "PUT" : "DELETE", path`/pools/${id}/cordon`),
    expandPool: (id: string) => call<Pool>("PUT", path`/pools/${id}/expand`),

    volumes: () => all<Volume>("/volumes", {}, VOLUMES_PER_PAGE),
    /** One page, from an offset; `perPage` 0: all from there on. */
    volumesPage: (from: number, perPage: number) =>
      get<Page<Volume>>("/volumes", { max_entries: perPage, starting_token: from }),
    volume: (id: string) => get<Volume>(path`/volumes/${id}`),
    createVolume: (id: string, body: CreateVolumeBody) =>
      call<Volume>("PUT", path`/volumes/${id}`, { body }),
    restoreVolume: (snapshot: string, id: string, body: CreateVolumeBody) =>
      call<Volume>("PUT", path`/snapshots/${snapshot}/volumes/${id}`, { body }),
    deleteVolume: (id: string) => call<void>("DELETE", path`/volumes/${id}`),
    publishVolume: (id: string, body: PublishVolumeBody) =>
      call<Volume>("PUT", path`/volumes/${id}/target`, { body }),
    /** `fromHost`: only its publication to that host ends. */
    unpublishVolume: (id: string, force: boolean, fromHost?: string) =>
      call<Volume>("DELETE", path`/volumes/${id}/target`, {
        query: { force: force ? true : undefined, frontend_node: fromHost },
      }),
    /** `victim`: replica that is to go when the count goes down. */
    setReplicaCount: (id: string, count: number, victim?: string) =>
      call<Volume>("PUT", path`/volumes/${id}/replica_count/${count}`, { query: { victim } }),
    setMaxSnapshots: (id: string, count: number) =>
      call<Volume>("PUT", path`/volumes/${id}/property`, { body: { max_snapshots: count } }),
    /** Milliseconds that a replica may be away before another is built; null: the cluster's setting. */
    setFaultedChildWait: (id: string, wait: number | null) =>
      call<Volume>("PUT", path`/volumes/${id}/faulted-child-wait`, { body: { wait } }),
    resizeVolume: (id: string, size: number) =>
      call<Volume>("PUT", path`/volumes/${id}/size`, { body: { size } }),
    rebuildHistory: (id: string) => get<RebuildHistory>(path`/volumes/${id}/rebuild-history`),

    snapshots: (filter: { volume?: string | undefined; snapshot?: string | undefined }) =>
      all<VolumeSnapshot>(
        "/volumes/snapshots",
        { volume_id: filter.volume, snapshot_id: filter.snapshot },
        SNAPSHOTS_PER_PAGE,
      ),
    /** One page, from an offset; `perPage` 0: all from there on. */
    snapshotsPage: (
      filter: { volume?: string | undefined; snapshot?: string | undefined },
      from: number,
      perPage: number,
    ) =>
      get<Page<VolumeSnapshot>>("/volumes/snapshots", {
        volume_id: filter.volume,
        snapshot_id: filter.snapshot,
        max_entries: perPage,
        starting_token: from,
      }),
    createSnapshot: (volume: string, id: string) =>
      call<VolumeSnapshot>("PUT", path`/volumes/${volume}/snapshots/${id}`),
    deleteSnapshot: (id: string) => call<void>("DELETE", path`/volumes/snapshots/${id}`),

    specs: () => get<unknown>("/specs"),
    events: (since: number, limit: number) => get<ClusterEvents>("/events", { since, limit }),
    status: () => get<ClusterStatus>("/status"),
    cluster: () => get<Cluster>("/cluster"),
    rebuilds: (id: string) => get<VolumeRebuilds>(path`/volumes/${id}/rebuilds`),
    moveReplica: (volume: string, replica: string, pool: string | undefined) =>
      call<Volume>("POST", path`/volumes/${volume}/replicas/${replica}/move`, {
        body: pool === undefined ? {} : { pool },
      }),
    reportPaths: (report: PathReportBody) => call<void>("POST", "/path-reports", { body: report }),
    paths: (id: string) => get<VolumePath[]>(path`/volumes/${id}/paths`),
    scrubs: () => get<VolumeScrub[]>("/scrubs"),
    scrub: (id: string) => get<VolumeScrub>(path`/volumes/${id}/scrub`),
    startScrub: (id: string, body: { readonly restart: boolean; readonly repair: boolean }) =>
      call<VolumeScrub>("POST", path`/volumes/${id}/scrub`, { body }),
    stopScrub: (id: string) => call<VolumeScrub>("DELETE", path`/volumes/${id}/scrub`),
    acknowledgeScrub: (id: string) =>
      call<VolumeScrub>("POST", path`/volumes/${id}/scrub/acknowledge`),
    settings: () => get<Settings>("/settings"),
    changeSettings: (changes: Settings) => call<Settings>("PUT", "/settings", { body: changes }),
    appNodes: () => all<AppNode>("/app-nodes", {}, APP_NODES_PER_PAGE),
    appNode: (id: string) => get<AppNode>(path`/app-nodes/${id}`),
    registerAppNode: (id: string, endpoint: string, labels: Labels) =>
      call<void>("PUT", path`/app-nodes/${id}`, { body: { endpoint, labels } }),
    deregisterAppNode: (id: string) => call<void>("DELETE", path`/app-nodes/${id}`),
    warnings: () => get<Warning[]>("/warnings"),
  };
}
