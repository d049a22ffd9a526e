/** Arguments and options that several verbs read in the same way. */
import { InvalidArgumentError } from "commander";

/** A whole number between two bounds, for commander. */
export function countArgument(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`"${text}" is no whole number from ${least} to ${most}.`);
  };
}
