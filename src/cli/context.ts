/** What a verb touches of the outside world, so that a test can stand in for it. */
export interface CliContext {
  /** Prints one or more lines to standard output. */
  readonly print: (text: string) => void;
  /** Prints one or more lines to standard error. */
  readonly printError: (text: string) => void;
  /** Exit status of a verb that did what it was asked and whose answer is not a plain "yes". */
  exitStatus?: number;
}

export const processContext: CliContext = {
  print: (text) => console.log(text),
  printError: (text) => console.error(text),
};

/** Prints a result: as JSON with `--json`, else as the text made for people. */
export function printResult(
  context: CliContext,
  options: { readonly json?: boolean },
  result: object,
  text: () => string,
): void {
  context.print(options.json === true ? JSON.stringify(result, null, 2) : text());
}
