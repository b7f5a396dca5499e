// Removes from `node_modules` and `dist` what the service does not load on this platform, development dependencies too:
// node deploy/prune.mjs [true | false]
//
// `dist/main.js` is a bundle: it needs only packages that a bundle cannot contain, because they have threads or native code. With
// `false` the packages of the onnx engine are removed too.
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"

const onnx = process.argv[2] ?? "true"
if (onnx !== "true" && onnx !== "false") {
  process.stderr.write(`prune: ONNX must be true or false, not ${onnx}.\n`)
  process.exit(1)
}

/** The imports of the bundles. onnxruntime-web, for WASM, is three times as large as the native build that replaces it. */
const roots = [
  "piscina",
  "redis",
  "@huggingface/jinja",
  "node-llama-cpp",
  ...(onnx === "true" ? ["@huggingface/tokenizers", "onnxruntime-node"] : [])
]

const remove = (path) => rmSync(path, { recursive: true, force: true })
const foldersIn = (path) => existsSync(path) ? readdirSync(path) : []

/** Where Node.js finds a package from a folder that has packages of its own, or from the top. */
const find = (name, from) =>
  [join(from, "node_modules", name), join("node_modules", name)].find((path) => existsSync(join(path, "package.json")))

/** The top-level folders that these packages need. */
const kept = new Set()
const keep = (name, from) => {
  const path = find(name, from)
  // Optional, or for another platform.
  if (path === undefined || kept.has(path)) return
  kept.add(path)
  const { dependencies, optionalDependencies } = JSON.parse(readFileSync(join(path, "package.json"), "utf8"))
  for (const next of Object.keys({ ...dependencies, ...optionalDependencies })) keep(next, path)
}
for (const name of roots) keep(name, ".")

for (const name of foldersIn("node_modules")) {
  const path = join("node_modules", name)
  if (!name.startsWith("@")) {
    if (!kept.has(path)) remove(path)
    continue
  }
  for (const scoped of foldersIn(path)) if (!kept.has(join(path, scoped))) remove(join(path, scoped))
  if (foldersIn(path).length === 0) remove(path)
}

// Other platforms' builds: node-llama-cpp has a package for each, onnxruntime-node a folder.
const builds = join("node_modules", "@node-llama-cpp")
for (const name of foldersIn(builds)) if (name !== `${process.platform}-${process.arch}`) remove(join(builds, name))
const runtimes = join("node_modules", "onnxruntime-node", "bin", "napi-v6")
for (const platform of foldersIn(runtimes)) {
  if (platform !== process.platform) remove(join(runtimes, platform))
  else for (const arch of foldersIn(join(runtimes, platform))) if (arch !== process.arch) remove(join(runtimes, platform, arch))
}
// The history of llama.cpp, for builds on the user's machine.
remove(join("node_modules", "node-llama-cpp", "llama", "gitRelease.bundle"))

// The library's bundle, and maps.
for (const name of readdirSync("dist", { recursive: true })) {
  if (name.endsWith(".map") || /^(?:index|ai-sdk)/.test(name)) remove(join("dist", name))
}
