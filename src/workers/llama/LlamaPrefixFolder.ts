/**
 * Opens the folder of a loaded model's prefix files.
 *
 * **Gotchas**
 *
 * The model's files are identified before and after they are loaded: the fingerprint of a file that is replaced in between would
 * be that of another model.
 */
import type { LlamaContext } from "node-llama-cpp"
import { isDeepStrictEqual } from "node:util"
import type { EngineDescription } from "../../domain/EngineProtocol.ts"
import { costsOf } from "../../domain/PrefixFiles.ts"
import { PrefixFolder } from "../model/PrefixFolder.ts"
import { filesOf, fingerprintOf } from "./LlamaFingerprint.ts"
import type { LlamaSpec } from "./LlamaLoad.ts"
import type { Prefixes } from "./LlamaPrefixes.ts"
import { makePrefixes, noPrefixes } from "./LlamaPrefixes.ts"
import type { Slot } from "./LlamaSlots.ts"
import type { Threads } from "./LlamaThreads.ts"

/** What prefixes are computed with. */
interface LoadedContext {
  readonly spec: LlamaSpec
  /** Of `filesBefore`. */
  readonly files: ReadonlyArray<unknown> | undefined
  readonly context: LlamaContext
  readonly description: Pick<EngineDescription, "capabilities">
  readonly threads: Pick<Threads, "prompts">
  readonly cacheGranularity: number
  readonly free: ReadonlyArray<Slot>
}

interface Opened {
  readonly prefixes: Prefixes
  readonly warnings: ReadonlyArray<string>
}

const none: Opened = { prefixes: noPrefixes, warnings: [] }

const warn = (message: string): void => {
  process.stderr.write(`troupe: ${message.replaceAll(/\p{Cc}/gu, "?")}\n`)
}

/** The identities of the model's files before the load; undefined if no prefixes are kept, or a file cannot be read. */
export const filesBefore = (spec: LlamaSpec): ReadonlyArray<unknown> | undefined => {
  if (spec.prefixFiles === undefined) return undefined
  try {
    return filesOf(spec)
  } catch {
    // The load reports it.
    return undefined
  }
}

/** The folder of prefixes, or why it cannot be used. */
export const openPrefixes = (
  { cacheGranularity: granularity, context, description, files, free, spec, threads }: LoadedContext
): Opened => {
  const { prefixFiles } = spec
  if (prefixFiles === undefined || files === undefined || !description.capabilities.includes("generate")) return none
  const { model } = context
  try {
    if (!isDeepStrictEqual(files, filesOf(spec))) return none
    const fingerprint = fingerprintOf({
      files,
      spec,
      contextSize: context.contextSize,
      granularity,
      build: model.llama
    })
    const folder = new PrefixFolder(prefixFiles, fingerprint, warn)
    const costs = costsOf(model.size, { gpu: spec.gpu, threads: threads.prompts }, granularity)
    return { prefixes: makePrefixes({ folder, limits: prefixFiles, costs, free, warn }), warnings: [] }
  } catch (cause) {
    return { ...none, warnings: [`Computed prompts are not kept: ${(cause as Error).message}`] }
  }
}
