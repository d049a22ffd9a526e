/** Accounts and their rights: of the sidecars, and of the appliance's control process. Pure. */
import { POOL_GROUP } from "../names.ts";
import type { ManifestOptions } from "./options.ts";

export const CONTROLLER = "trilith-csi-controller";
export const APPLIANCE = "trilith-appliance";

const read = ["get", "list", "watch"];
const change = ["create", "update", "patch", "delete"];

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}
const rule = (group: string, resources: string[], verbs: string[]): Rule => ({
  apiGroups: [group],
  resources,
  verbs,
});

const eventRules = [
  rule("", ["events"], ["create", "list", "watch", "patch", "update", "get"]),
  rule("events.k8s.io", ["events"], ["create", "patch", "update"]),
];

/** What provisioner, attacher, resizer and snapshotter ask for in their own documentation. */
function controllerRules({ withSnapshots, withCapacity }: ManifestOptions): Rule[] {
  return [
    ...eventRules,
    rule("", ["persistentvolumes"], [...read, ...change]),
    rule("", ["persistentvolumeclaims"], [...read, "update", "patch"]),
    rule("", ["persistentvolumeclaims/status"], ["update", "patch"]),
    rule("", ["nodes", "pods"], read),
    rule("storage.k8s.io", ["storageclasses", "csinodes", "volumeattributesclasses"], read),
    rule("storage.k8s.io", ["volumeattachments"], [...read, "patch"]),
    rule("storage.k8s.io", ["volumeattachments/status"], ["patch"]),
    rule("snapshot.storage.k8s.io", ["volumesnapshots"], ["get", "list"]),
    rule("snapshot.storage.k8s.io", ["volumesnapshotcontents"], ["get", "list"]),
    ...(withSnapshots
      ? [
          rule("snapshot.storage.k8s.io", ["volumesnapshotclasses"], read),
          rule("snapshot.storage.k8s.io", ["volumesnapshotcontents"], [...read, "update", "patch"]),
          rule("snapshot.storage.k8s.io", ["volumesnapshotcontents/status"], ["update", "patch"]),
        ]
      : []),
    ...(withCapacity
      ? [
          rule("storage.k8s.io", ["csistoragecapacities"], [...read, ...change]),
          rule("apps", ["deployments", "replicasets"], ["get"]),
        ]
      : []),
  ];
}

/** What the operator of pools and the collector of volumes without a claim need. */
const applianceRules = [
  ...eventRules,
  rule(POOL_GROUP, ["diskpools", "mayastorpools"], [...read, "patch", "update"]),
  rule(POOL_GROUP, ["diskpools/status", "mayastorpools/status"], ["get", "patch", "update"]),
  rule("", ["persistentvolumes", "persistentvolumeclaims"], read),
  { apiGroups: [""], resources: ["namespaces"], resourceNames: ["kube-system"], verbs: ["get"] },
];

const leaseRules = [rule("coordination.k8s.io", ["leases"], [...read, ...change])];

const RBAC = "rbac.authorization.k8s.io";

function granted(
  kind: "Role" | "ClusterRole",
  name: string,
  namespace: string,
  rules: readonly Rule[],
) {
  const apiVersion = `${RBAC}/v1`;
  const metadata = kind === "Role" ? { name, namespace } : { name };
  return [
    { apiVersion, kind, metadata, rules },
    {
      apiVersion,
      kind: `${kind}Binding`,
      metadata,
      roleRef: { apiGroup: RBAC, kind, name },
      subjects: [{ kind: "ServiceAccount", name, namespace }],
    },
  ];
}

/** Accounts, roles and bindings, and the token by which the appliance reaches the API server. */
export function rightsOf(options: ManifestOptions): object[] {
  const { namespace } = options;
  const account = (name: string) => ({
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name, namespace },
  });
  return [
    account(CONTROLLER),
    account(APPLIANCE),
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: {
        name: APPLIANCE,
        namespace,
        annotations: { "kubernetes.io/service-account.name": APPLIANCE },
      },
      type: "kubernetes.io/service-account-token",
    },
    ...granted("ClusterRole", CONTROLLER, namespace, controllerRules(options)),
    ...granted("Role", CONTROLLER, namespace, leaseRules),
    ...granted("ClusterRole", APPLIANCE, namespace, applianceRules),
  ];
}
