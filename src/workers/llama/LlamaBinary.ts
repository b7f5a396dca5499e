/**
 * Loads the library's prebuilt CPU binary for Linux in a process that runs one engine only.
 *
 * **Details**
 *
 * `getLlama` first loads the binary in a test process, which loads half of the library again and takes as long as all of the
 * rest, since a binary that does not fit the machine would abort the program. An engine process or an inspection is such a
 * process already.
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

interface BinaryOptions {
  readonly logLevel: LlamaLogLevel
  readonly logger: (level: LlamaLogLevel, message: string) => void
}

/** What `getLlama` passes for a prebuilt binary. */
interface Creation extends BinaryOptions {
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
  readonly Llama: { readonly _create: (options: Creation) => Promise<Llama> }
}
interface Defaults {
  readonly defaultLlamaRamPadding: unknown
}
interface BinaryPackage {
  readonly getBinsDir: () => { readonly binsDir: string; readonly packageVersion: string }
}

const load = async ({ logLevel, logger }: BinaryOptions): Promise<Llama | undefined> => {
  const library = import.meta.resolve("node-llama-cpp")
  const name = `linux-${process.arch}`
  const preferred = ["../llama/localBuilds", `../bins/${name}`]
  if (preferred.some((path) => existsSync(new URL(path, library)))) return undefined
  const [{ Llama }, { defaultLlamaRamPadding }, { getBinsDir }, { default: { version } }] = await Promise.all([
    import(new URL("bindings/Llama.js", library).href) as Promise<Class>,
    import(new URL("bindings/getLlama.js", library).href) as Promise<Defaults>,
    import(`@node-llama-cpp/${name}`) as Promise<BinaryPackage>,
    import(new URL("../package.json", library).href, { with: { type: "json" } }) as Promise<
      { readonly default: { readonly version: string } }
    >
  ])
  const { binsDir, packageVersion } = getBinsDir()
  if (packageVersion !== version) return undefined
  const folder = join(binsDir, name)
  const bindingPath = join(folder, "llama-addon.node")
  return Llama._create({
    bindings: createRequire(import.meta.url)(bindingPath),
    bindingPath,
    buildType: "prebuilt",
    buildMetadata: JSON.parse(await readFile(join(folder, "_nlcBuildMetadata.json"), "utf8")),
    logLevel,
    logger,
    maxThreads: 0,
    vramPadding: 0,
    ramPadding: defaultLlamaRamPadding,
    debug: false,
    numa: false,
    tempDir: false
  })
}

/** Undefined where `getLlama` must find the binary. */
export const loadBinary = (options: BinaryOptions): Promise<Llama | undefined> =>
  getEnvironmentData(engineProcess) === true && process.platform === "linux"
    ? load(options).catch(() => undefined)
    : Promise.resolve(undefined)
