/** Labels as they are given on the command line: `key=value`, `key-`, and selectors. */
import { InvalidArgumentError } from "commander";
import type { Labels } from "../client/types.ts";

/** Longest key, key's prefix and value (mayastor.md 2). */
const LABEL_LENGTH_MAX = 63;

const PART = /^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/;

function checkKey(key: string): void {
  const parts = key.split("/");
  if (parts.length > 2) throw new InvalidArgumentError(`the key "${key}" has more than one "/".`);
  for (const part of parts) {
    if (part.length > LABEL_LENGTH_MAX) {
      throw new InvalidArgumentError(`"${part}" is longer than ${LABEL_LENGTH_MAX} characters.`);
    }
    if (!PART.test(part)) {
      throw new InvalidArgumentError(
        `the key "${key}" may hold letters, digits, "-", "_" and ".", ` +
          "and begins and ends with a letter or digit.",
      );
    }
  }
}

function checkValue(value: string): void {
  if (value.length > LABEL_LENGTH_MAX) {
    throw new InvalidArgumentError(`"${value}" is longer than ${LABEL_LENGTH_MAX} characters.`);
  }
  if (value !== "" && !PART.test(value)) {
    throw new InvalidArgumentError(
      `the value "${value}" may hold letters, digits, "-", "_" and ".", ` +
        "and begins and ends with a letter or digit.",
    );
  }
}

/** A label to be set, or, without a value, to be taken off. */
export interface LabelChange {
  readonly key: string;
  readonly value: string | null;
}

/** `key=value` or `key-`, for commander. */
export function parseLabelChange(text: string): LabelChange {
  const equals = text.indexOf("=");
  if (equals < 0) {
    if (!text.endsWith("-")) {
      throw new InvalidArgumentError(`"${text}" is neither key=value nor key- (to remove it).`);
    }
    const key = text.slice(0, -1);
    checkKey(key);
    return { key, value: null };
  }
  const [key, value] = [text.slice(0, equals), text.slice(equals + 1)];
  checkKey(key);
  if (value === "") throw new InvalidArgumentError(`"${text}" has no value.`);
  checkValue(value);
  return { key, value };
}

/** `a=b,c=d` as labels; for repeated options the former ones are kept. For commander. */
export function collectLabels(text: string, former: Labels = {}): Labels {
  const labels: Record<string, string> = { ...former };
  for (const part of text.split(",")) {
    const equals = part.indexOf("=");
    const [key, value] = equals < 0 ? [part, ""] : [part.slice(0, equals), part.slice(equals + 1)];
    checkKey(key);
    checkValue(value);
    labels[key] = value;
  }
  return labels;
}

interface Requirement {
  readonly key: string;
  /** Null: any value will do. */
  readonly value: string | null;
  /** It must not be so. */
  readonly not: boolean;
}

/** `a=b,c!=d,e,!f`, for commander. */
export function parseSelector(text: string): readonly Requirement[] {
  return text.split(",").map((part) => {
    const match = /^(!?)([^=!]+)(?:(!=|==?)(.*))?$/.exec(part.trim());
    if (match === null || (match[1] === "!" && match[3] !== undefined)) {
      throw new InvalidArgumentError(`"${part}" is no selector; write it like key=value.`);
    }
    const [, without, key, operator, value] = match;
    checkKey(key!.trim());
    if (operator !== undefined) checkValue(value!.trim());
    return {
      key: key!.trim(),
      value: operator === undefined ? null : value!.trim(),
      not: without === "!" || operator === "!=",
    };
  });
}

/** The labels fulfil all requirements. */
export function matches(selector: readonly Requirement[], labels: Labels): boolean {
  return selector.every(({ key, value, not }) => {
    const is = Object.hasOwn(labels, key) && (value === null || labels[key] === value);
    return is !== not;
  });
}
