/**
 * The package's JavaScript, four builds in one folder; `tsc` adds the types.
 *
 * **Details**
 *
 * - What engine threads and processes load. It has no `effect`.
 * - What engine processes use of node-llama-cpp, in one file.
 * - The command line, in one file with its dependencies: it starts in a third of the time of separate modules.
 * - The library, with its dependencies as imports: a program that embeds Troupe shares its `effect`.
 * - The dashboard, for browsers, with its dependencies and its other files.
 *
 * **Gotchas**
 *
 * `import.meta.url` in a module is the place that the module would have in `dist` as a file of its own, so that a path
 * relative to it is the same in the sources and in a bundle. All chunks are therefore at the top of `dist`.
 */
import { globSync, readFileSync } from "node:fs"
import http from "node:http"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import type { Plugin } from "rolldown"
import { defineConfig } from "rolldown"

const root = fileURLToPath(new URL(".", import.meta.url))
const sources = join(root, "src")
const output = process.env["TROUPE_BUILD_OUTPUT"] ?? join(root, "dist")

/** The name of an entry in `dist`, without the extension. */
const nameOf = (file: string): string => relative(sources, file).replace(/\.ts$/, "")

const entries = (...files: ReadonlyArray<string>): Record<string, string> =>
  Object.fromEntries(files.map((file) => [nameOf(file), file]))

const library = join(sources, "workers", "llama", "LlamaLibrary.ts")

/** Its paths are those of the installed package, whose version the engine compares before. */
const libraryPlaces: Plugin = {
  name: "library-places",
  transform: {
    filter: { id: /\/node-llama-cpp\/dist\//, code: "import.meta.url" },
    handler: (code, id) => ({
      code: code.replaceAll(
        "import.meta.url",
        `new URL(${
          JSON.stringify(id.replace(/^.*\/node-llama-cpp\/dist\//, ""))
        }, import.meta.resolve("node-llama-cpp")).href`
      ),
      map: null
    })
  }
}

/** Leaves out what finds, builds and downloads a binary, with half of the library's dependencies. */
const foundBinary: Plugin = {
  name: "found-binary",
  load: {
    filter: { id: /\/node-llama-cpp\/dist\/bindings\/getLlama\.js$/ },
    handler: () => ({
      code: `const leftOut = () => { throw new Error("This build of node-llama-cpp does not find binaries.") }
export { leftOut as getLlama, leftOut as getLlamaForOptions }
export const getLlamaFunctionName = "getLlama"
`
    })
  }
}

/** The engine's build imports the library's. */
const libraryAside: Plugin = {
  name: "library-aside",
  resolveId: {
    filter: { id: /\/LlamaLibrary\.ts$/ },
    handler: () => ({ id: `./${nameOf(library)}.js`, external: true })
  }
}

/** Paths of files that are beside the code, such as engine threads, are those of the sources' folders. */
const sourcePlaces: Plugin = {
  name: "source-places",
  transform: {
    filter: { id: /\/src\/.*\.ts$/, code: "import.meta.url" },
    handler: (code, id) => ({
      code: code.replaceAll("import.meta.url", `new URL("${nameOf(id)}.js", import.meta.url).href`),
      map: null
    })
  }
}

/**
 * Exports what `src` and Effect's client use of undici, with the requests that undici's index adds to dispatchers. The index
 * loads all of it: `fetch`, WebSockets, caches and mocks take three times the time and memory.
 */
const usedUndici: Plugin = {
  name: "used-undici",
  load: {
    filter: { id: /\/platform-node\/dist\/Undici\.js$/ },
    handler: () => ({
      code: `import requests from "undici/lib/api/index.js"
import Dispatcher from "undici/lib/dispatcher/dispatcher.js"
Object.assign(Dispatcher.prototype, requests)
export { default as Agent } from "undici/lib/dispatcher/agent.js"
export { default as Pool } from "undici/lib/dispatcher/pool.js"
export { default as ProxyAgent } from "undici/lib/dispatcher/proxy-agent.js"
`,
      // The package says that none of its modules has any.
      moduleSideEffects: true
    })
  }
}

/** Loads Node's HTTP module without its getters, which an `import` reads: one of them loads a client for WebSockets. */
const lazyHttp: Plugin = {
  name: "lazy-http",
  resolveId: {
    filter: { id: /^(?:node:)?http$/ },
    handler: (_, __, { kind }) => kind === "require-call" ? undefined : "\0http"
  },
  load: {
    filter: { id: /^\0http$/ },
    handler() {
      const properties = Object.getOwnPropertyDescriptors(http)
      const names = Object.entries(properties).filter(([, one]) => "value" in one).map(([name]) => name)
      return `const http = process.getBuiltinModule("node:http")\nexport const { ${
        names.join(", ")
      } } = http\nexport default http\n`
    }
  }
}

const packageOf = (file: string): string => {
  const [, folder] = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file) ?? []
  return folder ?? dirname(file)
}

