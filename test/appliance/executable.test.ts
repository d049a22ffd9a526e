import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { errorCodes, facesOf } from "../../src/errors.ts";
import { executablePath, projectRoot, runCommand } from "../support/executable.ts";
import { canChangeRoot, runInRoot } from "../support/other-root.ts";
import { tempFolders } from "../support/temp-folder.ts";

const folder = tempFolders();
const trilith = (...args: string[]) => runCommand([executablePath(), ...args]);
const { version } = JSON.parse(readFileSync(join(projectRoot, "package.json"), "utf8")) as {
  version: string;
};

describe("the executable", () => {
  test("says its version, commit and Bun, for people and for programs", () => {
    const text = trilith("version");
    expect(text.status).toBe(0);
    expect(text.stdout).toMatch(
      /^trilith \d+\.\d+\.\d+ \(([0-9a-f]{12}(-dirty)?|unknown), Bun [\d.]+\)\n$/,
    );
    expect(trilith("--version").stdout).toBe(text.stdout);
    const json = JSON.parse(trilith("version", "--json").stdout);
    expect(Object.keys(json)).toEqual(["version", "commit", "bun"]);
    expect(json.version).toBe(version);
  });

  test("helps: every verb has a line, every exit status its meaning", () => {
    const help = trilith("--help");
    expect(help.status).toBe(0);
    expect(help.stderr).toBe("");
    for (const code of errorCodes) {
      const line = help.stdout.split("\n").find((each) => new RegExp(`\\b${code}\\b`).test(each));
      expect(line?.trim().split(/\s/)[0]).toBe(String(facesOf(code).exit));
    }
    const verbs = [...help.stdout.matchAll(/^ {2}([a-z][a-z-]*)(?: \[\w+\])? {2,}\S/gm)].map(
      (m) => m[1]!,
    );
    expect(verbs).toContain("version");
    for (const verb of verbs.filter((each) => each !== "help")) {
      const own = trilith("help", verb);
      expect(`${verb} ${own.status}`).toBe(`${verb} 0`);
      expect(own.stdout).toContain("Usage: trilith");
    }
  });

  const wrong: string[][] = [
    [],
    ["nosuch"],
    ["version", "--nosuch"],
    ["version", "surplus"],
    ["--nosuch"],
    ["help", "nosuch"],
  ];
  for (const args of wrong) {
    test(`refuses \`trilith ${args.join(" ")}\` with status 2 and says how it is meant`, () => {
      const result = trilith(...args);
      expect(result.status).toBe(2);
      expect(result.stdout).toBe("");
      expect(result.stderr).toMatch(/--help|Usage: trilith/);
      expect(result.stderr).not.toContain("    at "); // no stack: nothing is broken
    });
  }

  test("takes nothing from the directory it is called in", () => {
    const cwd = folder();
    writeFileSync(join(cwd, ".env"), "BUN_OPTIONS=--version\nTRILITH_FROM_DOTENV=1\n");
    writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    writeFileSync(join(cwd, "evil.ts"), 'console.log("loaded");\n');
    writeFileSync(join(cwd, "package.json"), "not json");
    writeFileSync(join(cwd, "tsconfig.json"), "not json");
    const result = runCommand([executablePath(), "version"], { cwd });
    expect(result.status).toBe(0);
    expect(result.stdout).toStartWith("trilith ");
  });

  test("does not mind a reader that goes away", () => {
    const result = runCommand(["sh", "-c", `"${executablePath()}" --help | head -c 1`]);
    expect(result.stdout).toBe("U");
    expect(result.stderr).toBe("");
  });

  test("is known as kubectl-mayastor when it is called so", () => {
    const link = join(folder(), "kubectl-mayastor");
    symlinkSync(executablePath(), link);
    expect(runCommand([link, "--help"]).stdout).toStartWith("Usage: kubectl-mayastor ");
  });

  test("needs nothing of the machine but the C library", () => {
    const needed = runCommand(["ldd", executablePath()]).stdout;
    const names = [...needed.matchAll(/^\s*(?:\S*\/)?([^\s/]+?)\.so/gm)].map((match) => match[1]!);
    for (const name of names) {
      expect(["linux-vdso", "libc", "libm", "libdl", "libpthread", "ld-linux-x86-64"]).toContain(
        name,
      );
    }
    expect(names).toContain("libc");
  });

  test.skipIf(!canChangeRoot)(
    "runs where there is no Node, no Bun and no liburing, and opens its libraries",
    () => {
      const root = folder();
      for (const name of ["proc", "dev", "tmp", "usr/bin", "disks"]) {
        mkdirSync(join(root, name), { recursive: true });
      }
      const libraries = runCommand(["ldd", executablePath()]).stdout.matchAll(/(\/\S+) \(0x/g);
      for (const [, path] of libraries) {
        mkdirSync(join(root, dirname(path!)), { recursive: true });
        copyFileSync(path!, join(root, path!));
      }
      copyFileSync(executablePath(), join(root, "usr/bin/trilith"));
      const inside = (...args: string[]) => runInRoot(root, "/usr/bin/trilith", ...args);
      const plain = inside("version");
      expect(plain.stderr).toBe("");
      expect(plain.stdout).toBe(trilith("version").stdout);
      // A ring, its memory and both libraries at work.
      const load = inside("bench", "malloc:///m?size_mb=16", "--runtime", "100ms", "--json");
      expect(load.stderr).toBe("");
      expect(JSON.parse(load.stdout).reads).toBeGreaterThan(0);
    },
  );
});
