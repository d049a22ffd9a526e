/** `trilith create`: pools, volumes, snapshots. */
import { randomUUID } from "node:crypto";
import { Command, Option } from "commander";
import type { CreateVolumeBody, Labels, Topology } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import { countArgument } from "./arguments.ts";
import type { CliContext } from "./context.ts";
import { collectLabels } from "./labels.ts";
import { humanSize, sizeArgument } from "./output/size.ts";
import { idArgument, printDone, type Session, withSession } from "./session.ts";

interface PoolOptions {
  readonly node: string;
  readonly labels?: Labels;
  readonly clusterSize?: number;
  readonly force?: boolean;
}

interface VolumeOptions {
  readonly size?: number;
  readonly replicas?: number;
  readonly thin?: boolean;
  readonly labels?: Labels;
  readonly maxSnapshots?: number;
  readonly affinityGroup?: string;
  readonly nodes?: string;
  readonly preferredNodes?: string;
  readonly nodeLabels?: Labels;
  readonly poolLabels?: Labels;
  readonly spreadBy?: string;
  readonly selfHeal: boolean;
  readonly fromSnapshot?: string;
}

function list(text: string | undefined): string[] {
  return (text ?? "").split(",").filter((part) => part !== "");
}

/** Where replicas may lie, from the options; undefined: anywhere. */
function topologyOf(options: VolumeOptions): Topology | undefined {
  const { nodes, preferredNodes, nodeLabels, poolLabels, spreadBy } = options;
  const explicit = nodes !== undefined || preferredNodes !== undefined;
  const labelled = nodeLabels !== undefined || spreadBy !== undefined;
  if (explicit && labelled) {
    throw new TrilithError(
      "InvalidArgument",
      "--nodes and --preferred-nodes do not go together with --node-labels and --spread-by",
      "choose nodes either by name or by label",
    );
  }
  const exclusion = Object.fromEntries(list(spreadBy).map((key) => [key, ""]));
  const made: Topology = {
    ...(explicit
      ? {
          node_topology: {
            explicit: { allowed_nodes: list(nodes), preferred_nodes: list(preferredNodes) },
          },
        }
      : {}),
    ...(labelled
      ? { node_topology: { labelled: { exclusion, inclusion: nodeLabels ?? {} } } }
      : {}),
    ...(poolLabels === undefined
      ? {}
      : { pool_topology: { labelled: { exclusion: {}, inclusion: poolLabels } } }),
  };
  return Object.keys(made).length === 0 ? undefined : made;
}

/** Id of a volume from what a person or Kubernetes calls it: `pvc-<uuid>` or `<uuid>`. */
export function volumeId(text: string | undefined): string {
  if (text === undefined) return randomUUID();
  const id = text.replace(/^pvc-/, "").toLowerCase();
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) {
    throw new TrilithError(
      "InvalidArgument",
      `"${text}" is no id of a volume: it has to be a UUID`,
      "leave it out and one is made",
    );
  }
  return id;
}

async function createVolume(session: Session, id: string, options: VolumeOptions): Promise<void> {
  const { client } = session;
  const topology = topologyOf(options);
  let size = options.size;
  let replicas = options.replicas;
  let thin = options.thin === true;
  if (options.fromSnapshot !== undefined) {
    // A restored volume has the size of its snapshot and is thin (mayastor.md 5.3).
    const [snapshot] = await client.snapshots({ snapshot: options.fromSnapshot });
    if (snapshot === undefined) {
      throw new TrilithError(
        "NotFound",
        `there is no snapshot ${options.fromSnapshot}`,
        "see what there is: `trilith get volume-snapshots`",
      );
    }
    size ??= snapshot.definition.metadata.spec_size;
    replicas ??= snapshot.definition.metadata.num_snapshot_replicas;
    thin = true;
  }
  if (size === undefined) {
    throw new TrilithError("InvalidArgument", "the size is missing", "give it: --size 10GiB");
  }
  const body: CreateVolumeBody = {
    policy: { self_heal: options.selfHeal },
    replicas: replicas ?? 1,
    size,
    thin,
    ...(topology === undefined ? {} : { topology }),
    ...(options.labels === undefined ? {} : { labels: options.labels }),
    ...(options.affinityGroup === undefined
      ? {}
      : { affinity_group: { id: options.affinityGroup } }),
    ...(options.maxSnapshots === undefined ? {} : { max_snapshots: options.maxSnapshots }),
  };
  const volume =
    options.fromSnapshot === undefined
      ? await client.createVolume(id, body)
      : await client.restoreVolume(options.fromSnapshot, id, body);
  const pools = Object.values(volume.state.replica_topology).flatMap(({ pool }) => pool ?? []);
  const where = pools.length === 0 ? "" : ` on ${pools.sort().join(", ")}`;
  printDone(
    session,
    volume,
    `Volume ${volume.spec.uuid} created: ${humanSize(volume.spec.size)}, ` +
      `${volume.spec.num_replicas} replica${volume.spec.num_replicas === 1 ? "" : "s"}${where}`,
  );
}

