/** `trilith publish` and `trilith unpublish`: where a volume is served. */
import { Command } from "commander";
import type { RestClient } from "../client/client.ts";
import { targetAddress } from "../client/target-address.ts";
import type { Volume, VolumePath } from "../client/types.ts";
import { TrilithError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { volumeId } from "./create.ts";
import { idArgument, printDone, withSession } from "./session.ts";

interface PublishOptions {
  readonly node?: string;
  readonly host?: string;
  readonly context?: Readonly<Record<string, string>>;
  readonly republish?: boolean;
  readonly reuseExisting?: boolean;
}

function collectContext(text: string, former: Readonly<Record<string, string>> = {}) {
  const equals = text.indexOf("=");
  return equals < 0
    ? { ...former, [text]: "" }
    : { ...former, [text.slice(0, equals)]: text.slice(equals + 1) };
}

/** A word as a shell takes it. */
export function shellWord(text: string): string {
  return /^[A-Za-z0-9_.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * The command that connects a Linux host. The kernel goes on trying for as long as a lost target
 * may take to be moved (`ctrl-loss-tmo`: mayastor.md 3.3). `onlyHost`: NQN that is let in, when the
 * URI does not say.
 */
export function connectCommand(uri: string, onlyHost: string | null = null): string {
  const { address, port, nqn, ...named } = targetAddress(uri);
  const hostNqn = named.hostNqn ?? onlyHost;
  const words = ["nvme", "connect", "-t", "tcp", "-a", address, "-s", port, "-n", nqn];
  if (hostNqn !== null) words.push(`--hostnqn=${hostNqn}`);
  words.push("--ctrl-loss-tmo=1980", "--reconnect-delay=2");
  return words.map(shellWord).join(" ");
}

/** Paths of a volume beside that of its target; none where the API does not know them yet. */
async function standbysOf(client: RestClient, id: string): Promise<VolumePath[]> {
  try {
    const paths = await client.paths(id);
    return paths.filter(({ role, uri }) => role === "standby" && uri !== "");
  } catch (error) {
    if (error instanceof TrilithError && error.code === "NotFound") return [];
    throw error;
  }
}

/**
 * Text about a volume that was published, with a command for each path: a host that knows them all goes on
 * when the target moves.
 */
function publishedText({ spec, state }: Volume, standbys: readonly VolumePath[]): string {
  const uri = state.target?.deviceUri ?? "";
  const node = state.target?.node ?? spec.target?.node ?? "?";
  const lines = [`Volume ${spec.uuid} published on ${node}`];
  const hosts = spec.target?.frontend_nodes ?? [];
  const only = hosts.length === 1 ? hosts[0]!.nqn : null;
  if (uri !== "") lines.push(connectCommand(uri, only));
  const host = (uri === "" ? null : targetAddress(uri).hostNqn) ?? only;
  for (const standby of standbys) lines.push(connectCommand(standby.uri, host));
  return lines.join("\n");
}

/** The `publish` verb. */
export function publishCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description(
      "Serves a volume over NVMe/TCP, and prints the command that connects a Linux host to it.",
    )
    .addArgument(idArgument("volume"))
    .option("--node <id>", "node that serves it (default: a good one is chosen)")
    .option("--host <node>", "only this host may connect (a node's or registered host's name)")
    .option("--context <key=value>", "entry of the publish context", collectContext)
    .option("--republish", "move it although it is published already")
    .option("--reuse-existing", "with --republish: where it is published, if that is possible")
    .action(
      withSession<[string], PublishOptions>(context, async (session, [given], options) => {
        const published = await session.client.publishVolume(volumeId(given), {
          publish_context: options.context ?? {},
          protocol: "nvmf",
          ...(options.node === undefined ? {} : { node: options.node }),
          ...(options.host === undefined ? {} : { frontend_node: options.host }),
          ...(options.republish === true ? { republish: true } : {}),
          ...(options.reuseExisting === true ? { reuse_existing: true } : {}),
        });
        const isText = session.output === "none";
        const standbys = isText ? await standbysOf(session.client, volumeId(given)) : [];
        printDone(session, published, publishedText(published, standbys));
      }),
    );
  return new Command("publish").description("Serves volumes to hosts.").addCommand(volume);
}

/** The `unpublish` verb. */
export function unpublishCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description("Stops serving a volume. Hosts should have disconnected before.")
    .addArgument(idArgument("volume"))
    .option("--force", "although its node cannot be reached")
    .action(
      withSession<[string], { force?: boolean }>(context, async (session, [given], options) => {
        const id = volumeId(given);
        const volume = await session.client.unpublishVolume(id, options.force === true);
        printDone(session, volume, `Volume ${id} unpublished`);
      }),
    );
  return new Command("unpublish").description("Stops serving volumes to hosts.").addCommand(volume);
}
