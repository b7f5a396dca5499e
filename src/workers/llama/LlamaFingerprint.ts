/**
 * The fingerprint of what the values of a KV cache depend on: the files of the model, its adapters, the options of its
 * context, and the build of llama.cpp.
 *
 * **Details**
 *
 * A file is identified by its size, the time of its last change, and samples of its content. A hash of all of it would take
 * longer than a load.
 *
 * **Gotchas**
 *
 * The state of a KV cache that another model has written may end the process, or be read as values that mean nothing. An option
 * that changes values in the last digits counts, too: the answer for a seed must not depend on earlier requests.
 */
import type { Llama } from "node-llama-cpp"
import { createHash } from "node:crypto"
import { closeSync, fstatSync, openSync, readSync } from "node:fs"
import type { LlamaSpec } from "./LlamaLoad.ts"

/** Raised when the meaning of a file changes. */
const version = 1

const samples = 16
const sampleBytes = 64 * 2 ** 10

/** Characters of a fingerprint, hexadecimal: enough to avoid collisions. */
const length = 32

/** The parts of a split file, else the file. */
const partsOf = (file: string): ReadonlyArray<string> => {
  const count = Number(/-00001-of-(\d{5})\.gguf$/.exec(file)?.[1] ?? 1)
  return Array.from(
    { length: count },
    (_, index) => file.replace(/-00001-of-(\d{5})\.gguf$/, `-${String(index + 1).padStart(5, "0")}-of-$1.gguf`)
  )
}

/** Samples of a file, evenly spaced from its beginning to its end. */
export const identityOf = (path: string): string => {
  const descriptor = openSync(path, "r")
  try {
    const { mtimeMs, size } = fstatSync(descriptor)
    const hash = createHash("sha256").update(`${size} ${mtimeMs}`)
    const sample = Buffer.alloc(sampleBytes)
    for (let index = 0; index < samples; index++) {
      const at = Math.floor(Math.max(0, size - sampleBytes) * index / (samples - 1))
      hash.update(sample.subarray(0, readSync(descriptor, sample, 0, sampleBytes, at)))
    }
    return hash.digest("hex")
  } finally {
    closeSync(descriptor)
  }
}

/** The identities of all files that a deployment loads. */
export const filesOf = ({ file, lora = [] }: Pick<LlamaSpec, "file" | "lora">): ReadonlyArray<unknown> => [
  partsOf(file).map(identityOf),
  lora.map(({ path, scale }) => [identityOf(path), scale])
]

/** What a context is created with. */
export interface ContextIdentity {
  readonly files: ReadonlyArray<unknown>
  readonly spec: LlamaSpec
  /** Tokens per slot. */
  readonly contextSize: number
  /** Tokens of a piece that is reused as a whole. */
  readonly granularity: number
  readonly build: Pick<Llama, "buildType" | "gpu" | "llamaCppRelease" | "systemInfo">
}

/**
 * Whether an option is part of the fingerprint. `files` and `contextSize` stand for the paths and the window. The number of
 * threads does not change the values of pieces of prompts, and with several replicas it depends on their number.
 */
const isCounted: Readonly<Record<keyof LlamaSpec, boolean>> = {
  engine: false,
  file: false,
  contextSize: false,
  slots: true,
  threads: false,
  promptThreads: false,
  replicas: false,
  gpu: true,
  gpuLayers: true,
  flashAttention: true,
  useMmap: false,
  useMlock: false,
  kvCacheType: true,
  sharePrefixes: true,
  prefixFiles: false,
  lora: false,
  reasoning: false
}

const countedOptions = Object.entries(isCounted)
  .flatMap(([name, counts]) => counts ? [name as keyof LlamaSpec] : [])
  .toSorted()

export const fingerprintOf = ({ build, contextSize, files, granularity, spec }: ContextIdentity): string => {
  const { buildType, gpu, llamaCppRelease, systemInfo } = build
  const parts = [
    version,
    files,
    contextSize,
    granularity,
    countedOptions.map((name) => [name, spec[name]]),
    [buildType, gpu, llamaCppRelease.repo, llamaCppRelease.release, systemInfo, process.arch]
  ]
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, length)
}
