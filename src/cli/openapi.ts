/** `trilith openapi`: prints the OpenAPI document of the HTTP API; no server is needed. */
import { Command, Option } from "commander";
import { openApiDocument } from "../api/document.ts";
import type { CliContext } from "./context.ts";

/** The `openapi` verb. */
export function openapiCommand(context: CliContext): Command {
  return new Command("openapi")
    .description(
      "Prints the OpenAPI document of the HTTP API (what a node serves at /openapi.json).",
    )
    .addOption(
      new Option("-o, --output <format>", "how to print it")
        .choices(["json", "yaml"])
        .default("json"),
    )
    .action((options: { readonly output: "json" | "yaml" }) => {
      const document = openApiDocument();
      context.print(
        options.output === "json"
          ? JSON.stringify(document, null, 2)
          : Bun.YAML.stringify(document, null, 2),
      );
    });
}
