import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scripts, shells } from "../../../src/cli/completion/scripts.ts";
import { verbs } from "../../../src/cli/verbs.ts";
import { tempFolders } from "../../support/temp-folder.ts";
import { againstApi, nodes, pools, SNAPSHOT, snapshot, VOLUME, volumes } from "./fixtures.ts";

const run = againstApi();
const folder = tempFolders();

/** What is suggested for the last word of a line: words alone. */
async function suggested(line: string, answers = {}): Promise<string[]> {
  const ran = await run(["completion", "suggest", "--", ...line.split(" ")], answers);
  expect(ran.err).toBe("");
  expect(ran.status).toBe(0);
  return ran.out.split("\n").flatMap((one) => (one === "" ? [] : [one.split("\t")[0]!]));
}

describe("completion", () => {
  test("suggests every verb", async () => {
    expect(await suggested("")).toEqual(
      expect.arrayContaining(verbs.map(({ name }) => name)) as never,
    );
    expect(await suggested("unc")).toEqual(["uncordon"]);
  });

  const lines: [line: string, words: string[]][] = [
    ["get volume-s", ["volume-snapshots", "volume-snapshot-topology"]],
    ["get cordon p", ["pools", "pool"]],
    ["get volumes --sou", ["--source"]],
    ["get volumes --source ", ["none", "snapshot"]],
    ["get volumes --source=s", ["--source=snapshot"]],
    ["-o ", ["none", "json", "yaml"]],
    ["get nodes -o j", ["json"]],
    ["get volumes --source none --out", ["--output"]],
    ["scale volume x 3 ", []],
    ["set volume x ", ["max-snapshots", "faulted-child-wait", "encryption"]],
    ["apply -f ", [":files"]],
    ["create pool p ", [":files"]],
    ["create snap", []],
    ["create volume-s", ["volume-snapshot"]],
    ["completion ", ["bash", "zsh", "fish", "help"]],
    ["completion suggest", []],
  ];
  for (const [line, words] of lines) {
    test(`suggests after "${line}"`, async () => {
      const found = await suggested(line);
      expect(found).toEqual(words);
    });
  }

  test("suggests ids from the cluster, those that fit", async () => {
    const answers = {
      "GET /nodes": { body: nodes },
      "GET /pools": { body: pools },
      "GET /volumes": { body: volumes },
      "GET /volumes/snapshots": { body: { entries: [snapshot] } },
    };
    expect(await suggested("cordon node ", answers)).toEqual(["node-1", "node-2", "node-3"]);
    expect(await suggested("get volume 1", answers)).toEqual([VOLUME]);
    expect(await suggested("delete snapshot ", answers)).toEqual([SNAPSHOT]);
    expect(await suggested("move replica x --to-pool pool-2", answers)).toEqual(["pool-2"]);
    expect(await suggested("create pool p /dev/sdb --node ", answers)).toHaveLength(3);
  });

  test("suggests no ids when there is nobody to ask", async () => {
    const refused = await run(
      ["completion", "suggest", "--", "get", "node", "-r", "/none.sock", ""],
      {},
    );
    expect([refused.status, refused.out, refused.err]).toEqual([0, "", ""]);
  });

  for (const shell of shells) {
    test(`prints a script that ${shell} understands`, async () => {
      const ran = await run(`completion ${shell}`, {});
      expect(ran.out).toBe(scripts[shell]);
      const path = join(folder(), "script");
      writeFileSync(path, `${ran.out}\n`);
      const program = Bun.which(shell);
      if (program === null) {
        console.log(`${shell} is not installed: its script was not checked by it`);
        return;
      }
      const checked = spawnSync(program, ["-n", path], { encoding: "utf8" });
      expect([checked.status, checked.stderr]).toEqual([0, ""]);
    });
  }

  test("works in a bash", () => {
    const where = folder();
    const program = join(where, "trilith");
    const main = join(import.meta.dir, "../../../src/main.ts");
    writeFileSync(program, `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`);
    chmodSync(program, 0o755);
    const script = `
      source <(trilith completion bash)
      complete -p trilith kubectl-mayastor
      COMP_WORDS=(trilith get volume-re); COMP_CWORD=2
      _trilith
      printf '%s\\n' "\${COMPREPLY[@]}"
      COMP_WORDS=(trilith get volumes --source ''); COMP_CWORD=4
      _trilith
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const ran = spawnSync("bash", ["--norc", "-c", script], {
      encoding: "utf8",
      env: { ...process.env, PATH: `${where}:${process.env.PATH}` },
    });
    expect(ran.stderr).toBe("");
    expect(ran.stdout.trim().split("\n")).toEqual([
      "complete -F _trilith trilith",
      "complete -F _trilith kubectl-mayastor",
      "volume-replica-topologies",
      "volume-replica-topology",
      "none",
      "snapshot",
    ]);
  });
});
