/** The manifest for Kubernetes: what it holds, that it is the same each time, and what it refuses. */
import { describe, expect, test } from "bun:test";
import type { CliContext } from "../../../src/cli/context.ts";
import { kubernetesCommand } from "../../../src/cli/kubernetes.ts";
import type { KubeObject } from "../../../src/kube/client/objects.ts";
import { parseClassOption } from "../../../src/kube/manifest/class-option.ts";

function printed(...options: string[]): string {
  const lines: string[] = [];
  const context: CliContext = { print: (text) => lines.push(text), printError: () => {} };
  const command = kubernetesCommand(context);
  for (const one of [command, ...command.commands]) {
    one.exitOverride().configureOutput({ writeErr: () => {} });
  }
  command.parse(["manifest", ...options], { from: "user" });
  return lines.join("\n");
}

function objects(...options: string[]): KubeObject[] {
  return (JSON.parse(printed("-o", "json", ...options)) as { items: KubeObject[] }).items;
}

const names = (items: readonly KubeObject[]) =>
  items.map(({ kind, metadata }) => `${kind}/${metadata.name}`);

const EVERYTHING = [
  ...["--with-snapshots", "--with-capacity"],
  ...["--with-prometheus", "--metrics-address", "10.0.0.1,fd00::1"],
  ...["--daemonset", "--rest", "https://10.0.0.1:8081", "--token-secret", "api"],
];

describe("the manifest", () => {
  test("has what a cluster of appliances needs, and no more", () => {
    expect(names(objects())).toEqual([
      "Namespace/trilith",
      "CustomResourceDefinition/diskpools.openebs.io",
      "CustomResourceDefinition/mayastorpools.openebs.io",
      "ServiceAccount/trilith-csi-controller",
      "ServiceAccount/trilith-appliance",
      "Secret/trilith-appliance",
      "ClusterRole/trilith-csi-controller",
      "ClusterRoleBinding/trilith-csi-controller",
      "Role/trilith-csi-controller",
      "RoleBinding/trilith-csi-controller",
      "ClusterRole/trilith-appliance",
      "ClusterRoleBinding/trilith-appliance",
      "CSIDriver/io.openebs.csi-mayastor",
      "Deployment/trilith-csi-controller",
      "StorageClass/trilith-3",
    ]);
  });

  test("adds what is asked for", () => {
    const added = names(objects(...EVERYTHING)).filter((name) => !names(objects()).includes(name));
    expect(added).toEqual([
      "DaemonSet/trilith-csi-node",
      "VolumeSnapshotClass/trilith",
      "Service/trilith-metrics",
      "EndpointSlice/trilith-metrics-ipv4",
      "EndpointSlice/trilith-metrics-ipv6",
      "ServiceMonitor/trilith-metrics",
      "PrometheusRule/trilith",
    ]);
  });

  test("is the same bytes each time, as YAML and as JSON, without anchors", () => {
    const yaml = printed(...EVERYTHING);
    expect(printed(...EVERYTHING)).toBe(yaml);
    expect(yaml).not.toMatch(/^\s*[&*]|: [&*]/m);
    expect(Bun.YAML.parse(yaml)).toEqual(objects(...EVERYTHING));
  });

  test("says YAML's ambiguous words so that every parser takes them for texts", () => {
    const yaml = printed("--storage-class", "a:thin=true,repl=3,x=yes,y=on,z=1e3,n=null,o=0o7");
    for (const quoted of ['thin: "true"', 'repl: "3"', 'x: "yes"', '"y": "on"', 'z: "1e3"']) {
      expect(yaml).toContain(quoted);
    }
    expect(yaml).toContain('"n": "null"');
  });

  test("one version of DiskPool is stored, all are served with one schema", () => {
    const definition = objects()[1] as unknown as {
      spec: { versions: { name: string; storage: boolean; served: boolean; schema: unknown }[] };
    };
    const { versions } = definition.spec;
    expect(versions.map(({ name, storage }) => `${name} ${storage}`)).toEqual([
      ...["v1alpha1 false", "v1beta1 false", "v1beta2 false", "v1beta3 true"],
    ]);
    for (const { schema, served } of versions) {
      expect(served).toBe(true);
      expect(schema).toEqual(versions[0]!.schema);
    }
  });

  test("takes its sidecars from a mirror, or each from where it is said", () => {
    const mirrored = JSON.stringify(objects("--registry", "mirror.example:5000/k8s/"));
    expect(mirrored).toContain('"mirror.example:5000/k8s/sig-storage/csi-provisioner:v');
    expect(mirrored).not.toContain("k8s.io/sig-storage");
    const own = JSON.stringify(objects("--attacher-image", "own/attacher:1"));
    expect(own).toContain('"own/attacher:1"');
  });

  test.each([
    [["--with-prometheus"], "--with-prometheus has to know where"],
    [["--with-prometheus", "--metrics-address", "node-1"], '"node-1" is no IP address'],
    [["--daemonset"], "--daemonset has to know where"],
    [["--daemonset", "--rest", "unix:/x"], "no http(s) URL"],
    [["--driver-name", "a/b"], "no name of a CSI driver"],
    [["--namespace", "Upper"], "small letters"],
    [["--storage-class", "a:reclaimPolicy=Keep"], "Delete or Retain"],
    [["--storage-class", "a:thin"], "no key=value"],
    [["--replicas", "0"], "no whole number"],
  ])("refuses %j with a reason", (options, reason) => {
    expect(() => printed(...options)).toThrow(reason);
  });
});

test("a class is written in one word", () => {
  expect(
    parseClassOption("fast:thin=true,repl=2,reclaimPolicy=Retain,mountOptions=noatime+nodiratime"),
  ).toEqual({
    name: "fast",
    parameters: { protocol: "nvmf", repl: "2", thin: "true" },
    reclaimPolicy: "Retain",
    volumeBindingMode: "Immediate",
    mountOptions: ["noatime", "nodiratime"],
    isDefault: false,
  });
});
