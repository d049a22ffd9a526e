/** `trilith kubernetes`: what Kubernetes has to be told to use a cluster. */
import { isIP } from "node:net";
import { Command, InvalidArgumentError, Option } from "commander";
import alertRules from "../../images/prometheus-alerts.yaml" with { type: "text" };
import {
  checkDriverName,
  DRIVER_NAME_DEFAULT,
  KUBELET_DIR_DEFAULT,
  pluginSocket,
} from "../csi/names.ts";
import { TrilithError } from "../errors.ts";
import { isObjectName, parseClassOption } from "../kube/manifest/class-option.ts";
import { manifestJson, manifestOf, manifestYaml } from "../kube/manifest/manifest.ts";
import {
  type ClassOption,
  type ManifestOptions,
  SIDECAR_REGISTRY,
  type SidecarImages,
  sidecarImages,
} from "../kube/manifest/options.ts";
import { buildInfo } from "../version.ts";
import { countArgument } from "./arguments.ts";
import type { CliContext } from "./context.ts";

const METRICS_PORT_DEFAULT = 9502;
const CLASS_DEFAULT = "trilith-3:repl=3";
const REPLICAS_MAX = 16;

interface ManifestCliOptions {
  readonly namespace: string;
  readonly driverName: string;
  readonly kubeletDir: string;
  readonly csiSocket?: string;
  readonly replicas: number;
  readonly registry: string;
  readonly provisionerImage?: string;
  readonly attacherImage?: string;
  readonly resizerImage?: string;
  readonly snapshotterImage?: string;
  readonly withSnapshots?: boolean;
  readonly withCapacity?: boolean;
  readonly withPrometheus?: boolean;
  readonly metricsAddress?: readonly string[];
  readonly metricsPort: number;
  /** False: `--no-storage-class`. */
  readonly storageClass?: readonly ClassOption[] | false;
  readonly daemonset?: boolean;
  readonly image?: string;
  readonly rest?: string;
  readonly tokenSecret?: string;
  readonly output: "yaml" | "json";
}

function objectName(text: string): string {
  if (isObjectName(text)) return text;
  throw new InvalidArgumentError("It has to be small letters, digits, - and .");
}

function prometheusOf(options: ManifestCliOptions): ManifestOptions["prometheus"] {
  if (options.withPrometheus !== true) return null;
  const addresses = options.metricsAddress ?? [];
  const wrong = addresses.find((address) => isIP(address) === 0);
  if (wrong !== undefined) {
    throw new TrilithError("InvalidArgument", `--metrics-address: "${wrong}" is no IP address`);
  }
  if (addresses.length === 0) {
    throw new TrilithError(
      "InvalidArgument",
      "--with-prometheus has to know where the nodes' metrics are",
      "give the address of every node: --metrics-address 10.0.0.1,10.0.0.2,10.0.0.3",
    );
  }
  const { groups } = Bun.YAML.parse(alertRules) as { readonly groups: readonly unknown[] };
  return { addresses, port: options.metricsPort, groups };
}

function daemonSetOf(options: ManifestCliOptions): ManifestOptions["daemonSet"] {
  if (options.daemonset !== true) return null;
  const { rest } = options;
  if (rest === undefined) {
    throw new TrilithError(
      "InvalidArgument",
      "--daemonset has to know where the cluster's HTTP API is",
      "give its address as pods reach it: --rest https://10.0.0.1:8081 --token-secret <secret>",
    );
  }
  if (!/^https?:\/\//.test(rest)) {
    throw new TrilithError("InvalidArgument", `--rest "${rest}" is no http(s) URL`);
  }
  return {
    image: options.image ?? `trilith-node:${buildInfo.version}`,
    rest,
    secret: options.tokenSecret ?? null,
  };
}

function namedImages(options: ManifestCliOptions): Partial<SidecarImages> {
  const { provisionerImage, attacherImage, resizerImage, snapshotterImage } = options;
  return {
    ...(provisionerImage === undefined ? {} : { provisioner: provisionerImage }),
    ...(attacherImage === undefined ? {} : { attacher: attacherImage }),
    ...(resizerImage === undefined ? {} : { resizer: resizerImage }),
    ...(snapshotterImage === undefined ? {} : { snapshotter: snapshotterImage }),
  };
}

