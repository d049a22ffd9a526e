/**
 * Holds the shape of the code: who may import whom, and what may stand where. Each rule gives its
 * reason; a rule that stands in the way is to be changed here, with the reason, not worked around.
 */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const root = dirname(import.meta.dir);

/** A file beyond this is listed: is it still one idea? */
const LINES_LISTED = 600;
/** A file beyond this fails. */
const LINES_MAX = 1_000;

function textOf(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

/** Files that git knows or would take, relative to the root. */
function projectFiles(): string[] {
  const args = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const listed = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  if (listed.status !== 0) {
    // An unpacked archive without git: everything but what is installed or made.
    const all = new Bun.Glob("**/*").scanSync({ cwd: root, dot: true });
    const made = ["node_modules/", "dist/", "ffi/native/"];
    return [...all].filter((path) => !made.some((folder) => path.startsWith(folder))).sort();
  }
  const exists = (path: string) => path !== "" && Bun.file(join(root, path)).size > 0;
  return listed.stdout.split("\0").filter(exists).sort();
}

const files = projectFiles();
const sources = files.filter(
  (path) => /^(src|ffi)\/.*\.tsx?$/.test(path) && !path.endsWith(".d.ts"),
);
/** Made by `npm run generate` from interfaces that others define: named and sized as those are. */
const generated = /^src\/csi\/generated\//;
const typescript = files.filter((path) => /\.tsx?$/.test(path) && !generated.test(path));

/** Code without comments and string contents, so that words in them do not count. */
function codeOf(path: string): string {
  return textOf(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/(^|[^:"'`])\/\/.*$/gm, "$1")
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
}

interface Import {
  /** File it leads to, relative to the root, or the package's name. */
  readonly target: string;
  readonly typeOnly: boolean;
  /** `import()`: it happens when the code runs, not when the file is loaded. */
  readonly lazy: boolean;
}

/** What a file imports or re-exports. */
function importsOf(path: string): Import[] {
  const text = textOf(path).replace(/\/\*[\s\S]*?\*\//g, "");
  const found: Import[] = [];
  const add = (specifier: string, typeOnly: boolean, lazy: boolean) => {
    const target = specifier.startsWith(".")
      ? normalize(join(dirname(path), specifier))
      : specifier;
    found.push({ target, typeOnly, lazy });
  };
  const statement = /^(?:import|export)\s+(type\s)?([^;"']*?)from\s+"([^"]+)"/gm;
  for (const [, type, names, specifier] of text.matchAll(statement)) {
    const parts = names!
      .trim()
      .replace(/^\{|\}$/g, "")
      .split(",");
    const typeOnly =
      type !== undefined ||
      (names!.trim().startsWith("{") &&
        parts.every((part) => part.trim() === "" || part.trim().startsWith("type ")));
    add(specifier!, typeOnly, false);
  }
  for (const [, specifier] of text.matchAll(/^import\s+"([^"]+)"/gm)) add(specifier!, false, false);
  for (const [, specifier] of text.matchAll(/\bimport\(\s*"([^"]+)"/g))
    add(specifier!, false, true);
  return found;
}

const imports = new Map(typescript.map((path) => [path, importsOf(path)]));

interface Rule {
  /** Files the rule is about. */
  readonly from: RegExp;
  /** What they may import of the project, or must not. Packages are judged when `packages` is set. */
  readonly only?: RegExp;
  readonly never?: RegExp;
  readonly typesAllowed?: boolean;
  readonly why: string;
}

const importRules: Rule[] = [
  {
    from: /^src\/(errors|assert|names)\.ts$/,
    only: /^$/,
    why: "everything imports them, so they can import nothing",
  },
  {
    from: /^ffi\//,
    only: /^ffi\//,
    why: "the native edge knows C structs and nothing of the product",
  },
  {
    from: /^src\/nvme\//,
    only: /^src\/nvme\//,
    why: "the NVMe specifications as pure code: target, initiator and tests share it",
  },
  {
    from: /^src\/(?!engine\/|host\/|main\.ts)/,
    never: /^ffi\//,
    typesAllowed: true,
    why: "only the engine touches rings and memory; everything else asks the engine, and the agent of a host its kernel",
  },
  {
    from: /^src\/engine\//,
    never: /^src\/(control|api|csi|kube|cli|web)\//,
    why: "the engine does what it is told: it must be able to run, and serve, without any of them",
  },
  {
    from: /^src\/engine\/(bdev|pool|nexus|target|nbd)\//,
    never: /^src\/engine\/(rpc|shard)(\/|\.ts)/,
    why: "what serves I/O does not know who configures it",
  },
  {
    from: /^src\/engine\/bdev\//,
    never: /^src\/engine\/(pool|nexus|target|nbd)\//,
    why: "devices are the lowest layer: pools, nexuses and targets stand on them",
  },
  {
    from: /^src\/engine\/pool\//,
    never: /^src\/engine\/(nexus|target|nbd)\//,
    why: "a pool serves replicas and does not know who mirrors or shares them",
  },
  {
    from: /^src\/engine\/nexus\//,
    never: /^src\/engine\/(pool|target|nbd)\//,
    why: "a nexus sees its children as block devices, local and remote ones alike",
  },
  {
    from: /^src\/engine\/reactor\/(?!worker\.ts$)/,
    never: /^src\/(?!engine\/reactor\/|(errors|assert|names)\.ts$)/,
    typesAllowed: true,
    why: "the loop knows nothing of what runs on it; worker.ts, a thread's entry point, joins both",
  },
  {
    from: /^src\/net\//,
    only: /^src\/(net\/|errors\.ts$)/,
    why: "HTTP over mutual TLS knows certificates and nothing of clusters: engine and control use it",
  },
  {
    from: /^src\/client\//,
    only: /^src\/(client\/|(errors|names)\.ts$)/,
    why: "the client of the HTTP API is for verbs, CSI and Kubernetes alike: it knows none of them",
  },
  {
    from: /^src\/control\/planner\//,
    only: /^src\/(control\/planner\/|(errors|assert|names)\.ts$)/,
    typesAllowed: true,
    why: "the planner is pure: the state in, a plan or an error out",
  },
  {
    from: /^src\/(client|host|csi|kube)\//,
    never: /^src\/(cli|node|api)\//,
    why: "the command line is one of their users, and the API is reached as everybody reaches it",
  },
  {
    from: /^src\/(control|api)\//,
    never: /^src\/(node|cli|csi|kube|host|web)\//,
    why: "they are put together in src/node: parts do not know the whole, nor its users",
  },
  {
    from: /^src\/control\//,
    never: /^src\/api\//,
    why: "the API stands on the control plane, not the other way round",
  },
  {
    from: /^src\/control\/store\//,
    only: /^src\/(control\/store\/|(errors|assert|names)\.ts$)/,
    typesAllowed: true,
    why: "the store applies the same commands the same way everywhere: it runs nothing of who uses it",
  },
  {
    from: /^src\/control\/service(\/|\.ts$)/,
    never: /^src\/control\/(executor|observer|recorder|raft)\//,
    why: "operations know executor and observer by their ports only",
  },
  {
    from: /^src\/(cli\/(?!(server|init|join|cluster|control|control-options|engine|engine-membership)\.ts$)|csi\/|kube\/|host\/|web\/)/,
    never: /^src\/control\//,
    typesAllowed: true,
    why: "they reach the cluster only through the HTTP API, as everybody else does; the verbs that run a node, and those that make, join and recover one, are its process or work where none runs yet",
  },
  {
    from: /^src\//,
    never: /^(test|images\/(?!prometheus-alerts\.yaml$))/,
    why: "the product does not depend on its tests or its build; the alert rules are no build, and go into the manifest for Kubernetes",
  },
];

describe("imports", () => {
  for (const rule of importRules) {
    const what =
      rule.only !== undefined ? `only ${rule.only.source}` : `never ${rule.never?.source}`;
    test(`${rule.from.source} imports ${what}: ${rule.why}`, () => {
      const wrong: string[] = [];
      for (const path of sources.filter((file) => rule.from.test(file))) {
        for (const { target, typeOnly } of imports.get(path)!) {
          const ours = /^(src|ffi|test|images)\//.test(target);
          if (!ours || (typeOnly && rule.typesAllowed === true)) continue;
          const allowed = rule.only?.test(target) ?? true;
          if (!allowed || rule.never?.test(target) === true) wrong.push(`${path} -> ${target}`);
        }
      }
      expect(wrong).toEqual([]);
    });
  }

  test("packages reach only where they belong: the data path and the pure code use none", () => {
    const allowed: [folder: RegExp, packages: RegExp][] = [
      [/^ffi\//, /^(bun:ffi|node:)/],
      [/^src\/(nvme\/|errors|assert|names)/, /^$/],
      [/^src\/engine\/(reactor|bdev|pool|nexus|target|nbd)\//, /^(bun:jsc$|node:)/],
    ];
    const wrong: string[] = [];
    for (const [folder, packages] of allowed) {
      for (const path of sources.filter((file) => folder.test(file))) {
        for (const { target } of imports.get(path)!) {
          if (!/^(src|ffi|test|images)\//.test(target) && !packages.test(target)) {
            wrong.push(`${path} -> ${target}`);
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  test("files do not import each other in circles: load order would decide what works", () => {
    const seen = new Set<string>();
    const circles: string[] = [];
    const visit = (path: string, trail: string[]): void => {
      const at = trail.indexOf(path);
      if (at >= 0) {
        circles.push([...trail.slice(at), path].join(" -> "));
        return;
      }
      if (seen.has(path)) return;
      for (const { target, typeOnly, lazy } of imports.get(path) ?? []) {
        if (!typeOnly && !lazy && imports.has(target)) visit(target, [...trail, path]);
      }
      seen.add(path);
    };
    for (const path of sources) visit(path, []);
    expect(circles).toEqual([]);
  });

  test("every import leads somewhere", () => {
    const known = new Set(files);
    const made = (target: string) => /^(ffi\/native|node_modules|dist)\//.test(target);
    const wrong = typescript.flatMap((path) =>
      imports
        .get(path)!
        .filter(({ target }) => /^(src|ffi|test|images|systemd)\//.test(target))
        .filter(({ target }) => !known.has(target) && !made(target))
        .map(({ target }) => `${path} -> ${target}`),
    );
    expect(wrong).toEqual([]);
  });
});

interface Ban {
  readonly what: RegExp;
  readonly where: RegExp;
  readonly except?: RegExp;
  readonly why: string;
}

const bans: Ban[] = [
  {
    what: /\bptr\(|\bbun:ffi\b/,
    where: /^(src|test|images)\//,
    except: /^test\/bench\//,
    why: "small typed arrays move under native code: addresses come from ffi/memory.ts alone",
  },
  {
    what: /\bJSCallback\b/,
    where: /^(src|ffi|test|images)\//,
    why: "native code never calls into JavaScript",
  },
  {
    what: /\b(Date\.now|new Date\(\)|Math\.random|setTimeout|setInterval|performance\.now|fetch)\b\(?|\bawait\b|\bBun\./,
    where: /^src\/(nvme|control\/planner)\//,
    why: "pure code knows no clock, randomness, network, runtime or promise",
  },
  {
    what: /\b(Date\.now|Math\.random|setTimeout|setInterval|performance\.now)\b/,
    where: /^src\/engine\/(bdev|pool|nexus|target|nbd|shard|bench)\//,
    why: "on a reactor time is the reactor's, and its timers are the only ones that run",
  },
  {
    what: /\bas any\b|: any\b|<any>|@ts-ignore|@ts-nocheck/,
    where: /^(src|ffi|test|images)\/.*\.tsx?$/,
    why: "what has no type is not checked",
  },
  {
    what: /\b(test|describe|it)\.only\(/,
    where: /^test\//,
    why: "a focused test silently switches all others off",
  },
];

/** This file states the bans, so it contains what they ban. */
const SELF = "test/architecture.test.ts";

describe("words that may not stand in code", () => {
  for (const ban of bans) {
    test(`${ban.what.source} in ${ban.where.source}: ${ban.why}`, () => {
      const wrong: string[] = [];
      for (const path of typescript) {
        if (path === SELF || !ban.where.test(path) || ban.except?.test(path) === true) continue;
        codeOf(path)
          .split("\n")
          .forEach((line) => {
            if (ban.what.test(line)) wrong.push(`${path}: ${line.trim()}`);
          });
        for (const { target } of imports.get(path)!) {
          if (ban.what.test(target)) wrong.push(`${path} imports ${target}`);
        }
      }
      expect(wrong).toEqual([]);
    });
  }
});

describe("files", () => {
  test("are named in kebab-case, after what they hold", () => {
    const vague = /(^|[-/])(utils?|helpers?|common|misc|manager)(\.|\/|$)/;
    const wrong = files
      .filter((path) => /^(src|ffi|test|images)\//.test(path) && !generated.test(path))
      .filter((path) => vague.test(path) || (/\.tsx?$/.test(path) && /[A-Z_]/.test(path)));
    expect(wrong).toEqual([]);
  });

  test("say what they are at their top", () => {
    const wrong = sources.filter((path) => !/^(#!.*\n)?\s*\/\*\*/.test(textOf(path)));
    expect(wrong).toEqual([]);
  });

  test("stay within a size that can be read", () => {
    const lengths = typescript
      .map((path) => ({ path, lines: textOf(path).split("\n").length - 1 }))
      .filter(({ lines }) => lines > LINES_LISTED)
      .sort((a, b) => b.lines - a.lines);
    for (const { path, lines } of lengths) console.log(`${lines} lines: ${path}`);
    expect(lengths.filter(({ lines }) => lines > LINES_MAX)).toEqual([]);
  });

  test("name no place that exists on one machine only, and no package registry", () => {
    const places = [
      /\/(work|home)\/[a-z]/,
      /(?<!bunfs)\/root\/(?!\$)[a-z.]/,
      // Kubernetes' own registry of images is named to users, and nothing is fetched from it here.
      /\bregistry\.(?!k8s\.io\b)[a-z]/,
      /"resolved":/,
      /\b(deb|snapshot|ftp)\.[a-z.]*debian\.org/,
    ];
    const wrong: string[] = [];
    for (const path of files) {
      if (path === SELF) continue;
      textOf(path)
        .split("\n")
        .forEach((line, index) => {
          if (places.some((place) => place.test(line)))
            wrong.push(`${path}:${index + 1}: ${line.trim()}`);
        });
    }
    expect(wrong).toEqual([]);
  });
});

describe("dependencies", () => {
  const manifest = JSON.parse(textOf("package.json")) as {
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };
  const versions = { ...manifest.dependencies, ...manifest.devDependencies };

  test("are pinned to one version", () => {
    const loose = Object.entries(versions).filter(
      ([, version]) => !/^\d+\.\d+\.\d+$/.test(version),
    );
    expect(loose).toEqual([]);
  });

  test("each have a line in the README that says what for and why", () => {
    const readme = textOf("README.md");
    const unexplained = Object.keys(versions).filter((name) => !readme.includes(`\`${name}\``));
    expect(unexplained).toEqual([]);
  });

  test("are all in the lock file, those of other platforms too: `npm ci` refuses it otherwise", () => {
    const lock = JSON.parse(textOf("package-lock.json")) as {
      packages: Record<string, { optionalDependencies?: Record<string, string> }>;
    };
    const optional = Object.values(lock.packages).flatMap((entry) =>
      Object.keys(entry.optionalDependencies ?? {}),
    );
    const missing = [...Object.keys(versions), ...optional].filter(
      (name) => lock.packages[`node_modules/${name}`] === undefined,
    );
    expect(missing).toEqual([]);
  });
});