function poolCommand(context: CliContext): Command {
  return new Command("pool")
    .description(
      "Makes a pool of a disk, or takes the pool in that the disk holds. A disk that holds\n" +
        "anything else is refused.",
    )
    .addArgument(idArgument("pool"))
    .argument("<disk>", "e.g. /dev/disk/by-id/…, or a URI such as uring:///dev/sdb")
    .requiredOption("--node <id>", "node that the disk is in")
    .option("-l, --labels <labels>", "labels, e.g. tier=fast,rack=1", collectLabels)
    .option("--cluster-size <size>", "unit of allocation (default: 4MiB)", sizeArgument)
    .option("--force", "take the disk even if it holds something else: that is lost")
    .action(
      withSession<[string, string], PoolOptions>(context, async (session, [id, disk], options) => {
        const pool = await session.client.createPool(options.node, id, {
          disks: [disk],
          ...(options.labels === undefined ? {} : { labels: options.labels }),
          ...(options.clusterSize === undefined ? {} : { cluster_size: options.clusterSize }),
          ...(options.force === true ? { force: true } : {}),
        });
        const size = pool.state ? `: ${humanSize(pool.state.capacity)}` : "";
        printDone(session, pool, `Pool ${id} created on ${options.node}${size}`);
      }),
    );
}

function volumeCommand(context: CliContext): Command {
  return new Command("volume")
    .description("Makes a volume, empty or of a snapshot.")
    .argument("[id]", "id of the volume, a UUID (default: a new one)")
    .option("-s, --size <size>", "size, e.g. 10GiB", sizeArgument)
    .option("--replicas <n>", "copies, each on another node (default: 1)", countArgument(1, 255))
    .option("--thin", "space is taken when it is written, not now")
    .option("-l, --labels <labels>", "labels, e.g. app=db", collectLabels)
    .option("--max-snapshots <n>", "most snapshots it may have", countArgument(0, 0x7fff_ffff))
    .option("--affinity-group <id>", "volumes of one group are spread over nodes")
    .option("--nodes <list>", "only these nodes may hold replicas")
    .option("--preferred-nodes <list>", "nodes to take first")
    .option("--node-labels <labels>", "only nodes with these labels", collectLabels)
    .option("--pool-labels <labels>", "only pools with these labels", collectLabels)
    .option("--spread-by <keys>", "replicas on nodes that differ in these labels")
    .option("--no-self-heal", "do not replace replicas that are lost")
    .addOption(new Option("--from-snapshot <id>", "with the contents of this snapshot"))
    .action(
      withSession<[string | undefined], VolumeOptions>(context, (session, [id], options) =>
        createVolume(session, volumeId(id), options),
      ),
    );
}

function snapshotCommand(context: CliContext): Command {
  return new Command("volume-snapshot")
    .alias("snapshot")
    .description("Takes a snapshot of a volume, of all its replicas at one moment.")
    .addArgument(idArgument("volume"))
    .argument("[id]", "id of the snapshot, a UUID (default: a new one)")
    .action(
      withSession<[string, string | undefined], object>(context, async (session, [volume, id]) => {
        const snapshot = await session.client.createSnapshot(volume, id ?? randomUUID());
        const { uuid } = snapshot.definition.spec;
        printDone(session, snapshot, `Snapshot ${uuid} of volume ${volume} created`);
      }),
    );
}

/** The `create` verb. */
export function createCommand(context: CliContext): Command {
  return new Command("create")
    .description("Creates pools, volumes and snapshots.")
    .addCommand(poolCommand(context))
    .addCommand(volumeCommand(context))
    .addCommand(snapshotCommand(context));
}