function optionsOf(options: ManifestCliOptions): ManifestOptions {
  const { storageClass, kubeletDir } = options;
  const driverName = checkDriverName(options.driverName);
  return {
    namespace: options.namespace,
    driverName,
    kubeletDir,
    csiSocket: options.csiSocket ?? pluginSocket(kubeletDir, driverName),
    controllerReplicas: options.replicas,
    images: sidecarImages(options.registry, namedImages(options)),
    withSnapshots: options.withSnapshots === true,
    withCapacity: options.withCapacity === true,
    classes: storageClass === false ? [] : (storageClass ?? [parseClassOption(CLASS_DEFAULT)]),
    prometheus: prometheusOf(options),
    daemonSet: daemonSetOf(options),
  };
}

function addImageOptions(command: Command): Command {
  const sidecars = ["provisioner", "attacher", "resizer", "snapshotter"];
  command.option(
    "--registry <prefix>",
    "where the sidecars' images are: a mirror, instead of Kubernetes' own",
    SIDECAR_REGISTRY,
  );
  for (const name of sidecars) {
    command.option(`--${name}-image <image>`, `another image of the ${name}`);
  }
  return command;
}

function manifestCommand(context: CliContext): Command {
  const command = new Command("manifest")
    .description(
      "Prints all that Kubernetes has to know to use a cluster of appliances: namespace, accounts,\n" +
        "the resources DiskPool and MayastorPool, the CSI driver with its controller on the nodes\n" +
        "labelled openebs.io/engine=mayastor, StorageClasses. No cluster is asked, nothing is changed:\n\n" +
        "  trilith kubernetes manifest | kubectl apply -f -",
    )
    .option("-n, --namespace <name>", "namespace of what has one", objectName, "trilith")
    .option("--driver-name <name>", "name of the CSI driver", DRIVER_NAME_DEFAULT)
    .option("--kubelet-dir <path>", "folder of the kubelet on the nodes", KUBELET_DIR_DEFAULT)
    .option("--csi-socket <path>", "the appliance's CSI socket (default: in the kubelet's folder)")
    .option(
      "--replicas <n>",
      "copies of the controller, one of which works",
      countArgument(1, REPLICAS_MAX),
      2,
    )
    .option(
      "--storage-class <class>",
      `a class: name[:key=value,...] (default: ${CLASS_DEFAULT}); may be given more than once.\n` +
        "keys: reclaimPolicy, volumeBindingMode, mountOptions (a+b), default; others are parameters",
      (text: string, former: readonly ClassOption[] | undefined) => [
        ...(former ?? []),
        parseClassOption(text),
      ],
    )
    .option("--no-storage-class", "no class")
    .option("--with-snapshots", "snapshots; Kubernetes' own controller for them has to be there")
    .option("--with-capacity", "let the scheduler see free capacity")
    .option("--with-prometheus", "ServiceMonitor and alert rules for Prometheus' operator")
    .option("--metrics-address <list>", "addresses of the nodes, for their metrics", (text) =>
      text.split(",").map((one) => one.trim()),
    )
    .option(
      "--metrics-port <n>",
      "port of the nodes' metrics",
      countArgument(1, 65_535),
      METRICS_PORT_DEFAULT,
    )
    .option("--daemonset", "the node service as pods, on nodes without the appliance")
    .option(
      "--image <image>",
      "image of this executable with what makes file systems (images/oci.ts --node), for --daemonset",
    )
    .option("--rest <url>", "where the HTTP API is, for --daemonset")
    .option("--token-secret <name>", "secret with token and ca.crt of the API, for --daemonset")
    .addOption(
      new Option("-o, --output <format>", "how to print it")
        .choices(["yaml", "json"])
        .default("yaml"),
    );
  return addImageOptions(command).action((options: ManifestCliOptions) => {
    const objects = manifestOf(optionsOf(options));
    const text = options.output === "json" ? manifestJson(objects) : manifestYaml(objects);
    context.print(text.trimEnd());
  });
}

/** The `kubernetes` verb. */
export function kubernetesCommand(context: CliContext): Command {
  return new Command("kubernetes")
    .description("What Kubernetes has to be told to use a cluster.")
    .addCommand(manifestCommand(context));
}
