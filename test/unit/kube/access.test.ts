/** Who to be and whom to ask: kubeconfigs, and the account of a pod. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { credentialsOf, inClusterAccess } from "../../../src/kube/client/access.ts";
import { parseKubeconfig } from "../../../src/kube/client/kubeconfig.ts";
import { TOKEN_AGE_MAX_MS } from "../../../src/kube/client/limits.ts";
import { tempFolders } from "../../support/temp-folder.ts";

const folder = tempFolders();
const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const inline = Buffer.from(PEM).toString("base64");

const config = (user: string, cluster = "") => `
apiVersion: v1
kind: Config
current-context: one
contexts:
- name: one
  context: { cluster: c, user: u, namespace: storage }
- name: two
  context: { cluster: c2, user: u }
clusters:
- name: c
  cluster: { server: "https://10.0.0.1:6443/", certificate-authority-data: ${inline} ${cluster} }
- name: c2
  cluster: { server: "https://[fd00::1]:6443/prefix" }
users:
- name: u
  user: ${user}
`;
const parse = (text: string, context?: string) =>
  parseKubeconfig(text, "/etc/kube/config", context);

describe("a kubeconfig", () => {
  test("gives the access of its current context, or of another", () => {
    const user = `{ client-certificate-data: ${inline}, client-key: keys/me.key }`;
    expect(parse(config(user))).toEqual({
      server: "https://10.0.0.1:6443",
      insecure: false,
      namespace: "storage",
      ca: { text: PEM },
      cert: { text: PEM },
      key: { file: "/etc/kube/keys/me.key" },
    });
    expect(parse(config("{ token: abc }"), "two")).toEqual({
      server: "https://[fd00::1]:6443/prefix",
      insecure: false,
      namespace: "default",
      token: { text: "abc" },
    });
    expect(parse(config("{ tokenFile: t, token: abc }")).token).toEqual({ file: "/etc/kube/t" });
  });

  test.each([
    ["[", "is no YAML"],
    ["{}", "has no current context"],
    [config("{}").replace("cluster: c,", "cluster: c9,"), 'there is no cluster "c9" in it'],
    [config("{}").replace("https://10.0.0.1:6443/", "10.0.0.1"), 'server "10.0.0.1" is no http(s)'],
    [config("{ exec: { command: aws } }"), "authenticates by exec"],
    [config("{ username: a, password: b }"), "authenticates by password"],
    [config("{ client-certificate-data: AAAA }"), "client-certificate-data is no PEM"],
  ])("that cannot be used is refused with a reason: %#", (text, reason) => {
    expect(() => parse(text)).toThrow(reason);
  });
});

test("a token in a file is read again once it is old, as Kubernetes renews it in place", () => {
  const file = join(folder(), "token");
  writeFileSync(file, "first\n");
  let nowMs = 0;
  const access = { server: "https://x", insecure: false, namespace: "a", token: { file } };
  const credentials = credentialsOf(access, () => nowMs);
  expect(credentials().token).toBe("first");
  writeFileSync(file, "second\n");
  nowMs = TOKEN_AGE_MAX_MS - 1;
  expect(credentials().token).toBe("first");
  nowMs = TOKEN_AGE_MAX_MS;
  expect(credentials().token).toBe("second");
});

test("a pod's account is found by its files; outside of Kubernetes there is none", () => {
  const files = folder();
  const environment = { KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "443" };
  expect(inClusterAccess(environment, files)).toBeNull();
  writeFileSync(join(files, "token"), "abc");
  writeFileSync(join(files, "namespace"), "storage\n");
  expect(inClusterAccess({}, files)).toBeNull();
  expect(inClusterAccess(environment, files)).toMatchObject({
    server: "https://[fd00::1]:443",
    namespace: "storage",
    token: { file: join(files, "token") },
  });
});
