/** Runs one command line: finds the verb, loads it, and turns its outcome into an exit status. */
import { Command, CommanderError } from "commander";
import { type ErrorCode, errorCodes, facesOf, TrilithError } from "../errors.ts";
import { versionLine } from "../version.ts";
import type { CliContext } from "./context.ts";
import { addGlobalOptions } from "./session.ts";
import { verbs as allVerbs, type Verb } from "./verbs.ts";

/** The exit statuses and what they mean, from the one list of errors. */
export function exitStatusText(): string {
  const byStatus = new Map<number, string[]>([[0, ["done"]]]);
  for (const code of errorCodes) {
    const { exit } = facesOf(code);
    byStatus.set(exit, [...(byStatus.get(exit) ?? []), code]);
  }
  const lines = [...byStatus]
    .sort(([a], [b]) => a - b)
    .map(([status, codes]) => `  ${String(status).padStart(2)}  ${codes.join(", ")}`);
  return `Exit status:\n${lines.join("\n")}`;
}

/** Options that may stand before the verb and take a value (`session.ts`). */
const OPTIONS_WITH_VALUE =
  /^(-[ortnkj]|--(output|rest|timeout|token|ca|namespace|kube-config-path|jaeger))$/;

/** The verb that `args` ask for: the first word, or the one after `help`. */
function namedVerb(args: readonly string[], verbs: readonly Verb[]): Verb | undefined {
  const words = args.filter(
    (arg, index) => !arg.startsWith("-") && !OPTIONS_WITH_VALUE.test(args[index - 1] ?? ""),
  );
  const word = words[0] === "help" ? words[1] : words[0];
  return verbs.find((verb) => verb.name === word);
}

/** Has commander throw instead of ending the process, and write where the context says. */
function adopt(command: Command, path: string, context: CliContext): void {
  command.configureHelp({ showGlobalOptions: true });
  // Lines are broken where the terminal ends, not where the source does; lists keep theirs.
  command.description(command.description().replace(/(\S)\n(?=\S)/g, "$1 "));
  command.exitOverride().configureOutput({
    writeOut: (text) => context.print(text.trimEnd()),
    writeErr: (text) => context.printError(text.trimEnd()),
  });
  command.showHelpAfterError(`  see \`${path} --help\``);
  for (const child of command.commands) adopt(child, `${path} ${child.name()}`, context);
}

/** Says on standard error what went wrong and what to do; returns the exit status. */
export function reportError(error: unknown, context: CliContext): number {
  if (error instanceof CommanderError) {
    // Commander has written its message. Help and version end this way too, with status 0.
    return error.exitCode === 0 ? 0 : facesOf("InvalidArgument").exit;
  }
  if (error instanceof TrilithError) {
    context.printError(`error: ${error.message}`);
    if (error.remedy !== "") context.printError(`  ${error.remedy}`);
    return facesOf(error.code).exit;
  }
  const systemCode = systemErrorCode(error);
  if (systemCode !== undefined) {
    context.printError(`error: ${(error as Error).message}`);
    return facesOf(systemCode).exit;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  context.printError(`error: internal error: ${text}`);
  return facesOf("Internal").exit;
}

/** The error code of what the operating system refused (its message says what and why). */
function systemErrorCode(error: unknown): ErrorCode | undefined {
  const { code, syscall } = error as { code?: unknown; syscall?: unknown };
  if (!(error instanceof Error) || typeof syscall !== "string") return undefined;
  if (code === "ENOENT") return "NotFound";
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") return "PermissionDenied";
  if (code === "ENOSPC") return "NoSpace";
  return "DeviceIo";
}

/**
 * Runs `args` (without the program's name) and returns the exit status: 0, or that of the error's
 * code (`errors.ts`), 2 for a wrong command line. Errors are printed, never thrown.
 */
export async function runCli(
  calledAs: string,
  args: readonly string[],
  context: CliContext,
  verbs: readonly Verb[] = allVerbs,
): Promise<number> {
  const program = new Command(calledAs)
    .description("Replicated NVMe block storage in one executable.")
    .version(versionLine(), "-V, --version", "say which build this is")
    .helpOption("-h, --help", "show help")
    .addHelpText("after", () => `\n${exitStatusText()}`);
  const named = namedVerb(args, verbs);
  if (named === undefined || named.usesApi === true) addGlobalOptions(program);
  try {
    for (const verb of verbs) {
      // A verb that is not called stands in the help by its name and summary only.
      const command = verb === named ? (await verb.load())(context) : new Command(verb.name);
      program.addCommand(command.summary(verb.summary));
    }
    adopt(program, calledAs, context);
    await program.parseAsync([...args], { from: "user" });
    return context.exitStatus ?? 0;
  } catch (error) {
    return reportError(error, context);
  }
}
