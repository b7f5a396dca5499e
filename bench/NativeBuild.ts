/**
 * Builds llama.cpp's `llama-batched-bench` for the shared libraries that the engine uses, so that both compute with the same
 * code.
 *
 * **Details**
 *
 * The package node-llama-cpp has llama.cpp's sources of its version as a Git bundle, and its build for this platform has the
 * libraries that the program needs. `git` and `g++` are required (in Debian, the packages of these names). The program is kept in
 * `bench/results`.
 */
import { execFile } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { mkdir, rename, rm, symlink } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const execute = promisify(execFile)
const results = fileURLToPath(new URL("results/", import.meta.url))
const name = "llama-batched-bench"

const packageFolder = dirname(dirname(createRequire(import.meta.url).resolve("node-llama-cpp")))

/** The folder with the libraries of the CPU build for this platform. */
const librariesOf = (): string => {
  const build = `${process.platform}-${process.arch}`
  return join(dirname(packageFolder), "@node-llama-cpp", build, "bins", build)
}

const compile = async (sources: string, libraries: string, folder: string): Promise<void> => {
  const linked = readdirSync(libraries).filter((file) => /^lib(?:llama|ggml(?:-base)?\.)/.test(file))
  const bench = join(sources, "tools", "batched-bench")
  await execute(
    "g++",
    [
      ["-O2", "-std=c++17", "-w", "-pthread"],
      ["include", "ggml/include", "common"].map((path) => `-I${join(sources, path)}`),
      [join(bench, "batched-bench.cpp"), join(bench, "main.cpp"), "-o", join(folder, name)],
      linked.map((file) => join(libraries, file)),
      [`-Wl,-rpath,${libraries}`]
    ].flat()
  )
  // The library loads the code for this processor from the folder of the program.
  for (const file of readdirSync(libraries).filter((file) => file.startsWith("libggml-cpu"))) {
    await symlink(join(libraries, file), join(folder, file))
  }
}

/** The path of the program, which is built first if it does not exist. */
export const build = async (): Promise<string> => {
  const source = join(packageFolder, "llama")
  const { tag } = JSON.parse(readFileSync(join(source, "llama.cpp.info.json"), "utf8")) as { readonly tag: string }
  const folder = join(results, `llama.cpp-${tag}`)
  if (existsSync(join(folder, name))) return join(folder, name)
  const unfinished = `${folder}.${process.pid}`
  const sources = join(unfinished, "sources")
  try {
    await mkdir(unfinished, { recursive: true })
    await execute("git", ["clone", "--quiet", "--depth", "1", join(source, "gitRelease.bundle"), sources])
    await compile(sources, librariesOf(), unfinished)
    await rm(sources, { recursive: true })
    await rename(unfinished, folder)
  } finally {
    await rm(unfinished, { recursive: true, force: true })
  }
  return join(folder, name)
}
