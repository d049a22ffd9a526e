/** `trilith doctor`: what this machine lacks, and the command that fixes it. Changes nothing. */
import { Command, Option } from "commander";
import { DATA_DIR_DEFAULT } from "../engine/settings.ts";
import { facesOf } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { diagnose, type Finding, nodePorts, type Role } from "./doctor/checks.ts";
import { gatherFacts } from "./doctor/gather.ts";
import type { Paint, Tone } from "./output/color.ts";
import { printObjects, withSession } from "./session.ts";

const tones: Readonly<Record<Finding["status"], Tone>> = {
  ok: "good",
  warning: "warn",
  missing: "bad",
};

/** The findings as lines, each with its remedy below. */
export function findingsText(findings: readonly Finding[], paint: Paint): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ check, status, message, remedy }) => {
    const first = `${paint(tones[status], status.padEnd(7))}  ${check.padEnd(width)}  ${message}`;
    return remedy === "" ? [first] : [first, `${" ".repeat(width + 11)}${paint("bold", remedy)}`];
  });
  const count = (status: Finding["status"]) =>
    findings.filter((finding) => finding.status === status).length;
  const [missing, warnings] = [count("missing"), count("warning")];
  const verdict =
    missing > 0
      ? `${missing} missing, ${warnings} to look at`
      : warnings > 0
        ? `all that is needed is there; ${warnings} to look at`
        : "all is well";
  return [...lines, "", verdict].join("\n");
}

/** The `doctor` verb. */
export function doctorCommand(context: CliContext): Command {
  return new Command("doctor")
    .description(
      "Looks at this machine: kernel, modules, io_uring, memory, ports, disks, clock, firewall,\n" +
        "data directory. Says what is missing and how to fix it; changes nothing. Needs no cluster.",
    )
    .addOption(
      new Option("--role <role>", "what the machine is to do: keep data, mount volumes, or both")
        .choices(["storage", "host", "both"])
        .default("both"),
    )
    .option("--data-dir <path>", `what trilith keeps (default: ${DATA_DIR_DEFAULT})`)
    .addHelpText("after", "\nExit status: 0 nothing that is needed is missing, 6 something is.")
    .action(
      withSession<[], { role: Role; dataDir?: string }>(
        context,
        async (session, _args, options) => {
          const data = options.dataDir ?? context.env?.TRILITH_DATA_DIR ?? DATA_DIR_DEFAULT;
          const ports = nodePorts.filter(({ fromOutside }) => fromOutside).map(({ port }) => port);
          const findings = diagnose(await gatherFacts(data, ports), options.role);
          const ok = findings.every(({ status }) => status !== "missing");
          if (!printObjects(session, { ok, findings })) {
            context.print(findingsText(findings, session.paint));
          }
          if (!ok) context.exitStatus = facesOf("FailedPrecondition").exit;
        },
      ),
    );
}
