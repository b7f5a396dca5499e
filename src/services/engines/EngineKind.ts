/**
 * What a kind of engine is: one record that settings, memory planning, routing, the store and the command line read.
 *
 * **Details**
 *
 * A new kind is one record in this folder, a line in `EngineKinds`, and a worker: `src/workers/<name>.worker.ts` with its
 * folder `src/workers/<name>`.
 */
import type { Effect } from "effect"
import { Schema } from "effect"
import type { EngineDeployment } from "../../domain/Deployment.ts"
import type { Ability, EngineSpec } from "../../domain/EngineProtocol.ts"
import { Count, optional, traits } from "../../domain/Fields.ts"
import type { MemoryEstimate } from "../models/MemoryEstimate.ts"
import type { FileReader, ModelFileError } from "./ModelFiles.ts"

/** The format of a model's files in the model store. */
export type ModelFormat = "gguf" | "onnx"

/** What is known of a deployment's model before it is loaded. */
export interface ModelFacts extends MemoryEstimate {
  /** Bits a weight. */
  readonly bits?: number | undefined
  /** Tokens per slot; left out if only loading tells. */
  readonly window?: number | undefined
  /** Tokens that the model was trained for. */
  readonly trainedWindow?: number | undefined
}

export interface EngineKind<Options extends EngineDeployment = EngineDeployment> {
  /** The value of `engine`. */
  readonly name: string
  /** The schema of a deployment's options. */
  readonly options: Schema.Top
  /** What its engines can do, whatever the model. */
  readonly capabilities: ReadonlyArray<Ability>
  /** The option with the path of the model; left out if it has no files. */
  readonly path?: "file" | "folder"
  /** The option with paths of the same model in other sizes. */
  readonly variants?: "variants"
  /** The format in the model store that it loads. */
  readonly format?: ModelFormat
  /** How the path of a model that it loads ends; left out, it loads folders. */
  readonly extension?: string
  /** How the name of a model with such a deployment must begin. */
  readonly modelPrefix?: string
  /** It loads a native library, which needs memory of its own in an engine process. */
  readonly isNative: boolean
  /** Its models run outside this service: they are not free of charge by default. */
  readonly isElsewhere: boolean
  /** Where the model comes from, for lists; asked if there is no path. */
  source?(options: Options): string
  /** The files in its folder that must exist. */
  filesIn?(options: Options): ReadonlyArray<string>
  /** Reads the model's files, not its weights. */
  describe(options: Options, files: FileReader): Effect.Effect<ModelFacts, ModelFileError>
  /** What its worker starts with; left out, it has no worker: the embedding program provides the model. */
  spec?(options: Options): EngineSpec
  /** What to try a model of the store with before its first load. */
  inspection?(path: string, files: Pick<FileReader, "inspectFile">): Effect.Effect<EngineSpec, ModelFileError>
}

/** Options of all kinds that run on threads. */
export const threadOptions = {
  ...traits,
  slots: optional("Requests that run side by side in one engine thread; default 4.", Count),
  replicas: optional("Engine threads, each with its own copy of the model's context; default 1.", Count)
}

export const contextSize = optional(
  "Tokens that prompt and answer share, per slot; default the model's own window, at most 4,096.",
  Count
)

export const threads = optional("Compute threads of each engine thread; default 1.", Count)

export const sharePrefixes = optional(
  "Tenants share what was computed of prompts that begin alike. That is faster, and cached_tokens then shows one tenant " +
    "what another sent; default false, where each tenant has its own.",
  Schema.Boolean
)

export const noMemory: MemoryEstimate = { weightsBytes: 0, kvCacheBytes: 0, computeBytes: 0, totalBytes: 0 }
