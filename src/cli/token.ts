/** `trilith token`: secrets to join with, or to use the HTTP API with. */
import { Command, Option } from "commander";
import type { CliContext } from "./context.ts";
import { durationArgument } from "./output/size.ts";
import { printObjects, withSession } from "./session.ts";

interface CreateOptions {
  readonly valid: number;
  readonly kind: "join" | "api";
  readonly note: string;
}

interface NewToken {
  readonly id: string;
  readonly token: string;
  readonly expiresAt: string;
}

/** The `token` verb. */
export function tokenCommand(context: CliContext): Command {
  const create = new Command("create")
    .description(
      "Makes a token and prints it, once: only a digest of it is stored. A token for joining lets\n" +
        "one node join, with `trilith join <address> --token <token>`.",
    )
    .addOption(
      new Option("--valid <time>", "how long it can be used, e.g. 30m or 1h")
        .argParser(durationArgument)
        .default(3_600_000, "1h"),
    )
    .addOption(
      new Option("--kind <kind>", "what it is for").choices(["join", "api"]).default("join"),
    )
    .option("--note <text>", "what it was made for, for people", "")
    .action(
      withSession<[], CreateOptions>(context, async (session, _none, options) => {
        const made = await session.client.call<NewToken>("POST", "/cluster/tokens", {
          body: {
            kind: options.kind,
            validSeconds: Math.ceil(options.valid / 1000),
            note: options.note,
          },
        });
        if (printObjects(session, made)) return;
        // The token alone on standard output, so that a script can take it.
        context.printError(`valid until ${made.expiresAt}`);
        context.print(made.token);
      }),
    );
  return new Command("token").description("Makes tokens.").addCommand(create);
}
