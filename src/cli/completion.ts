/** `trilith completion`: scripts for shells, and the suggestions that these ask for. */
import { Command } from "commander";
import { scripts, shells } from "./completion/scripts.ts";
import { type IdKind, type Suggestion, suggest } from "./completion/suggest.ts";
import type { CliContext } from "./context.ts";
import { humanSize } from "./output/size.ts";
import { addGlobalOptions, openSession, type Session } from "./session.ts";
import { nodeStatus, poolStatus } from "./tables.ts";
import { verbs } from "./verbs.ts";

/** How long the cluster may take to tell ids: somebody waits at a key. */
const IDS_MS = 1_500;
/** Volumes and snapshots that are suggested at most. */
const IDS_MAX = 200;

/** All verbs as commands; of the one that the words name, the whole tree. */
async function tree(context: CliContext, words: readonly string[]): Promise<Command> {
  const root = new Command("trilith");
  const named = verbs.filter(({ name }) => words.includes(name));
  if (named.length === 0 || named.some(({ usesApi }) => usesApi === true)) addGlobalOptions(root);
  for (const verb of verbs) {
    const command = named.includes(verb) ? (await verb.load())(context) : new Command(verb.name);
    root.addCommand(command.summary(verb.summary));
  }
  return root;
}

async function idsOf(session: Session, kind: IdKind): Promise<Suggestion[]> {
  const { client } = session;
  const query = { max_entries: IDS_MAX };
  switch (kind) {
    case "node":
      return (await client.nodes()).map((node) => ({
        word: node.id,
        description: nodeStatus(node),
      }));
    case "pool":
      return (await client.pools()).map(({ id, spec, state }) => ({
        word: id,
        description: `${spec?.node ?? state?.node ?? ""} ${poolStatus(spec, state)}`,
      }));
    case "volume": {
      const page = await client.get<{ entries: Awaited<ReturnType<typeof client.volumes>> }>(
        "/volumes",
        query,
      );
      return page.entries.map(({ spec, state }) => ({
        word: spec.uuid,
        description: `${humanSize(spec.size)} ${state.status}`,
      }));
    }
    case "snapshot": {
      const page = await client.get<{ entries: Awaited<ReturnType<typeof client.snapshots>> }>(
        "/volumes/snapshots",
        query,
      );
      return page.entries.map(({ definition }) => ({
        word: definition.spec.uuid,
        description: `of ${definition.spec.source_volume}`,
      }));
    }
  }
}

async function printSuggestions(context: CliContext, words: readonly string[]): Promise<void> {
  const found = suggest(await tree(context, words.slice(0, -1)), words);
  const lines = found.words.map(({ word, description }) => `${word}\t${description}`);
  if (found.ids !== null) {
    const { rest, token, ca } = found.given;
    const options = {
      timeout: IDS_MS,
      ...(rest && { rest }),
      ...(token && { token }),
      ...(ca && { ca }),
    };
    try {
      const ids = await idsOf(openSession(context, options), found.ids);
      const begun = words.at(-1) ?? "";
      const matching = ids.filter(({ word }) => word.startsWith(begun));
      lines.push(...matching.map(({ word, description }) => `${word}\t${description}`));
    } catch {
      // Nobody to ask: whoever types knows the id, or will see the error when the line is run.
    }
  }
  if (found.paths !== null) lines.push(`:${found.paths}\t`);
  if (lines.length > 0) context.print(lines.join("\n"));
}

/** The `completion` verb. */
export function completionCommand(context: CliContext): Command {
  const completion = new Command("completion").description(
    "Prints what makes a shell complete verbs, options and ids.\n" +
      "  bash:  source <(trilith completion bash)\n" +
      "  zsh:   source <(trilith completion zsh)\n" +
      "  fish:  trilith completion fish | source",
  );
  for (const shell of shells) {
    completion
      .command(shell)
      .description(`Prints the script for ${shell}.`)
      .action(() => context.print(scripts[shell]));
  }
  completion
    .command("suggest", { hidden: true })
    .description("Prints what may stand in the place of the last word.")
    .argument("[words...]", "the line after the program's name")
    .action((words: string[]) => printSuggestions(context, words));
  return completion;
}
