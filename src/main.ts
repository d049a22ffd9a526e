/**
 * The executable's entry point: arguments to a verb, a verb's outcome to an exit status.
 * What a verb imports is loaded only when that verb is called (`cli/verbs.ts`).
 */
import { basename } from "node:path";
import { processContext } from "./cli/context.ts";
import { runCli } from "./cli/run.ts";

// As a kubectl plugin the executable is called by another name.
const calledAs = basename(process.argv0) === "kubectl-mayastor" ? "kubectl-mayastor" : "trilith";
process.exitCode = await runCli(calledAs, process.argv.slice(2), processContext);
