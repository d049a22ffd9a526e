/** The options of whoever serves CSI: `trilith csi`, and a control process. */
import { Option } from "commander";
import { DRIVER_NAME_DEFAULT } from "../csi/names.ts";

export interface CsiControllerOptions {
  readonly driverName: string;
  readonly dataLocality: "none" | "preferred";
  readonly csiSocket?: string;
}

export function driverNameOption(): Option {
  return new Option("--driver-name <name>", "name that storage classes know the CSI driver by")
    .env("TRILITH_CSI_DRIVER")
    .default(DRIVER_NAME_DEFAULT);
}

export function dataLocalityOption(): Option {
  return new Option(
    "--data-locality <mode>",
    "a replica on the node of whoever uses a volume first, unless its class says otherwise",
  )
    .env("TRILITH_DATA_LOCALITY")
    .choices(["none", "preferred"])
    .default("none");
}

/** `where`: what holds when it is not given. */
export function csiSocketOption(where: string): Option {
  return new Option(
    "--csi-socket <path>",
    `where the CSI driver answers, for root alone (default: ${where})`,
  ).env("TRILITH_CSI_SOCKET");
}
