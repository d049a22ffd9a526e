/** `trilith get`: shows resources, as tables or as the API's objects. */
import { Command } from "commander";
import type { CliContext } from "./context.ts";
import { addEvents, addSettings, addUpgradeStatus, addWarnings } from "./get/cluster.ts";
import { addBlockDevices, addCordonAndDrain, addNodes } from "./get/nodes.ts";
import { addPools } from "./get/pools.ts";
import { addScrubs } from "./get/scrubs.ts";
import { addSnapshots } from "./get/snapshots.ts";
import { addVolumes } from "./get/volumes.ts";

/** The `get` verb. */
export function getCommand(context: CliContext): Command {
  const get = new Command("get").description("Shows resources of the cluster.");
  for (const add of [
    addVolumes,
    addScrubs,
    addSnapshots,
    addPools,
    addNodes,
    addBlockDevices,
    addCordonAndDrain,
    addEvents,
    addWarnings,
    addSettings,
    addUpgradeStatus,
  ]) {
    add(get, context);
  }
  return get;
}
