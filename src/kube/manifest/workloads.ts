/** What runs in Kubernetes: the controller's sidecars, and the node service where no appliance is. Pure. */
import { dirname } from "node:path";
import { ENGINE_LABEL, ENGINE_LABEL_VALUE } from "../names.ts";
import type { ManifestOptions } from "./options.ts";
import { CONTROLLER } from "./rights.ts";

const NODE = "trilith-csi-node";
/** Where the sidecars see the folder of the appliance's socket. */
const SOCKET_FOLDER = "/csi";
/** Where a host keeps what it is to be connected to, with the appliance and without. */
const STATE_FOLDER = "/var/lib/trilith";
/** As long as a volume may take to be made, with replicas on several nodes. */
const CALL_TIMEOUT = "60s";

/** Labels that the objects of one workload share, and are found by. */
export const labelsOf = (component: string) => ({
  "app.kubernetes.io/name": "trilith",
  "app.kubernetes.io/component": component,
});

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
}

const fieldEnvironment = (name: string, fieldPath: string) => ({
  name,
  valueFrom: { fieldRef: { fieldPath } },
});

function sidecar({ name, image, args }: Container, capacity: boolean) {
  return {
    name,
    image,
    args: [
      "--csi-address=$(ADDRESS)",
      "--leader-election",
      "--leader-election-namespace=$(NAMESPACE)",
      `--timeout=${CALL_TIMEOUT}`,
      // Their defaults, 5 and 10, make a hundred claims wait for each other.
      "--kube-api-qps=100",
      "--kube-api-burst=200",
      ...args,
    ],
    env: [
      { name: "ADDRESS", value: `${SOCKET_FOLDER}/csi.sock` },
      fieldEnvironment("NAMESPACE", "metadata.namespace"),
      ...(capacity ? [fieldEnvironment("POD_NAME", "metadata.name")] : []),
    ],
    resources: { requests: { cpu: "10m", memory: "32Mi" } },
    // The socket is root's; nothing else of the node is seen.
    securityContext: {
      runAsUser: 0,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    },
    volumeMounts: [{ name: "socket", mountPath: SOCKET_FOLDER }],
  };
}

/** The controller's sidecars, on a node with the appliance, talking to its socket. */
export function controllerDeployment(options: ManifestOptions) {
  const { images, namespace, withSnapshots, withCapacity, controllerReplicas } = options;
  const labels = labelsOf("csi-controller");
  const containers = [
    sidecar(
      {
        name: "csi-provisioner",
        image: images.provisioner,
        args: [
          "--feature-gates=Topology=true",
          "--strict-topology=false",
          "--extra-create-metadata",
          "--default-fstype=ext4",
          "--worker-threads=30",
          "--prevent-volume-mode-conversion",
          ...(withCapacity ? ["--enable-capacity", "--capacity-ownerref-level=2"] : []),
        ],
      },
      withCapacity,
    ),
    sidecar({ name: "csi-attacher", image: images.attacher, args: [] }, false),
    sidecar({ name: "csi-resizer", image: images.resizer, args: [] }, false),
    ...(withSnapshots
      ? [sidecar({ name: "csi-snapshotter", image: images.snapshotter, args: [] }, false)]
      : []),
  ];
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: CONTROLLER, namespace, labels },
    spec: {
      replicas: controllerReplicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          serviceAccountName: CONTROLLER,
          priorityClassName: "system-cluster-critical",
          nodeSelector: { [ENGINE_LABEL]: ENGINE_LABEL_VALUE },
          affinity: {
            podAntiAffinity: {
              preferredDuringSchedulingIgnoredDuringExecution: [
                {
                  weight: 100,
                  podAffinityTerm: {
                    topologyKey: "kubernetes.io/hostname",
                    labelSelector: { matchLabels: labels },
                  },
                },
              ],
            },
          },
          // A node that fails loses the controller soon, not after five minutes.
          tolerations: ["not-ready", "unreachable"].map((state) => ({
            key: `node.kubernetes.io/${state}`,
            operator: "Exists",
            effect: "NoExecute",
            tolerationSeconds: 30,
          })),
          containers,
          volumes: [
            { name: "socket", hostPath: { path: dirname(options.csiSocket), type: "Directory" } },
          ],
        },
      },
    },
  };
}

