/**
 * What may stand next on a command line, told from the verbs' own command trees; the shells' scripts
 * ask for it at each press of the key.
 */
import type { Argument, Command, Option } from "commander";

export interface Suggestion {
  readonly word: string;
  readonly description: string;
}

/** Kinds of things whose ids can be suggested. */
export type IdKind = "volume" | "pool" | "node" | "snapshot";

export interface Suggestions {
  readonly words: readonly Suggestion[];
  /** What the shell is to add by itself. */
  readonly paths: "files" | "folders" | null;
  /** Ids of these are wanted too. */
  readonly ids: IdKind | null;
  /** Options of the line so far, by long name: where to ask for ids. */
  readonly given: Readonly<Record<string, string>>;
}

const nothing: Omit<Suggestions, "given"> = { words: [], paths: null, ids: null };

const idNames: Readonly<Record<string, IdKind>> = {
  volume: "volume",
  pool: "pool",
  "to-pool": "pool",
  node: "node",
  host: "node",
  snapshot: "snapshot",
  "from-snapshot": "snapshot",
};

function pathsFor(valueName: string): Suggestions["paths"] {
  if (/^(file|path|disk|device|uri)$/.test(valueName)) return "files";
  return /^(folder|directory|root)$/.test(valueName) ? "folders" : null;
}

/** What an argument or an option's value may be. */
function valuesOf(
  name: string,
  valueName: string,
  choices: readonly string[] | undefined,
): Omit<Suggestions, "given"> {
  if (choices !== undefined) {
    return { ...nothing, words: choices.map((word) => ({ word, description: "" })) };
  }
  return { ...nothing, ids: idNames[name] ?? null, paths: pathsFor(valueName) };
}

function ofOption(option: Option): Omit<Suggestions, "given"> {
  const valueName = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? "";
  return valuesOf(option.long?.replace(/^--/, "") ?? "", valueName, option.argChoices);
}

function ofArgument(argument: Argument | undefined): Omit<Suggestions, "given"> {
  if (argument === undefined) return nothing;
  return valuesOf(argument.name(), argument.name(), argument.argChoices);
}

/** The options that hold at a command: its own, and those of all above it. */
function optionsAt(command: Command): Option[] {
  const found: Option[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) found.push(...at.options);
  return found;
}

function findOption(command: Command, word: string): Option | undefined {
  const name = word.replace(/=.*$/, "");
  return optionsAt(command).find(({ short, long }) => name === short || name === long);
}

function takesValue(option: Option): boolean {
  return option.required || option.optional;
}

function optionWords(command: Command): Suggestion[] {
  const shown = optionsAt(command).filter(({ hidden, long }) => !hidden && long !== undefined);
  const words = shown.map(({ long, description }) => ({ word: long!, description }));
  return [...words, { word: "--help", description: "show help" }];
}

function subcommandWords(command: Command): Suggestion[] {
  const visible = command.createHelp().visibleCommands(command);
  return visible.map((one) => ({
    word: one.name(),
    description: (one.summary() || one.description()).split("\n")[0] ?? "",
  }));
}

/**
 * What may stand in the place of the last of `words`, the line after the program's name. `root` holds
 * the verbs; of the verb that is named the whole tree has to be there.
 */
export function suggest(root: Command, words: readonly string[]): Suggestions {
  const current = words.at(-1) ?? "";
  const given: Record<string, string> = {};
  let command = root;
  let argumentsGiven = 0;
  let awaiting: Option | undefined;
  for (const word of words.slice(0, -1)) {
    if (awaiting !== undefined) {
      given[awaiting.long?.replace(/^--/, "") ?? ""] = word;
      awaiting = undefined;
    } else if (word.startsWith("-") && word !== "-") {
      const option = findOption(command, word);
      if (option !== undefined && takesValue(option) && !word.includes("=")) awaiting = option;
    } else {
      const below = command.commands.find(
        (one) => one.name() === word || one.aliases().includes(word),
      );
      if (below !== undefined) command = below;
      else argumentsGiven++;
    }
  }
  const begins = ({ word }: Suggestion) => word.startsWith(current);
  const matching = (found: Omit<Suggestions, "given">): Suggestions => ({
    ...found,
    words: found.words.filter(begins),
    given,
  });
  if (awaiting !== undefined) return matching(ofOption(awaiting));
  const assigned = /^(--[^=]+)=/.exec(current);
  if (assigned !== null) {
    const option = findOption(command, current);
    const values = option === undefined ? nothing : ofOption(option);
    const prefixed = values.words.map((one) => ({ ...one, word: `${assigned[1]}=${one.word}` }));
    return matching({ words: prefixed, paths: null, ids: null });
  }
  if (current.startsWith("-")) return matching({ ...nothing, words: optionWords(command) });
  if (command.commands.length > 0) {
    return matching({ ...nothing, words: subcommandWords(command) });
  }
  const last = command.registeredArguments.at(-1);
  const next =
    command.registeredArguments[argumentsGiven] ?? (last?.variadic === true ? last : undefined);
  return matching(ofArgument(next));
}
