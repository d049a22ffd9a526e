/** `trilith cordon` and `trilith uncordon`: nothing new is placed on what is cordoned. */
import { Command } from "commander";
import type { CliContext } from "./context.ts";
import { idArgument, printDone, withSession } from "./session.ts";
import { cordonLabels, drainLabels } from "./tables.ts";

/** Options of Mayastor for parts of a cordon; ours always holds for all of it. */
function withParts(command: Command): Command {
  return command
    .option("--replicas", "for replicas (a cordon holds for everything)")
    .option("--snapshots", "for snapshots (a cordon holds for everything)")
    .option("--restores", "for restored volumes (a cordon holds for everything)")
    .option("--imports", "accepted for kubectl's sake");
}

/** The `cordon` verb. */
export function cordonCommand(context: CliContext): Command {
  const node = new Command("node")
    .description("Places nothing new on a node; what is there stays.")
    .addArgument(idArgument("node"))
    .argument("<label>", "reason of the cordon: any short text")
    .action(
      withSession<[string, string], object>(context, async (session, [id, label]) => {
        const node = await session.client.cordonNode(id, label);
        printDone(session, node, `Node ${id} cordoned successfully`);
      }),
    );
  const pool = withParts(
    new Command("pool")
      .description("Places nothing new on a pool; what is there stays.")
      .addArgument(idArgument("pool")),
  ).action(
    withSession<[string], object>(context, async (session, [id]) => {
      const pool = await session.client.cordonPool(id, true);
      printDone(session, pool, `Pool ${id} cordoned successfully`);
    }),
  );
  return new Command("cordon")
    .description("Keeps anything new off nodes and pools.")
    .addCommand(node)
    .addCommand(pool);
}

/** The `uncordon` verb. */
export function uncordonCommand(context: CliContext): Command {
  const node = new Command("node")
    .description("Takes a cordon off a node, or ends a drain.")
    .addArgument(idArgument("node"))
    .argument("<label>", "label that it was cordoned or drained with")
    .action(
      withSession<[string, string], object>(context, async (session, [id, label]) => {
        const node = await session.client.uncordonNode(id, label);
        const left = [...cordonLabels(node), ...drainLabels(node)];
        const list = left.map((one) => JSON.stringify(one)).join(", ");
        printDone(
          session,
          node,
          left.length === 0
            ? `Node ${id} successfully uncordoned`
            : `Cordon label successfully removed. Remaining cordon labels [${list}]`,
        );
      }),
    );
  const pool = withParts(
    new Command("pool").description("Takes a cordon off a pool.").addArgument(idArgument("pool")),
  ).action(
    withSession<[string], object>(context, async (session, [id]) => {
      const pool = await session.client.cordonPool(id, false);
      printDone(session, pool, `Pool ${id} successfully uncordoned`);
    }),
  );
  return new Command("uncordon")
    .description("Lets new things onto nodes and pools again.")
    .addCommand(node)
    .addCommand(pool);
}
