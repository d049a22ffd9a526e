/** Runs csi-sanity against a driver, and makes its report tests of ours. */
import { csiSanity } from "../../images/csi-sanity.mjs";

/** What csi-sanity said of one of its tests. */
export interface SanityOutcome {
  readonly name: string;
  readonly state: "passed" | "failed" | "skipped" | "pending";
  /** What went wrong, of a test that failed. */
  readonly failure: string;
}

interface Spec {
  readonly ContainerHierarchyTexts: readonly string[] | null;
  readonly LeafNodeText: string;
  readonly LeafNodeType: string;
  readonly State: string;
  readonly Failure?: {
    readonly Message: string;
    readonly Location?: { FileName: string; LineNumber: number };
  };
  readonly CapturedGinkgoWriterOutput?: string;
}

const states: Readonly<Record<string, SanityOutcome["state"]>> = {
  passed: "passed",
  skipped: "skipped",
  pending: "pending",
};

/** The outcomes in a report of Ginkgo's (`--ginkgo.json-report`), of the tests that were chosen. */
export function outcomesOf(report: string): SanityOutcome[] {
  const suites = JSON.parse(report) as { readonly SpecReports: readonly Spec[] }[];
  return suites
    .flatMap(({ SpecReports }) => SpecReports)
    .filter(({ LeafNodeType }) => LeafNodeType === "It")
    .map((spec) => ({
      name: [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(" "),
      state: states[spec.State] ?? "failed",
      failure: [
        spec.Failure?.Message ?? "",
        spec.Failure?.Location === undefined
          ? ""
          : `${spec.Failure.Location.FileName}:${spec.Failure.Location.LineNumber}`,
        spec.CapturedGinkgoWriterOutput ?? "",
      ]
        .filter((text) => text !== "")
        .join("\n"),
    }));
}

export interface SanityOptions {
  readonly socket: string;
  /** Folder for its report and its mounts. */
  readonly folder: string;
  /** Of a StorageClass. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly volumeBytes: number;
  readonly expandBytes: number;
  /** Regular expression of tests that are left out. */
  readonly skip?: string;
  /** Regular expression of the tests that are run; absent: all. */
  readonly focus?: string;
}

/** Where a run of csi-sanity leaves its report, and finds the parameters of volumes. */
export function sanityFiles({ folder }: SanityOptions) {
  return { report: `${folder}/report.json`, parameters: `${folder}/parameters.yaml` };
}

/** The command line of a run. */
export function sanityCommand(program: string, options: SanityOptions): string[] {
  const { socket, folder, volumeBytes, expandBytes, skip, focus } = options;
  const { report, parameters } = sanityFiles(options);
  return [
    program,
    `--csi.endpoint=unix://${socket}`,
    `--csi.testvolumesize=${volumeBytes}`,
    `--csi.testvolumeexpandsize=${expandBytes}`,
    `--csi.testvolumeparameters=${parameters}`,
    `--csi.mountdir=${folder}/mount`,
    `--csi.stagingdir=${folder}/staging`,
    `--ginkgo.json-report=${report}`,
    ...(skip === undefined ? [] : [`--ginkgo.skip=${skip}`]),
    ...(focus === undefined ? [] : [`--ginkgo.focus=${focus}`]),
  ];
}

/** Runs csi-sanity to its end. Throws when it made no report. */
export async function runCsiSanity(options: SanityOptions): Promise<SanityOutcome[]> {
  const program = csiSanity();
  if (program === null)
    throw new Error("csi-sanity is not installed: node images/setup.mjs --test");
  const files = sanityFiles(options);
  await Bun.write(files.parameters, JSON.stringify(options.parameters));
  const command = sanityCommand(program, options);
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const file = Bun.file(files.report);
  if (!(await file.exists())) throw new Error(`csi-sanity made no report:\n${out}\n${err}`);
  return outcomesOf(await file.text());
}
