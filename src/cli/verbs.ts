/**
 * The verbs, each in a file of its own that is loaded only when it is called. Adding a verb is
 * adding a file that exports a function from a `CliContext` to a commander `Command`, and a line.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.ts";

export interface Verb {
  readonly name: string;
  /** One line of `trilith --help`. */
  readonly summary: string;
  /** It talks to the cluster: it takes the options of `session.ts`. */
  readonly usesApi?: true;
  /** Imports the verb's file and returns what builds its command. */
  readonly load: () => Promise<(context: CliContext) => Command>;
}

export const verbs: readonly Verb[] = [
  {
    name: "apply",
    summary: "make the cluster be as manifests say",
    usesApi: true,
    load: async () => (await import("./apply.ts")).applyCommand,
  },
  {
    name: "bench",
    summary: "put load on a block device and measure it",
    load: async () => (await import("./bench.ts")).benchCommand,
  },
  {
    name: "cluster",
    summary: "show the members, hand over leadership, recover",
    usesApi: true,
    load: async () => (await import("./cluster.ts")).clusterCommand,
  },
  {
    name: "completion",
    summary: "print what makes a shell complete the line",
    load: async () => (await import("./completion.ts")).completionCommand,
  },
  {
    name: "control",
    summary: "run the control process of a node",
    load: async () => (await import("./control.ts")).controlCommand,
  },
  {
    name: "cordon",
    summary: "keep anything new off nodes and pools",
    usesApi: true,
    load: async () => (await import("./cordon.ts")).cordonCommand,
  },
  {
    name: "create",
    summary: "create pools, volumes and snapshots",
    usesApi: true,
    load: async () => (await import("./create.ts")).createCommand,
  },
  {
    name: "csi",
    summary: "run the CSI driver of a Kubernetes node",
    usesApi: true,
    load: async () => (await import("./csi.ts")).csiCommand,
  },
  {
    name: "delete",
    summary: "delete volumes, snapshots, pools and nodes",
    usesApi: true,
    load: async () => (await import("./delete.ts")).deleteCommand,
  },
  {
    name: "demo",
    summary: "show a mirrored volume that outlives its nodes",
    load: async () => (await import("./demo.ts")).demoCommand,
  },
  {
    name: "doctor",
    summary: "say what this machine lacks, and how to fix it",
    usesApi: true,
    load: async () => (await import("./doctor.ts")).doctorCommand,
  },
  {
    name: "drain",
    summary: "move away what a node serves",
    usesApi: true,
    load: async () => (await import("./drain.ts")).drainCommand,
  },
  {
    name: "dump",
    summary: "put what is known of the cluster in a file, for support",
    usesApi: true,
    load: async () => (await import("./dump.ts")).dumpCommand,
  },
  {
    name: "engine",
    summary: "run the storage engine alone",
    load: async () => (await import("./engine.ts")).engineCommand,
  },
  {
    name: "events",
    summary: "list what has happened, or follow what happens",
    usesApi: true,
    load: async () => (await import("./events.ts")).eventsCommand,
  },
  {
    name: "expand",
    summary: "take in what a pool's disk has grown by",
    usesApi: true,
    load: async () => (await import("./scale.ts")).expandCommand,
  },
  {
    name: "get",
    summary: "show resources of the cluster",
    usesApi: true,
    load: async () => (await import("./get.ts")).getCommand,
  },
  {
    name: "host",
    summary: "connect this host to volumes, and keep it connected",
    usesApi: true,
    load: async () => (await import("./host.ts")).hostCommand,
  },
  {
    name: "init",
    summary: "make a cluster of this node",
    load: async () => (await import("./init.ts")).initCommand,
  },
  {
    name: "join",
    summary: "make this node a member of a cluster",
    load: async () => (await import("./join.ts")).joinCommand,
  },
  {
    name: "kubernetes",
    summary: "print what Kubernetes has to be told to use a cluster",
    load: async () => (await import("./kubernetes.ts")).kubernetesCommand,
  },
  {
    name: "label",
    summary: "set and take off labels of nodes and pools",
    usesApi: true,
    load: async () => (await import("./label.ts")).labelVerb,
  },
  {
    name: "move",
    summary: "move replicas between pools",
    usesApi: true,
    load: async () => (await import("./move.ts")).moveCommand,
  },
  {
    name: "node",
    summary: "remove nodes from the cluster",
    usesApi: true,
    load: async () => (await import("./node.ts")).nodeCommand,
  },
  {
    name: "openapi",
    summary: "print the OpenAPI document of the HTTP API",
    load: async () => (await import("./openapi.ts")).openapiCommand,
  },
  {
    name: "pool",
    summary: "look at pools on this machine's disks",
    load: async () => (await import("./pool.ts")).poolCommand,
  },
  {
    name: "publish",
    summary: "serve a volume to hosts",
    usesApi: true,
    load: async () => (await import("./publish.ts")).publishCommand,
  },
  {
    name: "rebuild",
    summary: "show rebuilds of volumes",
    usesApi: true,
    load: async () => (await import("./move.ts")).rebuildCommand,
  },
  {
    name: "resize",
    summary: "grow a volume",
    usesApi: true,
    load: async () => (await import("./scale.ts")).resizeCommand,
  },
  {
    name: "scale",
    summary: "change the number of a volume's replicas",
    usesApi: true,
    load: async () => (await import("./scale.ts")).scaleCommand,
  },
  {
    name: "scrub",
    summary: "compare the replicas of a volume, and repair them",
    usesApi: true,
    load: async () => (await import("./scrub.ts")).scrubCommand,
  },
  {
    name: "server",
    summary: "run a whole node: control process and engine",
    load: async () => (await import("./server.ts")).serverCommand,
  },
  {
    name: "set",
    summary: "change a property of a volume, or a setting of the cluster",
    usesApi: true,
    load: async () => (await import("./set.ts")).setCommand,
  },
  {
    name: "status",
    summary: "show the cluster on one screen",
    usesApi: true,
    load: async () => (await import("./status.ts")).statusCommand,
  },
  {
    name: "system-files",
    summary: "list or write the units and settings of this build",
    load: async () => (await import("./system-files.ts")).systemFilesCommand,
  },
  {
    name: "token",
    summary: "make tokens to join with",
    usesApi: true,
    load: async () => (await import("./token.ts")).tokenCommand,
  },
  {
    name: "uncordon",
    summary: "let new things onto nodes and pools again",
    usesApi: true,
    load: async () => (await import("./cordon.ts")).uncordonCommand,
  },
  {
    name: "unpublish",
    summary: "stop serving a volume",
    usesApi: true,
    load: async () => (await import("./publish.ts")).unpublishCommand,
  },
  {
    name: "upgrade",
    summary: "check whether the cluster is fit for an upgrade",
    usesApi: true,
    load: async () => (await import("./upgrade.ts")).upgradeCommand,
  },
  {
    name: "version",
    summary: "say which build this is",
    load: async () => (await import("./version.ts")).versionCommand,
  },
  {
    name: "wait",
    summary: "wait until something is as it should be",
    usesApi: true,
    load: async () => (await import("./wait.ts")).waitVerb,
  },
];
