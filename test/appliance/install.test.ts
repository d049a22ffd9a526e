import { beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { executablePath, projectRoot, runCommand } from "../support/executable.ts";
import { tempFolders } from "../support/temp-folder.ts";

const folder = tempFolders();
const script = join(projectRoot, "install.sh");

/** Every file below a folder, relative to it. */
function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
    .sort();
}

function install(destination: string, ...args: string[]) {
  return runCommand(["sh", script, ...args], { env: { DESTDIR: destination } });
}

/** A script that passes for an executable of the given version; its other verbs do nothing. */
function fakeExecutable(path: string, version: string): string {
  writeFileSync(
    path,
    `#!/bin/sh\n[ "$1" = version ] && echo "trilith ${version}"\nexit ${version === "broken" ? 1 : 0}\n`,
  );
  chmodSync(path, 0o755);
  return path;
}

describe("install.sh", () => {
  let installed: string[] = [];
  beforeAll(() => {
    const listed = runCommand([executablePath(), "system-files"]).stdout.trim().split("\n");
    installed = ["/usr/bin/trilith", ...listed].sort();
  });

  test("has nothing to be said against by shellcheck", () => {
    const result = runCommand(["shellcheck", "--shell=sh", "--severity=style", script]);
    expect(result.stdout).toBe("");
    expect(result.status).toBe(0);
  });

  test("installs the executable, its units, settings and directories, and nothing else", () => {
    const root = folder();
    const result = install(root, executablePath());
    expect(result.stderr).toBe("");
    expect(result.status).toBe(0);
    expect(result.stdout).toContain(`below ${root}`);
    expect(filesBelow(root)).toEqual(installed);
    expect(statSync(join(root, "usr/bin/trilith")).mode & 0o7777).toBe(0o755);
    expect(statSync(join(root, "etc/trilith")).mode & 0o7777).toBe(0o755);
    expect(statSync(join(root, "var/lib/trilith")).mode & 0o7777).toBe(0o750);
    for (const path of installed.slice(1)) {
      expect(statSync(join(root, path)).mode & 0o7777).toBe(path.includes("/bin/") ? 0o755 : 0o644);
    }
    const same = readFileSync(join(root, "usr/bin/trilith")).equals(readFileSync(executablePath()));
    expect(same).toBe(true);
  });

  test("installs the units that are in the sources", () => {
    const root = folder();
    install(root, executablePath());
    for (const name of [
      "trilith.service",
      "trilith-engine.service",
      "trilith-host.service",
      "trilith-csi.service",
    ]) {
      const unit = readFileSync(join(root, "usr/lib/systemd/system", name), "utf8");
      expect(unit).toBe(readFileSync(join(projectRoot, "systemd", name), "utf8"));
    }
  });

  test("upgrades in place by a rename, and leaves what is not its own", () => {
    const root = folder();
    mkdirSync(join(root, "usr/bin"), { recursive: true });
    const target = fakeExecutable(join(root, "usr/bin/trilith"), "0.0.1");
    const before = lstatSync(target).ino;
    mkdirSync(join(root, "etc/trilith"), { recursive: true });
    writeFileSync(join(root, "etc/trilith/engine.env"), "TRILITH_REACTORS=2\n");
    mkdirSync(join(root, "var/lib/trilith"), { recursive: true });
    writeFileSync(join(root, "var/lib/trilith/pool"), "data");
    const result = install(root, executablePath());
    expect(result.status).toBe(0);
    expect(result.stdout).toMatch(/^trilith: upgraded trilith 0\.0\.1 to trilith \d/);
    expect(lstatSync(target).ino).not.toBe(before);
    const kept = ["/etc/trilith/engine.env", "/var/lib/trilith/pool"];
    expect(filesBelow(root)).toEqual([...installed, ...kept].sort());
  });

  test("can be run again, and replaces one that is broken", () => {
    const root = folder();
    expect(install(root, executablePath()).status).toBe(0);
    expect(install(root, executablePath()).status).toBe(0);
    fakeExecutable(join(root, "usr/bin/trilith"), "broken");
    const result = install(root, executablePath());
    expect(result.status).toBe(0);
    expect(filesBelow(root)).toEqual(installed);
  });

  test("an executable that runs goes on running while it is replaced", async () => {
    const root = folder();
    install(root, executablePath());
    const target = join(root, "usr/bin/trilith");
    const running = Bun.spawn(
      [target, "bench", "malloc:///m?size_mb=16", "--runtime", "1h", "--rate", "10"],
      { stdout: "ignore", stderr: "ignore" },
    );
    try {
      expect(install(root, executablePath()).status).toBe(0);
      expect(running.exitCode).toBeNull();
      expect(runCommand([target, "version"]).status).toBe(0);
    } finally {
      running.kill("SIGKILL");
      await running.exited;
    }
  });

  test("--uninstall removes what was installed and leaves data and settings", () => {
    const root = folder();
    install(root, executablePath());
    writeFileSync(join(root, "etc/trilith/engine.env"), "TRILITH_REACTORS=2\n");
    writeFileSync(join(root, "var/lib/trilith/pool"), "data");
    const result = install(root, "--uninstall");
    expect(result.status).toBe(0);
    expect(filesBelow(root)).toEqual(["/etc/trilith/engine.env", "/var/lib/trilith/pool"]);
    expect(install(root, "--uninstall").status).toBe(0);
  });

  test("takes the executable that lies beside it", () => {
    for (const place of ["trilith", "dist/trilith"]) {
      const download = folder();
      const root = folder();
      copyFileSync(script, join(download, "install.sh"));
      mkdirSync(dirname(join(download, place)), { recursive: true });
      fakeExecutable(join(download, place), "7.7.7");
      const result = runCommand(["sh", "install.sh"], { cwd: download, env: { DESTDIR: root } });
      expect(result.status).toBe(0);
      expect(result.stdout).toContain("installed trilith 7.7.7");
    }
  });

  test("arrives through a pipe too, with an executable given or else an explanation", () => {
    const stdin = readFileSync(script, "utf8");
    const root = folder();
    const cwd = folder();
    copyFileSync(executablePath(), join(cwd, "trilith"));
    const env = { DESTDIR: root };
    const without = runCommand(["sh"], { cwd: folder(), env, stdin });
    expect(without.status).toBe(1);
    expect(without.stderr).toContain("there is no executable to install");
    expect(without.stderr).toContain("sh -s -- ./trilith");
    expect(filesBelow(root)).toEqual([]);
    const given = runCommand(["sh", "-s", "--", "./trilith"], { cwd, env, stdin });
    expect(given.stderr).toBe("");
    expect(filesBelow(root)).toEqual(installed);
  });

  test("half of it, from a download that broke off, does nothing", () => {
    const text = readFileSync(script, "utf8");
    const root = folder();
    for (const share of [0.3, 0.6, 0.9, 0.99]) {
      const stdin = text.slice(0, Math.floor(text.length * share));
      const args = ["sh", "-s", "--", executablePath()];
      runCommand(args, { env: { DESTDIR: root }, stdin });
      expect(filesBelow(root)).toEqual([]);
    }
  });

  describe("refuses, with what is wrong, and changes nothing:", () => {
    const cases: [name: string, args: (cwd: string) => string[], says: RegExp][] = [
      ["an unknown option", () => ["--nosuch"], /unknown option --nosuch\n.*--help/],
      ["two executables", () => ["a", "b"], /not a and b/],
      ["an executable with --uninstall", () => ["--uninstall", "a"], /takes no executable/],
      ["a file that is not there", () => ["/no/such/file"], /\/no\/such\/file does not exist/],
      [
        "a file that is no program",
        (cwd) => {
          writeFileSync(join(cwd, "plain"), "text");
          return [join(cwd, "plain")];
        },
        /not executable\n {2}chmod \+x/,
      ],
      ["another program", () => ["/bin/true"], /\/bin\/true is not Trilith/],
      [
        "one that does not run",
        (cwd) => [fakeExecutable(join(cwd, "fake"), "broken")],
        /does not run on this machine/,
      ],
    ];
    for (const [name, args, says] of cases) {
      test(name, () => {
        const root = folder();
        const result = install(root, ...args(folder()));
        expect(result.status).toBe(1);
        expect(result.stderr).toMatch(says);
        expect(filesBelow(root)).toEqual([]);
      });
    }

    test.skipIf(process.getuid?.() !== 0)(
      "a user who is not root, unless it is for an image",
      () => {
        const root = folder();
        chmodSync(root, 0o777);
        const place = folder();
        chmodSync(place, 0o755);
        const copy = join(place, "trilith");
        copyFileSync(executablePath(), copy);
        copyFileSync(script, join(place, "install.sh"));
        const asNobody = (destination: string) =>
          runCommand(
            [
              "setpriv",
              "--reuid=65534",
              "--regid=65534",
              "--clear-groups",
              "sh",
              join(place, "install.sh"),
              copy,
            ],
            {
              cwd: "/",
              env: { DESTDIR: destination },
            },
          );
        const refused = asNobody("");
        expect(refused.status).toBe(1);
        expect(refused.stderr).toContain("must be run as root");
        expect(existsSync("/usr/bin/trilith")).toBe(false);
        expect(asNobody(root).status).toBe(0);
        expect(filesBelow(root)).toEqual(installed);
      },
    );
  });

  test("--help tells every option and touches nothing", () => {
    const root = folder();
    const result = install(root, "--help");
    expect(result.status).toBe(0);
    for (const word of ["--no-start", "--uninstall", "--help", "DESTDIR"]) {
      expect(result.stdout).toContain(word);
    }
    expect(filesBelow(root)).toEqual([]);
  });
});
