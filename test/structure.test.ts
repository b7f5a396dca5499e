import { assert, describe, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path/posix"
import { fileURLToPath } from "node:url"
import { strategies } from "../src/domain/Strategies.ts"

const root = fileURLToPath(new URL("../", import.meta.url))
const read = (file: string): string => readFileSync(join(root, file), "utf8")
const sources = globSync("src/**/*.ts", { cwd: root }).toSorted()

/** Files that start a program or a thread, or are loaded for their effect. */
const entryPoints = new Set([
  "src/cli.ts",
  "src/cli/Process.ts",
  "src/host.ts",
  "src/index.ts",
  "src/inspect.ts",
  "src/main.ts",
  "src/RequireNode.ts",
  // The entry of a bundle.
  "src/workers/llama/LlamaLibrary.ts",
  // `inspect.ts` imports one of these by the engine's name.
  "src/workers/llama/Inspect.ts",
  "src/workers/onnx/Inspect.ts",
  ...sources.filter((file) => file.endsWith(".worker.ts"))
])

const leastLines = 40

/** Files that a file loads; types are erased before it runs. */
const importsOf = (file: string): ReadonlyArray<string> =>
  [...read(file).matchAll(/^(?:import|export)\s+(?!type\b)[^"';]*?(?:from\s+)?"(\.[^"]+)"/gm)]
    .map(([, path]) => join(dirname(file), path!))

/** The first circle of imports that is found, as the files on it. */
const circleIn = (graph: ReadonlyMap<string, ReadonlyArray<string>>): ReadonlyArray<string> | undefined => {
  const done = new Set<string>()
  const walk = (file: string, path: ReadonlyArray<string>): ReadonlyArray<string> | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const next of graph.get(file) ?? []) {
      const found = walk(next, [...path, file])
      if (found !== undefined) return found
    }
    done.add(file)
    return undefined
  }
  for (const file of graph.keys()) {
    const found = walk(file, [])
    if (found !== undefined) return found
  }
  return undefined
}

describe("the source", () => {
  it("has no circle of imports", () => {
    assert.isUndefined(circleIn(new Map(sources.map((file) => [file, importsOf(file)]))))
  })

  it("has no small files but entry points", () => {
    const small = sources.filter((file) =>
      !entryPoints.has(file) && read(file).trimEnd().split("\n").length < leastLines
    )
    assert.deepStrictEqual(small, [])
  })

  it("has entry points that exist", () => {
    assert.deepStrictEqual([...entryPoints].filter((file) => !sources.includes(file)), [])
  })

  it("finds a circle where there is one", () => {
    const graph = new Map([["a", ["b"]], ["b", ["c"]], ["c", ["b"]]])
    assert.deepStrictEqual(circleIn(graph), ["b", "c", "b"])
  })
})

describe("a strategy", () => {
  it.each(Object.entries(strategies))("%s is documented as its record says", (name, { description }) => {
    assert.include(read("docs/routing.md"), `| \`${name}\` | ${description} |`)
  })

  it("is listed in one table only", () => {
    const listing = sources.filter((file) => /"least-busy"|"round-robin"/.test(read(file)))
    assert.deepStrictEqual(listing, ["src/domain/Strategies.ts"])
  })
})

describe("the package", () => {
  it("has no script that npm runs, and warns of, where the package is installed", () => {
    const { scripts } = JSON.parse(read("package.json")) as { readonly scripts: Readonly<Record<string, string>> }
    for (const name of ["preinstall", "install", "postinstall", "preprepare", "prepare", "postprepare"]) {
      assert.notProperty(scripts, name)
    }
  })
})