type DaemonSetOptions = NonNullable<ManifestOptions["daemonSet"]>;

function nodeContainer(options: ManifestOptions, { image, rest, secret }: DaemonSetOptions) {
  const { driverName, kubeletDir } = options;
  return {
    name: "csi-node",
    image,
    args: [
      "csi",
      "--node",
      "--node-name=$(NODE_NAME)",
      `--driver-name=${driverName}`,
      `--kubelet-dir=${kubeletDir}`,
      `--rest=${rest}`,
      ...(secret === null ? [] : ["--ca=/etc/trilith/rest/ca.crt"]),
    ],
    env: [
      fieldEnvironment("NODE_NAME", "spec.nodeName"),
      ...(secret === null
        ? []
        : [{ name: "TRILITH_TOKEN", valueFrom: { secretKeyRef: { name: secret, key: "token" } } }]),
    ],
    resources: { requests: { cpu: "20m", memory: "96Mi" } },
    // It mounts file systems for other pods, and connects the kernel's NVMe host.
    securityContext: { privileged: true },
    volumeMounts: [
      { name: "kubelet", mountPath: kubeletDir, mountPropagation: "Bidirectional" },
      // What this host is connected to outlives the pod.
      { name: "state", mountPath: STATE_FOLDER },
      { name: "dev", mountPath: "/dev" },
      { name: "sys", mountPath: "/sys" },
      { name: "modules", mountPath: "/lib/modules", readOnly: true },
      // What is staged and connected is known again after the pod was replaced.
      { name: "state", mountPath: "/var/lib/trilith" },
      { name: "records", mountPath: "/run/trilith" },
      ...(secret === null
        ? []
        : [{ name: "rest", mountPath: "/etc/trilith/rest", readOnly: true }]),
    ],
  };
}

/** The node service on nodes without the appliance. */
export function nodeDaemonSet(options: ManifestOptions, wanted: DaemonSetOptions) {
  const labels = labelsOf("csi-node");
  const hostPath = (name: string, path: string, type = "Directory") => ({
    name,
    hostPath: { path, type },
  });
  return {
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: NODE, namespace: options.namespace, labels },
    spec: {
      selector: { matchLabels: labels },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "10%" } },
      template: {
        metadata: { labels },
        spec: {
          hostNetwork: true,
          dnsPolicy: "ClusterFirstWithHostNet",
          priorityClassName: "system-node-critical",
          automountServiceAccountToken: false,
          nodeSelector: { "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" },
          affinity: {
            nodeAffinity: {
              requiredDuringSchedulingIgnoredDuringExecution: {
                nodeSelectorTerms: [
                  {
                    matchExpressions: [
                      { key: ENGINE_LABEL, operator: "NotIn", values: [ENGINE_LABEL_VALUE] },
                    ],
                  },
                ],
              },
            },
          },
          tolerations: [{ operator: "Exists" }],
          containers: [nodeContainer(options, wanted)],
          volumes: [
            hostPath("kubelet", options.kubeletDir),
            { name: "state", hostPath: { path: STATE_FOLDER, type: "DirectoryOrCreate" } },
            hostPath("dev", "/dev"),
            hostPath("sys", "/sys"),
            hostPath("modules", "/lib/modules"),
            hostPath("state", "/var/lib/trilith", "DirectoryOrCreate"),
            hostPath("records", "/run/trilith", "DirectoryOrCreate"),
            ...(wanted.secret === null
              ? []
              : [{ name: "rest", secret: { secretName: wanted.secret } }]),
          ],
        },
      },
    },
  };
}
