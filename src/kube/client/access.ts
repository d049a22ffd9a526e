/** Finds the API server: a kubeconfig that was named, or the service account of the pod around. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { TrilithError } from "../../errors.ts";
import { type Access, type PemSource, parseKubeconfig } from "./kubeconfig.ts";
import { KUBECONFIG_BYTES_MAX, TOKEN_AGE_MAX_MS } from "./limits.ts";

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

type Environment = Readonly<Record<string, string | undefined>>;

/** The access of a kubeconfig's file. Throws `InvalidArgument`, `NotFound`. */
export function readKubeconfig(path: string, context?: string): Access {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) {
    throw new TrilithError("NotFound", `there is no kubeconfig ${path}`, "name one that is there");
  }
  if (size > KUBECONFIG_BYTES_MAX) {
    throw new TrilithError("InvalidArgument", `${path} is too large to be a kubeconfig`);
  }
  return parseKubeconfig(readFileSync(path, "utf8"), path, context);
}

/** The access of the pod that this process runs in; null outside of Kubernetes. */
export function inClusterAccess(
  environment: Environment = process.env,
  folder = SERVICE_ACCOUNT,
): Access | null {
  const host = environment.KUBERNETES_SERVICE_HOST;
  const port = environment.KUBERNETES_SERVICE_PORT ?? "443";
  if (host === undefined || host === "" || !existsSync(`${folder}/token`)) return null;
  const namespace = `${folder}/namespace`;
  return {
    server: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    ca: { file: `${folder}/ca.crt` },
    token: { file: `${folder}/token` },
    insecure: false,
    namespace: existsSync(namespace) ? readFileSync(namespace, "utf8").trim() : "default",
  };
}

/** What a request is sent with. */
export interface Credentials {
  readonly tls: {
    readonly ca?: string;
    readonly cert?: string;
    readonly key?: string;
    readonly serverName?: string;
    readonly rejectUnauthorized?: false;
  };
  readonly token?: string;
}

function read(source: PemSource): string {
  if ("text" in source) return source.text;
  try {
    return readFileSync(source.file, "utf8");
  } catch (error) {
    throw new TrilithError(
      "Unavailable",
      `${source.file}, which the access to Kubernetes names, cannot be read: ${(error as Error).message}`,
      "look at the kubeconfig",
    );
  }
}

/**
 * The credentials of an access, as they are now: files are read again once they are a minute old,
 * since Kubernetes renews tokens (and cert-manager certificates) in place.
 */
export function credentialsOf(access: Access, nowMs: () => number): () => Credentials {
  let known: Credentials | undefined;
  let readAtMs = 0;
  return () => {
    if (known !== undefined && nowMs() - readAtMs < TOKEN_AGE_MAX_MS) return known;
    const { ca, cert, key, token, serverName, insecure } = access;
    known = {
      tls: {
        ...(ca === undefined ? {} : { ca: read(ca) }),
        ...(cert === undefined ? {} : { cert: read(cert) }),
        ...(key === undefined ? {} : { key: read(key) }),
        ...(serverName === undefined ? {} : { serverName }),
        ...(insecure ? { rejectUnauthorized: false } : {}),
      },
      ...(token === undefined ? {} : { token: read(token).trim() }),
    };
    readAtMs = nowMs();
    return known;
  };
}
