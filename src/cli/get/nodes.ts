/** `trilith get node(s)`, their disks, cordons and drains. */
import type { Command } from "commander";
import type { Node } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import type { Cell } from "../output/table.ts";
import { idArgument, printTable, withSession } from "../session.ts";
import {
  allBlockDeviceHeadings,
  blockDeviceHeadings,
  blockDeviceRow,
  cordonHeadings,
  cordonLabels,
  cordonRow,
  drainHeadings,
  drainLabels,
  drainRow,
  labelsText,
  nodeHeadings,
  nodeRow,
  poolHeadings,
  poolRow,
  poolStatus,
} from "../tables.ts";

interface LabelsOption {
  readonly showLabels?: boolean;
}

function printNodes(
  session: Parameters<typeof printTable>[0],
  value: unknown,
  nodes: readonly Node[],
  { showLabels }: LabelsOption,
): void {
  const headings = showLabels === true ? [...nodeHeadings, "LABELS"] : nodeHeadings;
  printTable(session, value, headings, nodes, (node) => [
    showLabels === true ? [...nodeRow(node), labelsText(node.spec?.labels)] : nodeRow(node),
  ]);
}

export function addNodes(get: Command, context: CliContext): void {
  get
    .command("nodes")
    .description("Lists nodes.")
    .option("--show-labels", "with a column for the labels")
    .action(
      withSession<[], LabelsOption>(context, async (session, _args, options) => {
        const nodes = await session.client.nodes();
        printNodes(session, nodes, nodes, options);
      }),
    );
  get
    .command("node")
    .description("Shows one node.")
    .addArgument(idArgument("node"))
    .option("--show-labels", "with a column for the labels")
    .action(
      withSession<[string], LabelsOption>(context, async (session, [id], options) => {
        const node = await session.client.node(id);
        printNodes(session, node, [node], options);
      }),
    );
}

export function addBlockDevices(get: Command, context: CliContext): void {
  get
    .command("block-devices")
    .description("Lists disks of a node that could become pools.")
    .addArgument(idArgument("node"))
    .option("--all", "also those that are in use, with what lies on them")
    .action(
      withSession<[string], { all?: boolean }>(context, async (session, [id], options) => {
        const all = options.all === true;
        const devices = await session.client.blockDevices(id, all);
        const headings = all ? allBlockDeviceHeadings : blockDeviceHeadings;
        printTable(session, devices, headings, devices, (one) => [blockDeviceRow(one, all)]);
      }),
    );
}

/** Adds `<verb> nodes` and `<verb> node <id>` that list nodes of a kind. */
function addNodeListing(
  parent: Command,
  context: CliContext,
  what: string,
  headings: readonly string[],
  rowOf: (node: Node) => Cell[],
  chosen: (node: Node) => boolean,
): void {
  parent
    .command("nodes")
    .description(`Lists the nodes that are ${what}.`)
    .action(
      withSession<[], object>(context, async (session) => {
        const nodes = (await session.client.nodes()).filter(chosen);
        printTable(session, nodes, headings, nodes, (node) => [rowOf(node)]);
      }),
    );
  parent
    .command("node")
    .description(`Shows by which labels a node is ${what}.`)
    .addArgument(idArgument("node"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const node = await session.client.node(id);
        printTable(session, node, headings, [node], (one) => [rowOf(one)]);
      }),
    );
}

export function addCordonAndDrain(get: Command, context: CliContext): void {
  const cordon = get.command("cordon").description("Shows what is cordoned.");
  const isCordoned = (node: Node) => cordonLabels(node).length + drainLabels(node).length > 0;
  addNodeListing(cordon, context, "cordoned", cordonHeadings, cordonRow, isCordoned);
  cordon
    .command("pools")
    .description("Lists the pools that are cordoned.")
    .action(
      withSession<[], object>(context, async (session) => {
        const pools = (await session.client.pools()).filter((pool) => pool.spec?.cordoned === true);
        printTable(session, pools, poolHeadings, pools, (pool) => [poolRow(pool)]);
      }),
    );
  cordon
    .command("pool")
    .description("Shows a cordoned pool.")
    .addArgument(idArgument("pool"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const pool = await session.client.pool(id);
        if (pool.spec?.cordoned !== true) {
          throw new TrilithError(
            "FailedPrecondition",
            `pool ${id} is not cordoned (${poolStatus(pool.spec, pool.state)})`,
            `cordon it: trilith cordon pool ${id}`,
          );
        }
        printTable(session, pool, poolHeadings, [pool], (one) => [poolRow(one)]);
      }),
    );
  const drain = get.command("drain").description("Shows what is drained.");
  const isDrained = (node: Node) => drainLabels(node).length > 0;
  addNodeListing(drain, context, "drained", drainHeadings, drainRow, isDrained);
}
