/**
 * What the verbs that talk to the cluster share: the options of `kubectl mayastor` (mayastor.md 2),
 * the client made of them, and how results are printed.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Argument, type Command, Option } from "commander";
import { type RestClient, restClient } from "../client/client.ts";
import { chooseEndpoint, type Endpoint } from "../client/endpoint.ts";
import { TIMEOUT_DEFAULT_MS } from "../client/limits.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { type Paint, paintFor } from "./output/color.ts";
import { durationArgument } from "./output/size.ts";
import { type Cell, renderTable } from "./output/table.ts";

/** Where a node keeps its state unless told otherwise (as in `engine/settings.ts`). */
const DATA_DIR_DEFAULT = "/var/lib/trilith";

export type OutputFormat = "none" | "json" | "yaml";

/** The options of every verb that talks to the cluster, as commander reads them. */
export interface GlobalOptions {
  readonly output: OutputFormat;
  readonly rest?: string;
  readonly timeout?: number;
  readonly token?: string;
  readonly ca?: string;
}

/** What the action of such a verb works with. */
export interface Session {
  readonly context: CliContext;
  readonly client: RestClient;
  readonly output: OutputFormat;
  readonly paint: Paint;
  readonly sleep: (ms: number) => Promise<void>;
  readonly now: () => number;
}

/** Adds the options to the program: they may stand before the verb and after it. */
export function addGlobalOptions(program: Command): Command {
  return program
    .addOption(
      new Option("-o, --output <format>", "print REST objects instead of text")
        .choices(["none", "json", "yaml"])
        .default("none"),
    )
    .addOption(
      new Option(
        "-r, --rest <url>",
        "the API to talk to (default: TRILITH_REST, else /run/trilith/api.sock when it exists, " +
          "else http://127.0.0.1:8081)",
      ),
    )
    .addOption(
      new Option(
        "-t, --timeout <time>",
        "time limit of a request (default: 10s; 60s for changes)",
      ).argParser(durationArgument),
    )
    .addOption(new Option("--token <token>", "token to show to the API (default: TRILITH_TOKEN)"))
    .addOption(
      new Option(
        "--ca <file>",
        "certificate authority of the API (default: TRILITH_CA, on a node the cluster's own)",
      ),
    )
    .addOption(new Option("-n, --namespace <name>", "accepted for kubectl's sake").hideHelp())
    .addOption(
      new Option("-k, --kube-config-path <path>", "accepted for kubectl's sake").hideHelp(),
    )
    .addOption(new Option("-j, --jaeger <agent>", "accepted for kubectl's sake").hideHelp());
}

/** The authority to check a certificate against: the file's, else on a node the cluster's own. */
function authorityFor(
  endpoint: Endpoint,
  file: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string | null {
  if (file !== undefined && file !== "") {
    try {
      return readFileSync(file, "utf8");
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new TrilithError(
        "InvalidArgument",
        `the certificate authority cannot be read: ${text}`,
        "name a PEM file with --ca or TRILITH_CA; a node's is cluster/ca.crt in its data directory",
      );
    }
  }
  if (!endpoint.url.startsWith("https:")) return null;
  const own = join(env.TRILITH_DATA_DIR ?? DATA_DIR_DEFAULT, "cluster/ca.crt");
  try {
    return readFileSync(own, "utf8");
  } catch {
    return null; // Not a node, or not for this user: the system's authorities decide.
  }
}

/** The session that the options of a command line ask for. */
export function openSession(context: CliContext, options: Partial<GlobalOptions>): Session {
  const env = context.env ?? {};
  const token = options.token ?? env.TRILITH_TOKEN;
  const sleep = context.sleep ?? Bun.sleep;
  const endpoint = chooseEndpoint(options.rest ?? env.TRILITH_REST);
  const ca = authorityFor(endpoint, options.ca ?? env.TRILITH_CA, env);
  const client = restClient({
    endpoint,
    timeoutMs: options.timeout ?? TIMEOUT_DEFAULT_MS,
    timeoutGiven: options.timeout !== undefined,
    sleep,
    ...(token === undefined || token === "" ? {} : { token }),
    ...(ca === null ? {} : { ca }),
  });
  return {
    context,
    client,
    output: options.output ?? "none",
    paint: paintFor(context.terminal !== undefined, env),
    sleep,
    now: context.now ?? Date.now,
  };
}

/**
 * The action of a verb that talks to the cluster: called with a session, the arguments as commander
 * parsed them, and the verb's own options.
 */
export function withSession<A extends unknown[], O extends object>(
  context: CliContext,
  act: (session: Session, args: A, options: O) => Promise<void> | void,
): (...given: unknown[]) => Promise<void> {
  return async (...given) => {
    const command = given.at(-1) as Command;
    const options = command.optsWithGlobals() as O & Partial<GlobalOptions>;
    await act(openSession(context, options), given.slice(0, -2) as A, options);
  };
}

/** An argument that is an id; `kind` names the resource for shell completion. */
export function idArgument(
  kind: "volume" | "pool" | "node" | "snapshot",
  name = `<${kind}>`,
): Argument {
  const texts = {
    volume: "id of a volume",
    pool: "id of a pool",
    node: "id of a node",
    snapshot: "id of a snapshot",
  };
  return new Argument(name, texts[kind]);
}

/** Prints REST objects as they came, in the format that was asked for; false: as text, please. */
export function printObjects(session: Session, value: unknown): boolean {
  switch (session.output) {
    case "json":
      session.context.print(JSON.stringify(value, null, 2));
      return true;
    case "yaml":
      session.context.print(yamlText(value));
      return true;
    case "none":
      return false;
  }
}

/** A value as YAML in block style. */
export function yamlText(value: unknown): string {
  return (Bun.YAML.stringify(value, null, 2) ?? "null").trimEnd();
}

/** Prints a listing: as the objects, or as a table of a row for each. */
export function printTable<T>(
  session: Session,
  value: unknown,
  headings: readonly string[],
  items: readonly T[],
  rowsOf: (item: T) => readonly (readonly Cell[])[],
): void {
  if (printObjects(session, value)) return;
  session.context.print(renderTable(headings, items.flatMap(rowsOf), session.paint));
}

/** Prints what a change answered, or the line that says it was made. */
export function printDone(session: Session, value: unknown, text: string): void {
  if (!printObjects(session, value ?? null)) session.context.print(text);
}
