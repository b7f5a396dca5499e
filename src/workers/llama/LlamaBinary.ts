/**
 * Loads the library's prebuilt CPU binary for Linux in a process that runs one engine only.
 *
 * **Details**
 *
 * `getLlama` first loads the binary in a test process, which loads half of the library again and takes as long as all of the
 * rest, since a binary that does not fit the machine would abort the program. An engine process or an inspection is such a
 * process already. Without `getLlama`, `LlamaLibrary` is enough of the library.
 *
 * **Gotchas**
 *
 * It uses private parts of the library in the pinned version. Where anything is missing, as with a build of the user's
 * own, nothing is loaded, and `getLlama` finds the binary or explains the problem.
 */
import type { Llama, LlamaLogLevel } from "node-llama-cpp"
import { existsSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { join } from "node:path"
import { getEnvironmentData } from "node:worker_threads"
import { engineProcess } from "../../domain/EngineProtocol.ts"

/** What the engine uses of the library. */
export type Library = Omit<typeof import("./LlamaLibrary.ts"), "Llama">

/** The library, and its binary. */
export interface Started {
  readonly library: Library
  readonly llama: Llama
}

type Logger = (level: LlamaLogLevel, message: string) => void

/** What `getLlama` passes for a prebuilt binary. */
interface Creation {
  readonly logLevel: LlamaLogLevel
  readonly logger: Logger
  readonly bindings: unknown
  readonly bindingPath: string
  readonly buildType: "prebuilt"
  readonly buildMetadata: unknown
  readonly maxThreads: number
  readonly vramPadding: number
  readonly ramPadding: unknown
  readonly debug: boolean
  readonly numa: boolean
  readonly tempDir: false
}

interface Class {
  readonly _create: (options: Creation) => Promise<Llama>
}
interface BinaryPackage {
  readonly getBinsDir: () => { readonly binsDir: string; readonly packageVersion: string }
}

/** What the library leaves free of a machine's memory on Linux: its default, which it does not export. bytes */
export const ramPadding = (total: number): number => Math.floor(Math.min(total * 0.25, 1024 ** 3))

const load = async (logger: Logger): Promise<Started | undefined> => {
  const require = createRequire(import.meta.url)
  const installed = import.meta.resolve("node-llama-cpp")
  const name = `linux-${process.arch}`
  const preferred = ["../llama/localBuilds", `../bins/${name}`]
  if (preferred.some((path) => existsSync(new URL(path, installed)))) return undefined
  const { getBinsDir } = await (import(`@node-llama-cpp/${name}`) as Promise<BinaryPackage>)
  const { binsDir, packageVersion } = getBinsDir()
  const { optionalDependencies } = require("../../../package.json") as {
    readonly optionalDependencies: Readonly<Record<string, string>>
  }
  if (packageVersion !== optionalDependencies["node-llama-cpp"]) return undefined
  const folder = join(binsDir, name)
  const bindingPath = join(folder, "llama-addon.node")
  const [library, buildMetadata] = await Promise.all([
    import("./LlamaLibrary.ts"),
    readFile(join(folder, "_nlcBuildMetadata.json"), "utf8")
  ])
  const llama = await (library.Llama as unknown as Class)._create({
    bindings: require(bindingPath),
    bindingPath,
    buildType: "prebuilt",
    buildMetadata: JSON.parse(buildMetadata),
    logLevel: library.LlamaLogLevel.error,
    logger,
    maxThreads: 0,
    vramPadding: 0,
    ramPadding,
    debug: false,
    numa: false,
    tempDir: false
  })
  return { library, llama }
}

/** Undefined where `getLlama` must find the binary. */
export const loadBinary = (logger: Logger): Promise<Started | undefined> =>
  getEnvironmentData(engineProcess) === true && process.platform === "linux"
    ? load(logger).catch(() => undefined)
    : Promise.resolve(undefined)
