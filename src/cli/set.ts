/** `trilith set`: changes a property of a resource, or a setting of the cluster. */
import { Argument, Command } from "commander";
import { TrilithError } from "../errors.ts";
import { settingChange } from "./cluster-settings.ts";
import type { CliContext } from "./context.ts";
import { parseDuration } from "./output/size.ts";
import { idArgument, printDone, withSession } from "./session.ts";

const MAX_SNAPSHOTS_MAX = 0x7fff_ffff;

/** Milliseconds of a duration; `InvalidArgument` when it is none. */
function waitOf(text: string): number {
  const ms = parseDuration(text);
  if (ms !== undefined) return ms;
  throw new TrilithError(
    "InvalidArgument",
    `faulted-child-wait cannot be "${text}"`,
    "give a duration such as 30m, or default for the cluster's setting",
  );
}

/** The `set` verb. */
export function setCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description("Changes a property of a volume.")
    .addArgument(idArgument("volume"))
    .addArgument(
      new Argument("<property>", "which one").choices([
        "max-snapshots",
        "faulted-child-wait",
        "encryption",
      ]),
    )
    .argument("<value>", "e.g. 10; of faulted-child-wait a duration, or default")
    .action(
      withSession<[string, string, string], object>(
        context,
        async (session, [id, property, value]) => {
          if (property === "encryption") {
            throw new TrilithError(
              "Unimplemented",
              "whether a volume lies on encrypted pools cannot be changed",
              "make a volume on pools of encrypted disks (dm-crypt) and move the data",
            );
          }
          if (property === "faulted-child-wait") {
            const wait = value === "default" ? null : waitOf(value);
            const changed = await session.client.setFaultedChildWait(id, wait);
            printDone(
              session,
              changed,
              `Volume ${id} property faulted_child_wait set successfully`,
            );
            return;
          }
          const count = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
          if (!(count <= MAX_SNAPSHOTS_MAX)) {
            throw new TrilithError(
              "InvalidArgument",
              `max-snapshots cannot be "${value}"`,
              `give a whole number from 0 to ${MAX_SNAPSHOTS_MAX}`,
            );
          }
          const volume = await session.client.setMaxSnapshots(id, count);
          printDone(session, volume, `Volume ${id} property max_snapshots set successfully`);
        },
      ),
    );
  const setting = new Command("setting")
    .description("Changes a setting of the cluster (trilith get settings lists them).")
    .argument("<name>", "e.g. node-deadline")
    .argument("<value>", "number, duration, true or false; default for the default")
    .action(
      withSession<[string, string], object>(context, async (session, [name, value]) => {
        const { client } = session;
        const change = settingChange(await client.settings(), name, value);
        printDone(session, await client.changeSettings(change), `Setting ${name} set successfully`);
      }),
    );
  return new Command("set")
    .description("Changes properties of resources, and settings.")
    .addCommand(volume)
    .addCommand(setting);
}
