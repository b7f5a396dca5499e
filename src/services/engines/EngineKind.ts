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
import type { EngineCapability, EngineSpec } from "../../domain/EngineProtocol.ts"
import { Count, described, optional, traits } from "../../domain/Fields.ts"
import type { PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import type { MemoryEstimate } from "../models/MemoryEstimate.ts"
import type { FileReader, ModelFileError } from "./ModelFiles.ts"

/** The format of a model's files in the model store. */
export type ModelFormat = "gguf" | "onnx"

/** The facts of a deployment's model that its files have before it is loaded. */
export interface ModelFacts extends MemoryEstimate {
  /** Bits a weight. */
  readonly bits?: number | undefined
  /** Tokens per slot; undefined if it is known only after loading. */
  readonly window?: number | undefined
  /** Tokens that the model was trained for. */
  readonly trainedWindow?: number | undefined
  /** What the model can do; undefined if only a load shows it. */
  readonly capabilities?: ReadonlyArray<EngineCapability> | undefined
}

export interface EngineKind<Options extends EngineDeployment = EngineDeployment> {
  /** The value of `engine`. */
  readonly name: string
  /** The schema of a deployment's options. */
  readonly options: Schema.Top
  /** Capabilities of its engines, for any model. */
  readonly capabilities: ReadonlyArray<EngineCapability>
  /** The option with the path of the model; left out if it has no files. */
  readonly path?: "file" | "folder"
  /** The option with paths of the same model in other sizes. */
  readonly variants?: "variants"
  /** The option with LoRA adapters. */
  readonly adapters?: "lora"
  /** The format of the files that it loads from the model store. */
  readonly format?: ModelFormat
  /** The file extension of its models; undefined if it loads folders. */
  readonly extension?: string
  /** The prefix that the names of its models must have. */
  readonly modelPrefix?: string
  /** Whether it loads a native library, which needs additional memory in an engine process. */
  readonly isNative: boolean
  /** Whether its models run outside this service. Their default price is unknown, not 0. */
  readonly isExternal: boolean
  /** The source of the model, for lists. Used when there is no path. */
  source?(options: Options): string
  /** The files in its folder that must exist. */
  filesIn?(options: Options): ReadonlyArray<string>
  /** Reads the model's files without its weights. */
  describe(options: Options, files: FileReader): Effect.Effect<ModelFacts, ModelFileError>
  /**
   * The start message of its worker; undefined if it has no worker, because the embedding program provides the model.
   *
   * @param prefixFiles where computed prompts are kept, if the kind can; left out, nowhere
   */
  spec?(options: Options, prefixFiles?: PrefixFileOptions): EngineSpec
  /** The start message of the process that tries a model of the store before its first load. */
  inspection?(path: string, files: Pick<FileReader, "inspectFile">): Effect.Effect<EngineSpec, ModelFileError>
}

/** Options of all kinds that run on threads. */
export const threadOptions = {
  ...traits,
  slots: optional("Concurrent requests of one engine thread. Default 4.", Count),
  replicas: optional("Engine threads, each with its own context. Default 1.", Count),
  maxReplicas: optional("Most replicas, where scaling is configured. Default scaling.maxReplicas.", Count),
  reasoning: optional(
    "Markers around the thoughts at the beginning of an answer, which become its reasoning; false: all is text. Default those " +
      "that the model's chat template has, such as <think>.",
    Schema.Union([
      Schema.Literal(false),
      Schema.Struct({
        start: described("Text before the thoughts.", Schema.NonEmptyString),
        end: described("Text after the thoughts.", Schema.NonEmptyString)
      })
    ])
  )
}

export const contextSize = optional(
  "Context window of prompt and answer, tokens per slot. Default the model's own, at most 4,096.",
  Count
)

export const threads = optional("Compute threads of each engine thread. Default 1.", Count)

export const sharePrefixes = optional(
  "Whether tenants share the prefix cache. Sharing is faster, but cached_tokens reveals to one tenant how the prompts of " +
    "others begin. Default false.",
  Schema.Boolean
)

export const noMemory: MemoryEstimate = { weightsBytes: 0, kvCacheBytes: 0, computeBytes: 0, totalBytes: 0 }
