/** `trilith scale`, `trilith set`, `trilith resize`, `trilith expand`: change what is there. */
import { Command } from "commander";
import { countArgument } from "./arguments.ts";
import type { CliContext } from "./context.ts";
import { humanSize, sizeArgument } from "./output/size.ts";
import { idArgument, printDone, withSession } from "./session.ts";

/** The `scale` verb. */
export function scaleCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description("Changes the number of a volume's replicas, by one at a time.")
    .addArgument(idArgument("volume"))
    .argument("<replicas>", "number of replicas", countArgument(1, 255))
    .option("--victim <replica>", "replica that is to go when the number goes down")
    .action(
      withSession<[string, number], { victim?: string }>(
        context,
        async (session, [id, count], options) => {
          const volume = await session.client.setReplicaCount(id, count, options.victim);
          printDone(session, volume, `Volume ${id} scaled successfully 🚀`);
        },
      ),
    );
  return new Command("scale").description("Scales resources.").addCommand(volume);
}

/** The `resize` verb. */
export function resizeCommand(context: CliContext): Command {
  const volume = new Command("volume")
    .description("Grows a volume, also while hosts use it. It cannot be made smaller.")
    .addArgument(idArgument("volume"))
    .argument("<size>", "new size, e.g. 20GiB", sizeArgument)
    .action(
      withSession<[string, number], object>(context, async (session, [id, size]) => {
        const volume = await session.client.resizeVolume(id, size);
        printDone(session, volume, `Volume ${id} resized to ${humanSize(volume.spec.size)}`);
      }),
    );
  return new Command("resize").description("Resizes resources.").addCommand(volume);
}

/** The `expand` verb. */
export function expandCommand(context: CliContext): Command {
  const pool = new Command("pool")
    .description("Takes in what the disk of a pool has grown by.")
    .addArgument(idArgument("pool"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const pool = await session.client.expandPool(id);
        const size = pool.state ? ` to ${humanSize(pool.state.capacity)}` : "";
        printDone(session, pool, `Pool ${id} expanded${size}`);
      }),
    );
  return new Command("expand").description("Expands resources.").addCommand(pool);
}
