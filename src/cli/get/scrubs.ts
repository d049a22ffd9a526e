/** `trilith get scrubs` and what one has found. */
import type { Command } from "commander";
import type { CliContext } from "../context.ts";
import {
  findingHeadings,
  findingRows,
  scrubHeadings,
  scrubResult,
  scrubRow,
} from "../scrub-text.ts";
import { idArgument, printTable, withSession } from "../session.ts";

export function addScrubs(get: Command, context: CliContext): void {
  get
    .command("scrubs")
    .description("Lists the comparisons of volumes' replicas: how far, how they ended.")
    .action(
      withSession<[], object>(context, async (session) => {
        const scrubs = await session.client.scrubs();
        printTable(session, scrubs, scrubHeadings, scrubs, (one) => [scrubRow(one)]);
      }),
    );
  get
    .command("scrub")
    .description("Shows the scrub of one volume, and what was found.")
    .addArgument(idArgument("volume"))
    .action(
      withSession<[string], object>(context, async (session, [id]) => {
        const scrub = await session.client.scrub(id);
        printTable(session, scrub, scrubHeadings, [scrub], (one) => [scrubRow(one)]);
        if (session.output !== "none" || scrub.findings.length === 0) return;
        context.print("");
        printTable(session, scrub, findingHeadings, [scrub], findingRows);
        context.print(`\n${scrubResult(scrub)}`);
      }),
    );
}
