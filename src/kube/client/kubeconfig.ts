/**
 * Who to be and whom to ask, from a kubeconfig (kubernetes.io, "Organizing Cluster Access Using
 * kubeconfig Files"). Certificates, keys and tokens, inline or in files; programs that make
 * credentials (`exec`) and passwords are not run, and said so. Pure: files are read by the caller.
 */
import { dirname, resolve } from "node:path";
import { TrilithError } from "../../errors.ts";

/** A PEM text, or the file it stands in. */
export type PemSource = { readonly text: string } | { readonly file: string };

/** How to reach an API server. */
export interface Access {
  /** Base of all URLs, without a slash at its end. */
  readonly server: string;
  readonly ca?: PemSource;
  readonly cert?: PemSource;
  readonly key?: PemSource;
  readonly token?: PemSource;
  /** Name that the server's certificate has to be for, when it is not that of the URL. */
  readonly serverName?: string;
  /** The server's certificate is not checked: only when the file says so itself. */
  readonly insecure: boolean;
  /** Namespace of the context. */
  readonly namespace: string;
}

type Fields = Readonly<Record<string, unknown>>;

function invalid(where: string, what: string, remedy = ""): TrilithError {
  return new TrilithError("InvalidArgument", `${where}: ${what}`, remedy);
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : {};
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** The entry of a list of `{ name, <kind>: {...} }`. */
function named(where: string, config: Fields, list: string, kind: string, name: string): Fields {
  const entries = Array.isArray(config[list]) ? (config[list] as unknown[]) : [];
  const found = entries.map(fieldsOf).find((entry) => entry.name === name);
  if (found === undefined) throw invalid(where, `there is no ${kind} "${name}" in it`);
  return fieldsOf(found[kind]);
}

function base64(where: string, field: string, text: string): string {
  const decoded = Buffer.from(text, "base64").toString("utf8");
  if (decoded.includes("-----BEGIN ")) return decoded;
  throw invalid(where, `${field} is no PEM in base64`);
}

/** `<field>-data`, else the file that `<field>` names, relative to the kubeconfig. */
function pem(path: string, fields: Fields, field: string): PemSource | undefined {
  const inline = textOf(fields[`${field}-data`]);
  if (inline !== undefined) return { text: base64(path, `${field}-data`, inline) };
  const file = textOf(fields[field]);
  return file === undefined ? undefined : { file: resolve(dirname(path), file) };
}

function tokenOf(path: string, user: Fields): PemSource | undefined {
  const file = textOf(user.tokenFile);
  if (file !== undefined) return { file: resolve(dirname(path), file) };
  const text = textOf(user.token);
  return text === undefined ? undefined : { text };
}

function serverOf(where: string, cluster: Fields): string {
  const server = textOf(cluster.server) ?? "";
  const url = URL.parse(server);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw invalid(where, `the cluster's server "${server}" is no http(s) URL`);
  }
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`;
}

/**
 * The access that a kubeconfig describes: of the context `asked`, else of its current one. `path`
 * names the file in messages, and is what relative paths in it start from. Throws
 * `InvalidArgument`, and `Unimplemented` for `exec` and passwords.
 */
export function parseKubeconfig(text: string, path: string, asked?: string): Access {
  let config: Fields;
  try {
    config = fieldsOf(Bun.YAML.parse(text));
  } catch (error) {
    throw invalid(path, `is no YAML: ${(error as Error).message}`);
  }
  const contextName = asked ?? textOf(config["current-context"]);
  if (contextName === undefined) {
    throw invalid(path, "has no current context", "set one: kubectl config use-context <name>");
  }
  const context = named(path, config, "contexts", "context", contextName);
  const cluster = named(path, config, "clusters", "cluster", textOf(context.cluster) ?? "");
  const userName = textOf(context.user);
  const user = userName === undefined ? {} : named(path, config, "users", "user", userName);
  for (const field of ["exec", "auth-provider", "password"]) {
    if (user[field] === undefined) continue;
    throw new TrilithError(
      "Unimplemented",
      `${path}: the user "${userName}" authenticates by ${field}, which a service cannot do`,
      "make a service account with a token, and a kubeconfig with it",
    );
  }
  const optional = <K extends string, T>(key: K, value: T | undefined) =>
    (value === undefined ? {} : { [key]: value }) as { [name in K]?: T };
  return {
    server: serverOf(path, cluster),
    insecure: cluster["insecure-skip-tls-verify"] === true,
    namespace: textOf(context.namespace) ?? "default",
    ...optional("ca", pem(path, cluster, "certificate-authority")),
    ...optional("serverName", textOf(cluster["tls-server-name"])),
    ...optional("cert", pem(path, user, "client-certificate")),
    ...optional("key", pem(path, user, "client-key")),
    ...optional("token", tokenOf(path, user)),
  };
}
