/** `trilith label`: labels of nodes and pools. */
import { Command } from "commander";
import type { Labels, Node, Pool } from "../client/types.ts";
import type { CliContext } from "./context.ts";
import { type LabelChange, parseLabelChange } from "./labels.ts";
import { idArgument, printDone, type Session, withSession } from "./session.ts";
import { shownLabels } from "./tables.ts";

/** Labels as the text that scripts match: `{"rack": "1", "zone": "a"}`. */
export function labelsAsText(labels: Labels | null | undefined): string {
  const shown = shownLabels(labels).map(
    ([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`,
  );
  return `{${shown.join(", ")}}`;
}

type Labelled = Node | Pool;

function labelCommand(
  context: CliContext,
  kind: "node" | "pool",
  change: (
    session: Session,
    id: string,
    change: LabelChange,
    overwrite: boolean,
  ) => Promise<Labelled>,
): Command {
  return new Command(kind)
    .description(`Sets a label of a ${kind} (key=value), or takes it off (key-).`)
    .addArgument(idArgument(kind))
    .argument("<label>", "key=value, or key- to take it off", parseLabelChange)
    .option("--overwrite", "also when the label has another value")
    .action(
      withSession<[string, LabelChange], { overwrite?: boolean }>(
        context,
        async (session, [id, label], options) => {
          const changed = await change(session, id, label, options.overwrite === true);
          const title = kind === "node" ? "Node" : "Pool";
          printDone(
            session,
            changed,
            `${title} ${id} labelled successfully. ` +
              `Current labels: ${labelsAsText(changed.spec?.labels)}`,
          );
        },
      ),
    );
}

/** The `label` verb. */
export function labelVerb(context: CliContext): Command {
  return new Command("label")
    .description("Sets and takes off labels.")
    .addCommand(
      labelCommand(context, "node", ({ client }, id, { key, value }, overwrite) =>
        value === null ? client.unlabelNode(id, key) : client.labelNode(id, key, value, overwrite),
      ),
    )
    .addCommand(
      labelCommand(context, "pool", ({ client }, id, { key, value }, overwrite) =>
        value === null ? client.unlabelPool(id, key) : client.labelPool(id, key, value, overwrite),
      ),
    );
}
