/** `trilith get pool(s)`. */
import type { Command } from "commander";
import type { RestClient } from "../../client/client.ts";
import type { Pool } from "../../client/types.ts";
import type { CliContext } from "../context.ts";
import { matches, parseSelector } from "../labels.ts";
import { idArgument, printTable, withSession } from "../session.ts";
import { labelsText, poolHeadings, poolRow } from "../tables.ts";

interface PoolFilter {
  readonly node?: string;
  readonly volume?: string;
  readonly selector?: ReturnType<typeof parseSelector>;
  readonly showLabels?: boolean;
}

async function poolsOf(client: RestClient, filter: PoolFilter): Promise<Pool[]> {
  const { node, volume, selector } = filter;
  const listed =
    volume === undefined && node !== undefined
      ? await client.nodePools(node)
      : await client.pools(volume);
  return listed.filter(
    (pool) =>
      (node === undefined || (pool.spec?.node ?? pool.state?.node) === node) &&
      (selector === undefined || matches(selector, pool.spec?.labels ?? {})),
  );
}

function headings(showLabels: boolean | undefined): string[] {
  return showLabels === true ? [...poolHeadings, "LABELS"] : poolHeadings;
}

function row(pool: Pool, showLabels: boolean | undefined) {
  return showLabels === true ? [...poolRow(pool), labelsText(pool.spec?.labels)] : poolRow(pool);
}

export function addPools(get: Command, context: CliContext): void {
  get
    .command("pools")
    .description("Lists pools.")
    .option("--node <id>", "only pools of this node")
    .option("--volume <id>", "only pools that hold a replica of this volume")
    .option("-l, --selector <labels>", "only pools with these labels, e.g. a=b,c", parseSelector)
    .option("--show-labels", "with a column for the labels")
    .action(
      withSession<[], PoolFilter>(context, async (session, _args, options) => {
        const pools = await poolsOf(session.client, options);
        printTable(session, pools, headings(options.showLabels), pools, (pool) => [
          row(pool, options.showLabels),
        ]);
      }),
    );
  get
    .command("pool")
    .description("Shows one pool.")
    .addArgument(idArgument("pool"))
    .option("--show-labels", "with a column for the labels")
    .action(
      withSession<[string], PoolFilter>(context, async (session, [id], { showLabels }) => {
        const pool = await session.client.pool(id);
        printTable(session, pool, headings(showLabels), [pool], (one) => [row(one, showLabels)]);
      }),
    );
}