/** The licenses of the packages whose code is in a build. */
const licensesIn = (fileName: string): Plugin => ({
  name: "licenses",
  generateBundle(_, bundle) {
    const modules = Object.values(bundle).flatMap((file) => file.type === "chunk" ? file.moduleIds : [])
    const folders = new Set(modules.filter((id) => id.includes("/node_modules/")).map(packageOf))
    const texts = [...folders].toSorted().map((folder) => {
      const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>
      const [file] = globSync("[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*", { cwd: folder })
      if (file === undefined) throw new Error(`${name} has no license file.`)
      return `${name} ${version}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`
    })
    this.emitFile({ type: "asset", fileName, source: texts.join(`\n${"-".repeat(80)}\n\n`) })
  }
})

/** The files of the dashboard that are not JavaScript. Its libraries have their own style. */
const dashboardFiles: Plugin = {
  name: "dashboard-files",
  generateBundle() {
    const read = (path: string) => readFileSync(join(root, path), "utf8")
    const emit = (fileName: string, source: string) => this.emitFile({ type: "asset", fileName, source })
    emit("index.html", read("src/ui/index.html"))
    emit("icon.svg", read("src/ui/icon.svg"))
    emit("style.css", `${read("node_modules/uplot/dist/uPlot.min.css")}\n${read("src/ui/style.css")}`)
  }
}

const shared = {
  platform: "node",
  // A program may drop unused modules of the library; here every import counts.
  treeshake: { moduleSideEffects: [{ test: /\/src\//, sideEffects: true }] }
} as const

const outputOf = (chunks: string) =>
  ({
    dir: output,
    format: "esm",
    sourcemap: true,
    comments: false,
    chunkFileNames: `${chunks}-[name]-[hash].js`
  }) as const

const bare = /^[^./]/

export default defineConfig([
  {
    ...shared,
    input: entries(
      join(sources, "host.ts"),
      join(sources, "inspect.ts"),
      ...globSync([`${sources}/workers/*.worker.ts`, `${sources}/workers/*/Inspect.ts`])
    ),
    external: bare,
    plugins: [sourcePlaces, libraryAside],
    output: outputOf("engine")
  },
  {
    ...shared,
    input: entries(library),
    // Its index imports all of it.
    treeshake: { moduleSideEffects: false },
    // Packages of binaries, which the library looks for.
    external: /^@(?:node-llama-cpp|reflink)\//,
    plugins: [foundBinary, libraryPlaces, licensesIn("workers/llama/LICENSES.txt")],
    output: { ...outputOf("library"), minify: true, sourcemap: false }
  },
  {
    ...shared,
    input: entries(join(sources, "main.ts")),
    external: ["piscina", "redis"],
    // Node.js loads its other build, whose parts a bundler does not find.
    resolve: { alias: { "jsonc-parser": "jsonc-parser/lib/esm/main.js" } },
    plugins: [sourcePlaces, usedUndici, lazyHttp, licensesIn("LICENSES.txt")],
    output: outputOf("main")
  },
  {
    ...shared,
    input: entries(join(sources, "index.ts"), join(sources, "ai-sdk.ts")),
    external: bare,
    plugins: [sourcePlaces],
    output: outputOf("index")
  },
  {
    platform: "browser",
    input: { app: join(sources, "ui", "main.tsx") },
    transform: { jsx: { runtime: "automatic", importSource: "preact" }, target: "es2022" },
    plugins: [licensesIn("LICENSES.txt"), dashboardFiles],
    output: { dir: join(output, "ui"), format: "esm", minify: true, comments: false, entryFileNames: "[name].js" }
  }
])
