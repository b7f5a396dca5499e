// `npm start` and `npm run troupe`: runs the command line as a bundle, which starts in a third of the CPU time of the
// sources. If the sources are newer than `dist`, it builds `dist` first; without rolldown, the sources run.
//
// `node start.mjs --build` only builds what is out of date; `npm ci` does so. `node start.mjs --package` builds the whole package,
// with its types; `npm run build` does so.
import { existsSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

const root = fileURLToPath(new URL(".", import.meta.url))
const dist = join(root, "dist")
const entry = join(dist, "main.js")
const rolldown = join(root, "node_modules", "rolldown", "bin", "cli.mjs")
const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
const isPackage = process.argv[2] === "--package"

const foldersIn = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((one) => {
    const path = join(folder, one.name)
    return one.isDirectory() ? [path, ...foldersIn(path)] : [path]
  })

/** What a bundle is made of. A deleted file changes its folder. */
const inputs = () => [
  ...foldersIn(join(root, "src")),
  ...["src", "rolldown.config.ts", "package.json", "node_modules/.package-lock.json"].map((path) => join(root, path))
]

/** When something was last changed or replaced, ms: unlike the time of modification, no copy sets it to the past. */
const changedAt = (path) => statSync(path, { throwIfNoEntry: false })?.ctimeMs ?? 0

const isCurrent = () => {
  const builtAt = statSync(entry, { throwIfNoEntry: false })?.mtimeMs
  return builtAt !== undefined && inputs().every((path) => changedAt(path) <= builtAt)
}

/** Builds in a folder of its own first, so that no other start reads half of a bundle. Whether it succeeded. */
const build = async () => {
  const { spawnSync } = await import("node:child_process")
  const begun = new Date()
  const output = `${dist}-${process.pid}`
  const replaced = `${output}-replaced`
  const types = isPackage ? [[tsc, "-p", "tsconfig.build.json", "--outDir", output]] : []
  try {
    for (const tool of [[rolldown, "-c", "rolldown.config.ts"], ...types]) {
      const { status, stderr } = spawnSync(process.execPath, tool, {
        cwd: root,
        env: { ...process.env, TROUPE_BUILD_OUTPUT: output },
        encoding: "utf8",
        stdio: isPackage ? "inherit" : "pipe"
      })
      if (status !== 0) throw new Error(stderr ?? `${tool[0]} failed.`)
    }
    // A file that changes during the build is newer than the bundle.
    utimesSync(join(output, "main.js"), begun, begun)
    if (existsSync(dist)) renameSync(dist, replaced)
    renameSync(output, dist)
    return true
  } catch (error) {
    const result = isPackage ? "and stays as it was" : "so the sources run"
    process.stderr.write(`troupe: dist could not be built, ${result}. ${error.message}\n`)
    return false
  } finally {
    for (const folder of [output, replaced]) rmSync(folder, { recursive: true, force: true })
  }
}

const isBuilt = !isPackage && isCurrent() || (existsSync(rolldown) && await build())
if (isPackage) process.exitCode = isBuilt ? 0 : 1
else if (process.argv[2] !== "--build") await import(pathToFileURL(isBuilt ? entry : join(root, "src", "main.ts")).href)
