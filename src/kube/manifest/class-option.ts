/** StorageClasses as they are asked for on the command line. Pure. */
import { TrilithError } from "../../errors.ts";
import type { ClassOption } from "./options.ts";

const OBJECT_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
const BINDING = { Immediate: true, WaitForFirstConsumer: true } as const;
const RECLAIM = { Delete: true, Retain: true } as const;

function oneOf<T extends string>(known: Record<T, true>, key: string, value: string): T {
  if (Object.hasOwn(known, value)) return value as T;
  throw new TrilithError(
    "InvalidArgument",
    `${key} is "${value}"; it has to be ${Object.keys(known).join(" or ")}`,
  );
}

/** Whether `text` may name an object of Kubernetes. */
export function isObjectName(text: string): boolean {
  return OBJECT_NAME.test(text);
}

/**
 * The class of `name[:key=value,...]`, e.g. `fast:repl=3,thin=true,reclaimPolicy=Retain`. What is no
 * property of a StorageClass is a parameter of the driver. Mount options are separated by `+`.
 * Throws `InvalidArgument`.
 */
export function parseClassOption(text: string): ClassOption {
  const colon = text.indexOf(":");
  const name = colon < 0 ? text : text.slice(0, colon);
  if (!isObjectName(name)) {
    throw new TrilithError(
      "InvalidArgument",
      `"${name}" is no name of a StorageClass`,
      "give small letters, digits, - and ., such as fast:repl=3,thin=true",
    );
  }
  const parameters: Record<string, string> = { protocol: "nvmf" };
  let reclaimPolicy: ClassOption["reclaimPolicy"] = "Delete";
  let volumeBindingMode: ClassOption["volumeBindingMode"] = "Immediate";
  let mountOptions: readonly string[] = [];
  let isDefault = false;
  const parts = colon < 0 ? [] : text.slice(colon + 1).split(",");
  for (const part of parts) {
    const equals = part.indexOf("=");
    const key = part.slice(0, Math.max(0, equals)).trim();
    const value = part.slice(equals + 1).trim();
    if (key === "") {
      throw new TrilithError("InvalidArgument", `"${part}" in "${text}" is no key=value`);
    }
    switch (key) {
      case "reclaimPolicy":
        reclaimPolicy = oneOf(RECLAIM, key, value);
        break;
      case "volumeBindingMode":
        volumeBindingMode = oneOf(BINDING, key, value);
        break;
      case "mountOptions":
        mountOptions = value.split("+").filter((one) => one !== "");
        break;
      case "default":
        isDefault = oneOf({ true: true, false: true }, key, value) === "true";
        break;
      default:
        parameters[key] = value;
    }
  }
  // In one order, so that the same class is the same bytes however it was written.
  const sorted = Object.fromEntries(
    Object.entries(parameters).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
  );
  return { name, parameters: sorted, reclaimPolicy, volumeBindingMode, mountOptions, isDefault };
}
